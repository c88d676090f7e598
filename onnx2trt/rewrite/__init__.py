"""Graph in, graph out: folding, FP16, layers kept in FP32, Q/DQ, strong typing, simulation. Nothing is run here."""
