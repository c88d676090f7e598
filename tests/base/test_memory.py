"""base/memory.py: freed memory goes back to the system."""

import mmap
import subprocess
import sys
import threading

import numpy as np

from onnx2trt.base.memory import HeldMemory, anonymous_bytes

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
    before = anonymous_bytes()
    block = np.ones(2**26, np.uint8)
    assert anonymous_bytes() - before > 2**25 and block.size
    (tmp_path / "odd").write_text("1")
    assert anonymous_bytes(str(tmp_path / "odd")) is anonymous_bytes(str(tmp_path / "none")) is None


def test_pages_of_files_are_not_held(tmp_path):
    (tmp_path / "library").write_bytes(b"code" * 2**24)
    with open(tmp_path / "library", "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        before = anonymous_bytes()
        assert sum(mapped[:: mmap.PAGESIZE]) > 0 and anonymous_bytes() - before < 2**25


class Counter:
    """Stands for the system that counts."""

    def __init__(self, held: int | None):
        self.held = held

    def __call__(self) -> int | None:
        return self.held


def test_what_a_library_takes_where_it_starts_is_its_own():
    system = Counter(10)
    memory = HeldMemory(system)
    with memory.library_starts():
        system.held += 300
    assert memory.without_libraries() == 10
    system.held += 7
    with memory.library_starts():  # the second builder loads nothing anew
        pass
    assert memory.without_libraries() == 17, "what is taken at any other time counts"


def test_a_library_that_fails_to_start_may_leave_what_it_took():
    system = Counter(10)
    memory = HeldMemory(system)
    try:
        with memory.library_starts():
            system.held += 300
            raise OSError
    except OSError:
        assert memory.without_libraries() == 10


def test_what_libraries_have_given_back_hides_nothing():
    system = Counter(10)
    memory = HeldMemory(system)
    for _ in range(3):  # kernels that are loaded, let go and loaded again
        with memory.library_starts():
            system.held += 300
        system.held -= 300
        memory.without_libraries()
    system.held += 500
    assert memory.without_libraries() == 500


def test_nobody_is_told_of_memory_while_a_library_starts():
    system, told = Counter(10), []
    memory = HeldMemory(system)
    with memory.library_starts():
        system.held += 300
        asking = threading.Thread(target=lambda: told.append(memory.without_libraries()))
        asking.start()
        asking.join(0.05)
        assert not told
    asking.join(5)
    assert told == [10]


def test_where_nobody_counts_nothing_is_known():
    memory = HeldMemory(Counter(None))
    with memory.library_starts():
        pass
    assert memory.without_libraries() is None
