#!/usr/bin/env python3
"""The verdict on an engine, or on a prepared ONNX of any tool: python validate.py CANDIDATE --onnx original.onnx ...

The code is in the package onnx2trt/. For other programs: from validate import Comparison, Study, failure, which load it.
"""

import sys

from onnx2trt.base.lazy import lazily
from onnx2trt.cli import main

FROM = {  # what can be imported from here -> the module that has it; loaded when it is asked for
    "Comparison": "onnx2trt.compare.outputs",  # of all outputs of two models
    "Study": "onnx2trt.compare.study",  # of one output, sample by sample
    "failure": "onnx2trt.compare.failure",
}

__getattr__ = lazily(__name__, FROM)


if __name__ == "__main__":
    sys.exit(main(["validate", *sys.argv[1:]], "validate.py"))
