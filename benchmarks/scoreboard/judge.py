"""Whether what was built computes what the model computes: against the shipped outputs, or against ONNX Runtime where none were shipped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from .case import Case

# Relative to the largest finite value that is expected; the tests' own tolerance in FP32 is 1e-3 of each value
TOLERANCE = {"fp32": 1e-3, "fp16": 2e-2, "int8": 0.5}
OF_TYPE = {"bfloat16": 2.0**-6, "float16": 2.0**-9}  # what outputs of these types cannot say more exactly, two units in the last place
LARGEST = 65504.0  # of FP16


def judge(case: Case, precision: str, prepared: Path, engine: Path) -> dict:
    """Run the engine where a GPU is, else what it was built from.

    Returns:
        right: True, False, or None where nothing tells; why, in words, unless it is True; ran: gpu, simulated or reference.
    """
    expected = case.expected()
    feed = case.feed()
    if not expected or any(array is None for array in expected):
        return {"right": None, "why": "no outputs were shipped that are tensors"}
    found, ran = _outputs(prepared, engine, feed)
    if found is None:
        return {"right": None, "why": ran}
    wrong = difference(expected, found, precision)
    if not wrong:
        return {"right": True, "ran": ran}
    own = _original(case, feed)
    if own is None:
        return {"right": None, "why": f"the model itself cannot be run here ({wrong})", "ran": ran}
    if difference(expected, own, precision):  # random numbers, undefined values, or a defect of ONNX Runtime
        same = difference(own, found, precision)
        return {"right": True if not same else None, "why": f"the model itself gives others: {wrong}", "ran": ran}
    return {"right": False, "why": wrong, "ran": ran}


def _outputs(prepared: Path, engine: Path, feed: dict) -> tuple[list[np.ndarray] | None, str]:
    """(outputs, how they were made), or (None, why there are none)."""
    from onnx2trt.base.driver import probe_driver

    if probe_driver().gpu:
        return _executed(engine, feed, onnx.load(prepared)), "gpu"
    from onnx2trt.model.graph import Graph
    from onnx2trt.model.session import Session
    from onnx2trt.rewrite.simulate import simulation

    model = onnx.load(prepared)
    try:
        session = Session.from_graph(simulation(Graph.from_model(model)))
        return _of_model(session.run(_typed(model, feed)), model), "simulated"
    except Exception as error:
        try:
            return _by_reference(model, _typed(model, feed)), "reference"
        except Exception as second:
            return None, f"{_line(error)}; reference: {_line(second)}"


def _original(case: Case, feed: dict) -> list[np.ndarray] | None:
    from onnx2trt.model.session import Session

    model = onnx.load(case.path)
    try:
        return _of_model(Session.from_path(str(case.path)).run(feed), model)
    except Exception:
        try:
            return _by_reference(model, feed)
        except Exception:
            return None


def _executed(engine: Path, feed: dict, model: onnx.ModelProto) -> list[np.ndarray]:
    from onnx2trt.trt.engine import Engine
    from onnx2trt.trt.library import load_library
    from onnx2trt.trt.memory import open_cuda

    cuda = open_cuda()
    loaded = Engine(load_library("auto"), engine.read_bytes(), cuda, lambda *_: None)
    return _of_model(loaded.run({tensor.name: feed[tensor.name] for tensor in loaded.tensors if tensor.is_input}), model)


def _by_reference(model: onnx.ModelProto, feed: dict) -> list[np.ndarray]:
    from onnx.reference import ReferenceEvaluator

    with np.errstate(all="ignore"):
        return [np.asarray(value) for value in ReferenceEvaluator(model).run(None, feed)]


def _of_model(found: dict[str, np.ndarray], model: onnx.ModelProto) -> list[np.ndarray]:
    return [np.asarray(found[value.name]) for value in model.graph.output]


def _typed(model: onnx.ModelProto, feed: dict) -> dict[str, np.ndarray]:
    """The arrays that the prepared model reads, in its types."""
    types = {value.name: onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type) for value in model.graph.input}
    return {name: array.astype(types[name], copy=False) for name, array in feed.items() if name in types}


def difference(expected: list[np.ndarray], found: list[np.ndarray], precision: str) -> str:
    """What differs by more than the precision explains, in words; empty where nothing does."""
    if len(expected) != len(found):
        return f"{len(found)} outputs instead of {len(expected)}"
    for index, (wanted, got) in enumerate(zip(expected, found)):
        if wanted.shape != got.shape:
            return f"output {index} is {list(got.shape)} instead of {list(wanted.shape)}"
        if wanted.dtype.kind == "O" or got.dtype.kind == "O":
            return "" if np.array_equal(wanted, got) else f"output {index} holds other strings"
        exact, limit = wanted.dtype.kind in "iub", max(TOLERANCE[precision], OF_TYPE.get(wanted.dtype.name, 0.0))
        text = _values(wanted.astype(np.float64), got.astype(np.float64), 0.0 if exact else limit, precision)
        if text:
            return f"output {index}: {text}"
    return ""


def _values(wanted: np.ndarray, got: np.ndarray, limit: float, precision: str) -> str:
    """
    Args:
        limit: relative to the largest value that is expected; 0 where all have to be equal.
    """
    bound = LARGEST if precision == "fp16" else np.inf
    with np.errstate(all="ignore"):
        unlike = np.isnan(wanted) != np.isnan(got)
        infinite = np.isinf(wanted) & ~(np.sign(wanted) * got >= bound)
        finite = np.isfinite(wanted)
        largest = float(np.abs(wanted[finite]).max(initial=0.0))
        least = TOLERANCE["fp32"] if limit > TOLERANCE["fp32"] else 1e-7  # of outputs that are near zero
        off = finite & ~(np.abs(got - wanted) <= (limit * largest + least if limit else 0.0))
    wrong = np.flatnonzero((unlike | infinite | off).ravel())
    if not wrong.size:
        return ""
    first = f"{got.ravel()[wrong[0]]:.6g} instead of {wanted.ravel()[wrong[0]]:.6g}"
    return f"{wrong.size} of {wanted.size} values, {first}"


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0][:200]}" if str(error) else type(error).__name__
