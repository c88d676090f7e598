"""One result: as JSON, as a table, as a page."""
