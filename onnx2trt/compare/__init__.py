"""What a verdict is made of: metrics, outputs held against each other, latency."""
