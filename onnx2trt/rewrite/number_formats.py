"""The 8-bit formats that a layer's operands can have, as data: what differs between INT8 and FP8 stands here and nowhere else.

FP8 is E4M3 (FLOAT8E4M3FN): a sign, four bits of exponent, three of mantissa, no infinity, 448 the largest value; "FP8 Formats for Deep
Learning", Micikevicius et al., arXiv:2209.05433, 2022.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from onnx2trt.model.half_types import LowType
from onnx2trt.model.operators import WEIGHTED

SMALLEST_EXPONENT = -6  # of the normal values of E4M3
MANTISSA_STEPS = 8  # values of E4M3 from one power of two to the next
INVERSE_FITS_FP16 = 2.0**-15  # TensorRT-RTX multiplies by 1 / scale, which it stores in FP16


@dataclass(frozen=True)
class NumberFormat(LowType):
    """A tensor of this format stands for x = scale * q, with q one of its values."""

    largest: float  # max |q| that scales are chosen for
    lowest: float  # of q, where a quantizer clips
    floating: bool  # steps grow with the values; else they are 1
    operators: frozenset[str]  # whose constant weights and activations can have it
    fewest: int  # inputs and outputs of a matrix product from which on it pays
    per_channel: bool  # weights have a scale for each output channel; else one for all
    between: bool  # what lies between two layers (additions, pooling, ...) reads it, too
    equalize: bool  # channels of different reach lose by sharing a scale
    # of calibration, from wide scales to narrow ones, as a rule: what a wide one rounds off shows in every sample, what a narrow one cuts
    # off does not. Entropy is made for 128 even levels
    methods: tuple[str, ...]
    most_tokens: int  # of an attention that TensorRT has a fused kernel for
    smallest_fp16_scale: float  # of activations, where scales are stored in FP16; 0: any

    @property
    def available(self) -> bool:
        """Whether the installed onnx has arrays of it (FP8: 1.19 and newer)."""
        return self.dtype.itemsize == 1 and float(np.array(self.largest, np.float32).astype(self.dtype).astype(np.float32)) == self.largest

    def nearest(self, values: np.ndarray, symmetric: bool = True) -> np.ndarray:
        """The nearest values of the format, ties to even ones; beyond the largest, the largest. NaN stays NaN.

        Args:
            values: float32 or float64, in units of the scale.
            symmetric: as weights are; False: as a quantizer does it, which has -128 in INT8.

        Returns:
            A new array of the same type.
        """
        rounded = np.clip(values, -self.largest if symmetric else self.lowest, self.largest)
        if not self.floating:
            return np.rint(rounded, out=rounded)
        with np.errstate(invalid="ignore"):  # NaN
            _, exponents = np.frexp(rounded)  # |x| = m * 2 ** exponent, 0.5 <= m < 1
            steps = np.ldexp(rounded.dtype.type(1 / MANTISSA_STEPS), np.maximum(exponents - 1, SMALLEST_EXPONENT))
            rounded /= steps
            np.rint(rounded, out=rounded)
            rounded *= steps
        return rounded

    def stored(self, values: np.ndarray) -> np.ndarray:
        """Values of the format (as `nearest` gives them) in its own type."""
        return values.astype(self.dtype)


INT8 = NumberFormat(
    name="int8",
    elem_type=onnx.TensorProto.INT8,
    largest=127,
    lowest=-128,
    floating=False,
    operators=WEIGHTED,
    fewest=1,
    per_channel=True,
    between=True,
    equalize=True,
    methods=("minmax", "percentile", "mse", "entropy"),
    most_tokens=512,  # as NVIDIA's ModelOpt has it
    smallest_fp16_scale=0.0,
)
# One scale for all weights of a layer. The steps of E4M3 are in proportion to the values, so channels of different reach lose nothing by
# sharing a scale; and with a scale for each channel TensorRT-RTX 1.7 writes the bare sums of a product to FP16 before it scales them, where
# they overflow (with one it scales them in FP32). Convolutions: TensorRT-RTX has FP8 for matrix products alone.
FP8 = NumberFormat(
    name="fp8",
    elem_type=onnx.TensorProto.FLOAT8E4M3FN,
    largest=448,
    lowest=-448,
    floating=True,
    operators=frozenset(("Gemm", "MatMul")),
    fewest=16,
    per_channel=False,
    between=False,
    equalize=False,
    methods=("minmax", "percentile", "mse"),
    most_tokens=3072,  # release notes of TensorRT 10.6, for Ada
    smallest_fp16_scale=INVERSE_FITS_FP16,
)
FORMATS = {number_format.name: number_format for number_format in (INT8, FP8)}
OF_TYPE = {number_format.elem_type: number_format for number_format in (INT8, FP8)}
