"""The two floating-point types of 16 bits that layers are lowered to, as data: what is done for one of them is done for the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx


@dataclass(frozen=True)
class LowType:
    """A type that FP32 values are rounded to."""

    name: str  # as --precision has it
    elem_type: int  # TensorProto.DataType

    @property
    def label(self) -> str:
        """For people."""
        return self.name.upper()

    @property
    def dtype(self) -> np.dtype:
        """Of its arrays; onnx before 1.19 has none for BF16 and FP8, and gives others."""
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(self.elem_type))


@dataclass(frozen=True)
class HalfType(LowType):
    """A type of 16 bits."""

    bits: int  # of a value's precision, the leading one included
    largest: float  # finite value
    smallest_normal: float  # below it, precision is lost bit by bit
    wide: bool  # as wide a range as FP32

    @property
    def rounding(self) -> float:
        """Largest relative error of rounding to it."""
        return 2.0**-self.bits

    def of(self, array: np.ndarray) -> np.ndarray:
        """Values rounded to the nearest, ties to even. In BF16, FP32's largest become the largest there: masks stay finite."""
        with np.errstate(over="ignore"):
            found = np.asarray(array).astype(self.dtype)
            if self.wide and np.isinf(found).any():
                beyond = np.isinf(found) & ~np.isinf(array)
                found = np.where(beyond, np.copysign(self.largest, array).astype(self.dtype), found)
        return found


FP16 = HalfType("fp16", onnx.TensorProto.FLOAT16, 11, 65504.0, 2.0**-14, wide=False)
BF16 = HalfType("bf16", onnx.TensorProto.BFLOAT16, 8, (2 - 2.0**-7) * 2.0**127, 2.0**-126, wide=True)
HALF_TYPES = (FP16, BF16)
BY_ELEM_TYPE = {half.elem_type: half for half in HALF_TYPES}
BY_NAME = {half.name: half for half in HALF_TYPES}
