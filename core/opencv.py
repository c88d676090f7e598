"""OpenCV, set up before its first import: it reads its pixel limit once."""

from __future__ import annotations

import functools
import os

MAX_PIXELS = 100_000_000  # of one picture; a larger one is refused before it is decoded


@functools.cache  # setting up takes 0.1 ms, and calibration comes here for every tensor
def opencv():
    """The cv2 module, with a lower pixel limit than its own, a silent log and no threads of its own."""
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    import cv2

    cv2.setNumThreads(1)  # pictures are decoded in parallel; threads inside each would only fight
    return cv2
