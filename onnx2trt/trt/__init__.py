"""Everything that touches TensorRT and CUDA."""
