#!/usr/bin/env python3
"""Only the calibration cache: python calibration.py --onnx model.onnx --calibration-dir images/ --calibration-cache model.cache ...

The code is in the package onnx2trt/. For other programs: from calibration import Collector, make_calibrator, which loads it.
"""

import sys

from onnx2trt.base.lazy import lazily
from onnx2trt.cli import main

FROM = {  # what can be imported from here -> the module that has it; loaded when it is asked for
    **dict.fromkeys(("METHODS", "Collector", "Histogram", "scale_of"), "onnx2trt.quant.histograms"),
    **dict.fromkeys(("parse", "read", "to_text"), "onnx2trt.quant.calibration_cache"),
    "make_calibrator": "onnx2trt.trt.calibrator",
}

__getattr__ = lazily(__name__, FROM)


if __name__ == "__main__":
    sys.exit(main(["calibrate", *sys.argv[1:]], "calibration.py"))
