"""Reading ahead of a consumer on all cores, and memory for what is read that is used again."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from onnx2trt.base.cores import usable_cores
from onnx2trt.base.errors import DataError

MOST_WORKERS = 8
T = TypeVar("T")


def read_ahead(items: Iterable[T], load: Callable[[T], object], workers: int = 0, ahead: int = 0) -> Iterator[tuple[T, object]]:
    """(item, load(item)) in the order of items; a DataError is returned.

    Args:
        items: taken one by one, shortly before they are loaded, so they may hold the memory to load into.
        workers: threads; 0: as many as there are cores.
        ahead: loads that are under way or waiting for the consumer, at most; twice the workers where that is more.
    """
    workers = workers or min(usable_cores(), MOST_WORKERS)
    ahead = max(ahead, 2 * workers)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="read")
    pending: deque = deque()

    def attempt(item: T):
        try:
            return load(item)
        except DataError as error:
            return error

    def first():
        item, future = pending.popleft()
        return item, future.result()

    try:
        for item in items:
            pending.append((item, pool.submit(attempt, item)))
            del item  # only `pending` and whoever is given it hold it
            if len(pending) > ahead:
                yield first()
        while pending:
            yield first()
    finally:
        # A consumer that raised may leave us to the garbage collector, which comes in any thread, even in one that is just starting:
        # to wait there for the pool's threads never ends.
        pool.shutdown(wait=False, cancel_futures=True)


def map_in_order(items: Iterable[T], work: Callable[[T], object], at_once: int = 1) -> Iterator[tuple[T, object]]:
    """(item, work(item)) in the order of items; `at_once` threads work at the same time, none but the caller's where that is 1."""
    return read_ahead(items, work, at_once) if at_once > 1 else ((item, work(item)) for item in items)


class ReusedArrays:
    """Arrays of one shape and type whose memory is used again as soon as nobody holds the array, or a view of it.

    So a consumer that lets go of each array makes do with a few of them, and one that keeps them all gets as many: nothing
    that is held is ever overwritten. Memory of up to 32 MB the C library hands out again by itself (base/opencv.py); larger
    batches the system would have to map in anew page by page: 0.5 ms for each float32 3x640x640 on a virtual machine with huge
    pages, 3.5 ms without, where decoding a picture takes 8.
    """

    def __init__(self, shape: tuple[int, ...], dtype: str):
        self._shape, self._dtype = shape, np.dtype(dtype)
        self._free: list[np.ndarray] = []
        self.made = 0  # pieces of memory, in use and free

    def array(self) -> np.ndarray:
        """An array with any content."""
        try:
            memory = self._free.pop()
        except IndexError:
            memory = np.empty(math.prod(self._shape) * self._dtype.itemsize, np.uint8)
            self.made += 1
        return np.asarray(_Lent(memory, self._free)).view(self._dtype).reshape(self._shape)


class _Lent:
    """Lends memory to an array: numpy keeps this alive as long as the array or any view of it."""

    def __init__(self, memory: np.ndarray, free: list[np.ndarray]):
        self._memory, self._free = memory, free
        self.__array_interface__ = memory.__array_interface__

    def __del__(self) -> None:
        self._free.append(self._memory)
