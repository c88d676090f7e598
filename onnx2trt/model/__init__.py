"""The ONNX graph itself: read, checked, held in a working form, and run on the CPU."""
