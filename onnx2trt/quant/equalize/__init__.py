"""Channel equalization: which channels may be scaled or shifted together, by how much, and the graph with it done."""
