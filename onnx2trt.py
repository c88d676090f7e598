#!/usr/bin/env python3
"""The whole job in one command: python onnx2trt.py --onnx model.onnx ... (the code is in the package onnx2trt/)."""

import os
import sys

if __name__ == "__main__":
    sys.excepthook = lambda kind, *what, shown=sys.excepthook: kind is KeyboardInterrupt or shown(kind, *what)  # Ctrl-C shows no frames
    if (here := os.path.dirname(os.path.realpath(__file__))) not in sys.path:
        sys.path.insert(0, here)  # python -P and -I leave it out
    from onnx2trt.__main__ import main

    sys.exit(main())
