"""One module a stage of a conversion; each takes values and returns a new value. Their order stands in onnx2trt.py."""
