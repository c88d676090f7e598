"""Values, rules and process plumbing that need nothing beyond the standard library (numpy in metrics)."""
