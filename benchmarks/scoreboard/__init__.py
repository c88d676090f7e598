"""What benchmarks/coverage.py is made of: where models come from, how one is converted and judged, and the page."""
