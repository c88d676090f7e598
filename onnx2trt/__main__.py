"""python -m onnx2trt, and the file that the supervising parent starts as its child."""

import os
import sys

if not __package__:  # started as a file: its folder would make the rooms look like top-level packages
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from onnx2trt.cli import main

if __name__ == "__main__":
    sys.exit(main())
