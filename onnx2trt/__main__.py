"""python -m onnx2trt, the installed command, and the file that the supervising parent starts as its child."""

import os
import signal
import sys

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until a run takes care of it, Ctrl-C ends us as it ends any program: without frames
if not __package__:  # started as a file: its folder would make the rooms look like top-level packages, and python -P has none there
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path = [os.path.dirname(here), *(path for path in sys.path if path != here)]

from onnx2trt.cli import main

if __name__ == "__main__":
    sys.exit(main())
