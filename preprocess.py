#!/usr/bin/env python3
"""What the network really gets of an image: python preprocess.py IMAGE --onnx model.onnx -o x.npy ...

The code is in the package onnx2trt/. For other programs: from preprocess import Preprocessing, load_image, which loads it.
"""

import os
import sys

if __name__ == "__main__":
    sys.excepthook = lambda kind, *what, shown=sys.excepthook: kind is KeyboardInterrupt or shown(kind, *what)  # Ctrl-C shows no frames
    if (here := os.path.dirname(os.path.realpath(__file__))) not in sys.path:
        sys.path.insert(0, here)  # python -P and -I leave it out

from onnx2trt.base.lazy import lazily

FROM = {  # what can be imported from here -> the module that has it; loaded when it is asked for
    **dict.fromkeys(("Preprocessing", "displayed", "image_tensor"), "onnx2trt.data.pixels"),
    **dict.fromkeys(("decode", "load_image", "read_image"), "onnx2trt.data.reader"),
}

__getattr__ = lazily(__name__, FROM)


if __name__ == "__main__":
    from onnx2trt.__main__ import main

    sys.exit(main(["preprocess", *sys.argv[1:]], "preprocess.py"))
