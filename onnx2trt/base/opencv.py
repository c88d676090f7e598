"""OpenCV, set up before its first import: it reads its pixel limit once."""

from __future__ import annotations

import functools
import os

import numpy as np

MAX_PIXELS = 100_000_000  # of one image; a larger one is refused before it is decoded
LARGEST_KEPT = (32 << 20) - (64 << 10)  # bytes; glibc's DEFAULT_MMAP_THRESHOLD_MAX, less what it adds to a block


@functools.cache  # setting up takes 0.1 ms, and calibration comes here for every tensor
def opencv():
    """The cv2 module, with a lower pixel limit than its own, a silent log and no threads of its own."""
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    import cv2

    cv2.setNumThreads(1)  # images are decoded in parallel; threads inside each would only fight
    _keep_freed_memory()
    return cv2


def _keep_freed_memory() -> None:
    """Have the C library keep the memory of one image for the next.

    OpenCV allocates every image twice (its own and numpy's). glibc returns such blocks to the system at once and has them
    mapped in again page by page, which takes nearly as long as decoding. Once a block of this size was freed, it keeps smaller ones,
    up to twice as much at the end of each heap (mallopt(3), M_MMAP_THRESHOLD; MALLOC_ variables of the user win). Other C libraries
    are not impressed, and the block is never touched.
    """
    np.empty(LARGEST_KEPT, np.uint8)
