#!/usr/bin/env python3
"""Only the calibration cache: python calibration.py --onnx model.onnx --calibration-dir images/ --calibration-cache model.cache ...

The code is in the package onnx2trt/. For other programs: from calibration import Collector, make_calibrator, which loads it.
"""

import os
import sys

if __name__ == "__main__":
    sys.excepthook = lambda kind, *what, shown=sys.excepthook: kind is KeyboardInterrupt or shown(kind, *what)  # Ctrl-C shows no frames
    if (here := os.path.dirname(os.path.realpath(__file__))) not in sys.path:
        sys.path.insert(0, here)  # python -P and -I leave it out

from onnx2trt.base.lazy import lazily

FROM = {  # what can be imported from here -> the module that has it; loaded when it is asked for
    **dict.fromkeys(("METHODS", "Collector", "Histogram", "scale_of"), "onnx2trt.quant.histograms"),
    **dict.fromkeys(("parse", "read", "to_text"), "onnx2trt.quant.calibration_cache"),
    "make_calibrator": "onnx2trt.trt.calibrator",
}

__getattr__ = lazily(__name__, FROM)


if __name__ == "__main__":
    from onnx2trt.__main__ import main

    sys.exit(main(["calibrate", *sys.argv[1:]], "calibration.py"))
