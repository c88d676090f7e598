#!/usr/bin/env python3
"""The verdict on an engine, or on a prepared ONNX of any tool: python validate.py CANDIDATE --onnx original.onnx ...

The code is in the package onnx2trt/. For other programs: from validate import Comparison, Study, failure, which load it.
"""

import os
import sys

if __name__ == "__main__":
    sys.excepthook = lambda kind, *what, shown=sys.excepthook: kind is KeyboardInterrupt or shown(kind, *what)  # Ctrl-C shows no frames
    if (here := os.path.dirname(os.path.realpath(__file__))) not in sys.path:
        sys.path.insert(0, here)  # python -P and -I leave it out

from onnx2trt.base.lazy import lazily

FROM = {  # what can be imported from here -> the module that has it; loaded when it is asked for
    "Comparison": "onnx2trt.compare.outputs",  # of all outputs of two models
    "Study": "onnx2trt.compare.study",  # of one output, sample by sample
    "failure": "onnx2trt.compare.failure",
}

__getattr__ = lazily(__name__, FROM)


if __name__ == "__main__":
    from onnx2trt.__main__ import main

    sys.exit(main(["validate", *sys.argv[1:]], "validate.py"))
