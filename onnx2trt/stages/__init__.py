"""One module a stage of a conversion; each takes values and returns a new value. None imports another."""
