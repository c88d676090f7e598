"""base/memory.py: freed memory goes back to the system."""

import subprocess
import sys

import numpy as np

from onnx2trt.base.memory import resident_bytes

FREED_BUT_KEPT = """
import numpy as np
from onnx2trt.base.memory import return_freed
from onnx2trt.base.opencv import LARGEST_KEPT

def resident():
    return int(open("/proc/self/status").read().split("VmRSS:")[1].split()[0]) / 1000

np.empty(LARGEST_KEPT, np.uint8)  # from now on blocks as large as these are kept when they are freed
start = resident()
blocks = [np.ones(2**20, np.uint8) for _ in range(100)]
del blocks[:-1]  # what the last one stands behind
kept = resident() - start
return_freed()
print(kept, resident() - start)
"""


def test_what_was_freed_before_something_that_is_used_goes_back():
    done = subprocess.run([sys.executable, "-c", FREED_BUT_KEPT], capture_output=True, text=True, check=True)
    kept, left = map(float, done.stdout.split())
    assert kept > 80 and left < 20


def test_what_a_process_holds(tmp_path):
    before = resident_bytes()
    block = np.ones(2**26, np.uint8)
    assert resident_bytes() - before > 2**25 and block.size
    (tmp_path / "odd").write_text("1")
    assert resident_bytes(str(tmp_path / "odd")) is resident_bytes(str(tmp_path / "none")) is None
