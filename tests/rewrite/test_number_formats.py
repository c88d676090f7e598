"""rewrite/number_formats.py: rounding to INT8 and to FP8, bit for bit as NumPy's type and ONNX Runtime do it."""

import ml_dtypes
import numpy as np
import pytest
from models import model, node

from onnx2trt.model.graph import Graph
from onnx2trt.model.session import Session
from onnx2trt.rewrite.number_formats import FORMATS, FP8, INT8

E4M3 = ml_dtypes.float8_e4m3fn
VALUES = np.arange(256, dtype=np.uint8).view(E4M3).astype(np.float32)  # all that there are, two of them NaN
FINITE = np.unique(VALUES[np.isfinite(VALUES)])


def hard_values(seed: int) -> np.ndarray:
    """Any bits, ordinary values, each value of FP8, what lies halfway between two of them, and the next float on both sides of that."""
    draw = np.random.default_rng(seed)
    bits = draw.integers(0, 2**32, 50_000, dtype=np.uint64).astype(np.uint32).view(np.float32)
    ordinary = draw.standard_normal(50_000) * 10 ** draw.uniform(-6, 3, 50_000)
    halfway = (FINITE[1:] + FINITE[:-1]) / 2
    around = [np.nextafter(halfway, np.float32(end)) for end in (-np.inf, np.inf)]
    ends = [0.0, -0.0, 448, 449, 463.99, 464, 464.01, 480, 1e6, np.inf, -np.inf, np.nan, 2.0**-9, 2.0**-10, -(2.0**-10), 2.0**-11]
    with np.errstate(invalid="ignore"):
        return np.concatenate([bits, ordinary, VALUES, halfway, *around, ends]).astype(np.float32)


def same(found: np.ndarray, expected: np.ndarray) -> bool:
    """In every bit but those of NaN."""
    both = np.isnan(found) & np.isnan(expected)
    return bool(((found == expected) & (np.signbit(found) == np.signbit(expected)) | both).all())


@pytest.mark.parametrize("seed", range(4))
def test_fp8_is_that_of_ml_dtypes_and_the_largest_beyond_it(seed):
    values = hard_values(seed)
    with np.errstate(invalid="ignore"):
        expected = np.clip(values, -448, 448).astype(E4M3).astype(np.float32)
        found = FP8.nearest(values)
        assert same(found, expected) and found.dtype == np.float32
        assert same(FP8.nearest(values.astype(np.float64)).astype(np.float32), expected)
    finite = found[np.isfinite(found)]
    assert np.isin(finite, FINITE).all() and same(FP8.stored(finite).astype(np.float32), finite)
    assert same(FP8.nearest(finite), finite), "what has been rounded stays"


def test_int8_rounds_ties_to_even_and_has_one_value_more_below_zero_where_a_quantizer_rounds():
    values = np.float32([0.5, 1.5, 2.5, -0.5, -1.5, 126.5, 127.4, 1e9, -127.6, -1e9])
    assert INT8.nearest(values).tolist() == [0, 2, 2, 0, -2, 126, 127, 127, -127, -127]
    assert INT8.nearest(values, symmetric=False).tolist() == [0, 2, 2, 0, -2, 126, 127, 127, -128, -128]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("scale", [1.0, 0.0137, 3e-5, 17.0])
def test_a_simulation_quantizes_as_the_fit_does(name, scale):
    number_format = FORMATS[name]
    nodes = [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "y")]
    weights = {"s": np.float32(scale), "z": np.zeros((), number_format.dtype)}
    session = Session.from_graph(Graph.from_model(model(nodes, {"x": ["n"]}, {"y": ["n"]}, weights, opset=19)))
    values = hard_values(7)
    values = values[np.isfinite(values) & (np.abs(values) < 1e4)]  # what ORT makes of infinity in INT8 is its own
    with np.errstate(invalid="ignore"):
        expected = number_format.nearest(values / np.float32(scale), symmetric=False) * np.float32(scale)
    found = session.run({"x": values})["y"]
    assert (found == expected).all()


def test_the_formats_say_what_their_types_hold():
    for number_format in FORMATS.values():
        assert number_format.available and number_format.dtype.itemsize == 1
        ends = np.float32([number_format.lowest, number_format.largest])
        assert (number_format.stored(ends).astype(np.float32) == ends).all()
    assert FP8.largest == float(ml_dtypes.finfo(E4M3).max)
