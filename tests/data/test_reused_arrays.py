"""data/reused_arrays.py: memory that is used again once nobody looks at it any more."""

import gc
import threading

import numpy as np
import pytest

from onnx2trt.data.reused_arrays import ReusedArrays


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
