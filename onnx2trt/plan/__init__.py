"""Arguments, the rules between them, and the plan: every decision that needs neither the model nor data."""
