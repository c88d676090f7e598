#!/usr/bin/env python3
"""The whole job in one command: python onnx2trt.py --onnx model.onnx ... (the code is in the package onnx2trt/)."""

import sys

from onnx2trt.cli import main

if __name__ == "__main__":
    sys.exit(main())
