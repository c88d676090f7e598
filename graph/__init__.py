"""ONNX in, ONNX out: preflight, reference outputs, FP16 and Q/DQ preparation, simulation."""
