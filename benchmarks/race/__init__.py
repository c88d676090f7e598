"""Parts of benchmarks/engines.py: the networks, the engines of the bare API, the clock, the verdict."""
