"""What the integers of a quantized tensor stand for: q is (q - zero) * scale."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx2trt.rewrite.qdq import along

BITS_8 = ("int8", "uint8")
BITS_16 = ("int16", "uint16")


@dataclass(frozen=True)
class Steps:
    """What the integers of one tensor stand for."""

    scale: np.ndarray  # float32, scalar or [channels]
    zero: np.ndarray  # int64, of the same shape
    dtype: str  # of the integers
    axis: int  # of the channels

    @property
    def key(self) -> tuple:
        return self.scale.tobytes(), self.zero.tobytes(), self.dtype, self.axis if self.scale.size > 1 else None

    @property
    def shift(self) -> np.ndarray:
        """k: the zero point once the integers are INT8."""
        return self.zero - (128 if self.dtype == "uint8" else 0)

    @property
    def plain(self) -> bool:
        """TensorRT takes it as it is."""
        return self.dtype == "int8" and not self.zero.any()

    @property
    def writable(self) -> bool:
        """Whether activations can be rounded to it."""
        return self.scale.size == 1 and self.dtype in BITS_8 + BITS_16 or self.plain

    def integers(self, values: np.ndarray) -> np.ndarray:
        """The nearest integers; ties go to even ones."""
        axis, limits = self.axis if self.scale.size > 1 else None, np.iinfo(self.dtype)
        whole = np.rint(values.astype(np.float32) / aligned(self.scale, axis, values.ndim)) + aligned(self.zero, axis, values.ndim)
        return np.clip(whole, limits.min, limits.max).astype(self.dtype)

    def values(self, integers: np.ndarray) -> np.ndarray:
        """float32"""
        axis = self.axis if self.scale.size > 1 else None
        whole = integers.astype(np.int64) - aligned(self.zero, axis, integers.ndim)
        return (whole * aligned(self.scale, axis, integers.ndim).astype(np.float64)).astype(np.float32)


def aligned(array: np.ndarray, axis: int | None, dims: int) -> np.ndarray:
    """One value for each channel, or one for all, shaped to broadcast along `axis` of `dims` dimensions."""
    return along(np.asarray(array), axis, dims) if axis is not None else np.asarray(array).reshape(())
