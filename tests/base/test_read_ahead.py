"""base/read_ahead.py: reading ahead of a consumer, and memory that is used again."""

import gc
import threading

import numpy as np
import pytest
from helpers import ends_within, wait_until

from onnx2trt.base.errors import DataError
from onnx2trt.base.read_ahead import read_ahead
from onnx2trt.data.reused_arrays import ReusedArrays

# ---- reading ahead


def test_the_order_is_that_of_the_paths_whoever_is_ready_first():
    second_done = threading.Event()

    def load(path):
        if path == "a":
            assert second_done.wait(5)  # runs at the same time as "b", and ends after it
        if path == "b":
            second_done.set()
        return path.upper()

    assert list(read_ahead("abc", load, workers=2)) == [("a", "A"), ("b", "B"), ("c", "C")]


@pytest.mark.parametrize(("workers", "ahead"), [(1, 0), (2, 0), (4, 0), (4, 3), (1, 10), (2, 20)])
def test_loads_are_ahead_of_the_consumer_by_a_bounded_number(workers, ahead):
    started = []
    results = read_ahead(range(50), lambda number: started.append(number) or number, workers, ahead)
    most = max(2 * workers, ahead)
    for consumed, (path, _) in enumerate(results, start=1):
        assert path == consumed - 1
        assert len(started) <= consumed + most
        if consumed == 1:
            assert wait_until(lambda: len(started) == 1 + most)  # without anybody asking
    assert len(started) == 50


def test_a_consumer_that_stops_early_leaves_the_rest_unread():
    started = []
    results = read_ahead(range(1000), started.append, workers=2)
    next(results)
    results.close()
    assert len(started) <= 6


def test_what_is_waiting_when_the_consumer_stops_is_not_loaded():
    started, go_on = [], threading.Event()

    def load(number):
        started.append(number)
        assert number == 0 or go_on.wait(5)

    results = read_ahead(range(10), load, workers=1)
    next(results)
    assert wait_until(lambda: started == [0, 1])
    threading.Timer(0.05, go_on.set).start()
    results.close()
    assert started == [0, 1]


def test_a_consumer_that_stops_does_not_wait_for_what_is_being_loaded():
    """The garbage collector can be what ends it, in a thread in which waiting for other threads would never end."""
    go_on = threading.Event()
    results = read_ahead(range(10), lambda number: number == 0 or go_on.wait(30), workers=1)
    next(results)
    assert ends_within(5, results.close)
    go_on.set()


def test_bad_data_is_handed_over_and_other_errors_are_raised():
    def load(path):
        if path == "bad":
            raise DataError("is empty")
        raise MemoryError

    results = read_ahead(["bad", "worse"], load, workers=1)
    path, error = next(results)
    assert path == "bad" and isinstance(error, DataError)
    with pytest.raises(MemoryError):
        next(results)


# ---- memory that is used again


def test_memory_is_used_again_once_its_array_is_gone():
    memory = ReusedArrays((2, 3), "float32")
    first = memory.array()
    place = first.ctypes.data
    assert first.shape == (2, 3) and first.dtype == np.float32 and first.flags.c_contiguous and first.flags.writeable
    assert memory.array().ctypes.data != place  # while the first is held
    del first
    gc.collect()  # where objects do not go at once
    both = [memory.array(), memory.array()]
    assert place in [array.ctypes.data for array in both] and memory.made == 2


@pytest.mark.parametrize(
    "view",
    [
        lambda array: array[0],
        lambda array: array.T,
        lambda array: array.reshape(-1)[2:],
        lambda array: array.view(np.uint8)[:, ::2],
        lambda array: np.asarray(array[1:])[None],
        memoryview,
        lambda array: np.frombuffer(memoryview(array), np.float32),
        lambda array: np.from_dlpack(array),
    ],
)
def test_a_view_holds_the_memory(view):
    memory = ReusedArrays((2, 3), "float32")
    array = memory.array()
    array[:] = np.arange(6).reshape(2, 3)
    held = view(array)
    before = np.array(held)
    del array
    gc.collect()
    memory.array()[:] = -1
    memory.array()[:] = -1
    assert np.array_equal(held, before) and memory.made == 2
    del held
    gc.collect()
    others = [memory.array() for _ in range(2)]
    assert memory.made == len(others) == 2


def test_arrays_outlive_what_made_them():
    array = ReusedArrays((4,), "uint8").array()
    array[:] = 7
    gc.collect()
    assert array.tolist() == [7] * 4


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_arrays_without_elements_and_of_any_type(dtype):
    assert ReusedArrays((0, 3), dtype).array().shape == (0, 3)
    assert ReusedArrays((1, 2), dtype).array().dtype == dtype


def test_threads_never_share_memory():
    memory, wrong = ReusedArrays((1000,), "float32"), []

    def work(number: int) -> None:
        for _ in range(300):
            array = memory.array()
            array[:] = number
            if not (array == number).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and memory.made <= 2 * len(threads)
