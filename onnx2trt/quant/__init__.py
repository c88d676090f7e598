"""Quantisation as NumPy: histograms and scales, sensitivity of layers, weight fitting, rounding."""
