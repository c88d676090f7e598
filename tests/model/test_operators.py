"""model/operators.py, and what model/nodes.py knows of single nodes: traits that the values themselves must show."""

import numpy as np
import onnx
import pytest
from models import model, node, profiles, random

from onnx2trt.model.graph import Graph
from onnx2trt.model.maxima import absolute_maxima
from onnx2trt.model.nodes import is_bounded, is_no_larger
from onnx2trt.model.operators import BOUNDED, NO_LARGER, TABLE
from onnx2trt.model.session import Session

SHAPE = [2, 4, 6, 6]
FP16_MAX = 65504.0


def drawn(op: str, random_: np.random.Generator) -> tuple[str, dict, dict]:
    """(operands, attributes, weights) for the operator, at random; x is [2, 4, 6, 6]."""
    pads = [int(p) for p in random_.integers(0, 2, 4)]
    pool = {"kernel_shape": [2, 3], "pads": pads, "strides": [int(s) for s in random_.integers(1, 3, 2)]}
    ints = {name: np.array(value) for name, value in {"axes": [1], "shape": [2, -1], "index": [1, 0, 3], "repeats": [1, 2, 1, 1]}.items()}
    ints |= {"wide": np.array([2, 4, 6, 6]), "starts": np.array([1]), "ends": np.array([3]), "one": np.array([0])}
    ints |= {"places": random_.integers(0, 2, SHAPE), "pairs": random_.integers(0, 2, (3, 2))}
    axis = int(random_.integers(0, 4))
    of = {
        "AveragePool": ("x", {**pool, "count_include_pad": int(random_.integers(2)), "ceil_mode": int(random_.integers(2))}),
        "MaxPool": ("x", {**pool, "ceil_mode": int(random_.integers(2))}),
        "Concat": ("x x", {"axis": axis}),
        "DepthToSpace": ("x", {"blocksize": 2, "mode": str(random_.choice(["DCR", "CRD"]))}),
        "SpaceToDepth": ("x", {"blocksize": 2}),
        "Expand": ("x wide", {}),
        "Flatten": ("x", {"axis": axis}),
        "Gather": ("x index", {"axis": 1}),
        "GatherElements": ("x places", {"axis": axis}),
        "GatherND": ("x pairs", {}),
        "LeakyRelu": ("x", {"alpha": float(random_.choice([-3, -1.5, -1, -0.2, 0, 0.3, 1, 1.2, 4]))}),
        "ReduceMax": ("x", {"axes": [axis]}),
        "ReduceMin": ("x", {"axes": [axis]}),
        "Reshape": ("x shape", {}),
        "Slice": ("x starts ends axes", {}),
        "Split": ("x", {"axis": 1}),
        "Squeeze": ("u one", {}),
        "Unsqueeze": ("x one", {}),
        "Tile": ("x repeats", {}),
        "Softmax": ("x", {"axis": axis}),
        "HardSigmoid": ("x", {"alpha": float(random_.uniform(0, 3)), "beta": float(random_.uniform(-2, 2))}),
        "Clip": (("x low high", "x low", "x")[random_.integers(3)], {}),
    }
    operands, attributes = of.get(op, ("x", {}))
    low = np.float32(random_.choice([-1e30, -4, 0]))
    return operands, attributes, {**ints, "low": low, "high": np.float32(random_.choice([2, 1e5, 1e30]))}


def made_by(op: str, seed: int, scale: float) -> tuple[bool, bool, float, float]:
    """(said to be no larger, said to be bounded by FP16_MAX, largest input, largest output)."""
    random_ = np.random.default_rng(seed)
    operands, attributes, weights = drawn(op, random_)
    outputs = "y y2" if op == "Split" else "y"
    nodes = [node("Unsqueeze", "x one", "u")] if op == "Squeeze" else []
    graph = Graph.from_model(model([*nodes, node(op, operands, outputs, "it", **attributes)], {"x": SHAPE}, {"y": None}, weights, 13))
    it = next(n for n in graph.nodes if n.name == "it")
    feed = {"x": random(*SHAPE, seed=seed, scale=scale)}
    made = Session.from_graph(graph).run(feed)["y"]
    return is_no_larger(it, graph.weights), is_bounded(it, graph.weights, FP16_MAX), np.abs(feed["x"]).max(), np.abs(made).max(initial=0)


@pytest.mark.parametrize("op", sorted(NO_LARGER))
def test_what_is_said_to_make_nothing_larger_does_not(op):
    said = 0
    for seed in range(30):
        no_larger, _, given, made = made_by(op, seed, 3.0)
        said += no_larger
        assert made <= given * (1 + 1e-6) or not no_larger, (seed, given, made)
    assert said, "it never holds, so it is no trait of this operator"


@pytest.mark.parametrize("op", sorted(BOUNDED))
def test_what_is_said_to_be_bounded_is(op):
    said = 0
    for seed in range(30):
        _, bounded, _, made = made_by(op, seed, 1e20)
        said += bounded
        assert made <= FP16_MAX or not bounded, (seed, made)
    assert said


def test_a_slope_above_one_makes_values_larger():
    for alpha, expected in ((1.0, True), (-1.0, True), (1.001, False), (-1.5, False)):
        assert is_no_larger(node("LeakyRelu", "x", "y", alpha=alpha), {}) is expected
    assert is_no_larger(node("LeakyRelu", "x", "y"), {})


def test_dropout_in_training_makes_values_larger():
    it = node("Dropout", "x ratio training", "y")
    assert is_no_larger(node("Dropout", "x", "y"), {}) and is_no_larger(it, {"training": np.array(False)})
    assert not is_no_larger(it, {"training": np.array(True)}) and not is_no_larger(it, {})


def test_an_operator_of_another_domain_is_another_operator():
    it = node("Relu", "x", "y")
    it.domain = "com.example"
    assert not is_no_larger(it, {})


SLOPES = {
    "LeakyRelu": [node("LeakyRelu", "x", "a", alpha=300.0)],
    "PRelu": [node("PRelu", "x slope", "a")],
    "Elu": [node("Elu", "x", "a", alpha=1e5)],
    "Selu": [node("Selu", "x", "a", alpha=1e5)],
    "Celu": [node("Celu", "x", "a", alpha=1e5)],
    "ThresholdedRelu": [node("ThresholdedRelu", "x", "a", alpha=1.0)],
}


@pytest.mark.parametrize("op", SLOPES)
def test_the_measured_range_is_at_least_the_true_one(op):
    source = model(
        [*SLOPES[op], node("Mul", "a tiny", "y")], {"x": [1, 8]}, {"y": [1, 8]}, {"slope": np.float32([300.0]), "tiny": np.float32(1)}
    )
    graph = Graph.from_model(source)
    feed = {"x": np.linspace(-200, 200, 8, dtype=np.float32)[None]}
    maxima = absolute_maxima(graph, profiles(x=(1, 8)), lambda: [feed])
    assert maxima["a"] >= np.abs(Session.from_graph(graph, ("a",)).run(feed)["a"]).max()


def test_the_table_speaks_of_operators():
    known = {schema.name for schema in onnx.defs.get_all_schemas()}
    others = {"DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "QGemm"}  # of ONNX Runtime
    assert set(TABLE) - others <= known | {"Swish", "Gelu", "Upsample"}
