"""Turn an ONNX model into a TensorRT engine that is proven to be what was asked for."""
