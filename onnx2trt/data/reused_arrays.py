"""Memory for what is read that is used again."""

from __future__ import annotations

import math

import numpy as np


class ReusedArrays:
    """Arrays of one shape and type whose memory is used again as soon as nobody holds the array, or a view of it.

    So a consumer that lets go of each array makes do with a few of them, and one that keeps them all gets as many: nothing
    that is held is ever overwritten. Memory of up to 32 MB the C library hands out again by itself (base/opencv.py); larger
    batches the system would have to map in anew page by page: 0.5 ms for each float32 3x640x640 on a virtual machine with huge
    pages, 3.5 ms without, where decoding an image takes 8.
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
