"""model/half_types.py: FP16 and BF16 as data."""

import ml_dtypes
import numpy as np
import pytest
from models import random

from onnx2trt.model.half_types import BF16, BY_ELEM_TYPE, FP16, HALF_TYPES


@pytest.mark.parametrize("half, dtype", [(FP16, np.float16), (BF16, ml_dtypes.bfloat16)], ids=lambda one: getattr(one, "name", ""))
def test_what_is_said_of_a_type_is_what_its_arrays_are(half, dtype):
    limits = ml_dtypes.finfo(dtype)
    assert half.dtype == dtype and BY_ELEM_TYPE[half.elem_type] is half
    assert half.largest == float(limits.max) and half.smallest_normal == float(limits.smallest_normal)
    assert half.bits == limits.nmant + 1
    values = random(10000, scale=100.0)
    errors = np.abs(half.of(values).astype(np.float64) / values - 1)
    assert half.rounding / 2 < errors.max() <= half.rounding
    assert np.array_equal(half.of(values), values.astype(dtype))


def test_the_largest_of_fp32_stays_finite_in_bf16_alone():
    limits = np.finfo(np.float32)
    values = np.float32([limits.min, limits.max, -np.inf, np.inf, 1.0])
    assert BF16.of(values).astype(np.float32).tolist() == [-BF16.largest, BF16.largest, -np.inf, np.inf, 1.0]
    assert FP16.of(values).astype(np.float32).tolist() == [-np.inf, np.inf, -np.inf, np.inf, 1.0]
    assert np.isnan(BF16.of(np.float32([np.nan, np.inf]))[0])
    assert [half.of(np.float32(7)).shape for half in HALF_TYPES] == [(), ()]
