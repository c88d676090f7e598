"""Many models for many GPUs from one file: python -m onnx2trt.fleet plan.yaml. Each conversion is the command itself, on a node of Ray."""
