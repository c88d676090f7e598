"""One result object, shown as a table and as JSON."""
