"""Errors, files, locks, cores: what every room may use. No imports of other rooms."""
