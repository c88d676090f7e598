"""One process supervises another: the parent outlives crashes, obeys signals, and renames finished files."""
