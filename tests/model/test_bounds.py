"""model/bounds.py: the intervals hold what ONNX Runtime computes."""

import math

import numpy as np
import onnx
import pytest
from guarded_nets import SHAPE, GuardedNet, inputs
from models import FLOAT, model, node

from onnx2trt.model.bounds import RULES, UNKNOWN, bounds
from onnx2trt.model.graph import Graph
from onnx2trt.model.session import Session

ONE = "Abs Clip Erf Exp HardSigmoid Log Neg Reciprocal Relu Sigmoid Softmax Softplus Sqrt Tanh ReduceL1 ReduceL2 ReduceMean ReduceMax "
ONE += "ReduceMin ReduceLogSumExp ReduceSumSquare Identity Transpose GlobalAveragePool GlobalMaxPool Flatten"
TWO = "Add Sub Mul Div Max Min Mean Sum MatMul Concat Pow"


def interval(nodes, weights=None) -> tuple[float, float]:
    graph = Graph.from_model(model(nodes, {"x": [2, 3, 4, 4]}, {"y": None}, weights))
    return bounds(graph, graph.types()).get("y", UNKNOWN)


@pytest.mark.parametrize("seed", range(300))
def test_values_lie_in_their_intervals(seed):
    """Random operators over inputs that are clipped to random intervals, some of one sign; in FP32, up to its rounding."""
    random = np.random.default_rng(seed)
    weights, nodes = {}, []
    for name in ("a", "b"):
        low, high = np.sort(random.choice([-3, -1, -0.5, 0, 0.25, 1, 2, 4], 2, replace=False)).astype(np.float32)
        weights |= {f"{name}_low": low, f"{name}_high": high}
        nodes.append(node("Clip", f"{'x' if name == 'a' else 'z'} {name}_low {name}_high", name))
    values = ["a", "b"]
    for index in range(random.integers(1, 4)):
        if random.random() < 0.5:
            op, operands = random.choice(ONE.split()), [random.choice(values)]
        else:
            op, operands = random.choice(TWO.split()), list(random.choice(values, 2))
        attributes = {"Concat": {"axis": 1}, "Softmax": {"axis": 1}, "Transpose": {"perm": [0, 1, 3, 2]}}.get(op, {})
        nodes.append(node(op, " ".join(operands), f"t{index}", **attributes))
        if op in ("Flatten", "Concat", "MatMul") or op.startswith(("Reduce", "Global")):  # of another shape: looked at, not read again
            continue
        values.append(f"t{index}")
    outputs = [n.output[0] for n in nodes]
    shape = [2, 3, 4, 4]
    graph = Graph.from_model(model(nodes, {"x": shape, "z": shape}, dict.fromkeys(outputs), weights, 13))
    found = bounds(graph, graph.types())
    session = Session.from_graph(graph)
    for _ in range(3):
        feed = {name: (random.standard_normal(shape) * 5).astype(np.float32) for name in ("x", "z")}
        for name, array in session.run(feed).items():
            low, high = found.get(name, UNKNOWN)
            made = array[np.isfinite(array)].astype(np.float64)
            slack = 1e-5 * np.abs(made) + 1e-6
            assert (made >= low - slack).all() and (made <= high + slack).all(), (name, [n.op_type for n in nodes], low, high)


def test_a_small_constant_beside_something_says_that_it_is_not_negative():
    eps = {"eps": np.float32(1e-12)}
    assert interval([node("Add", "x eps", "y")], eps) == (pytest.approx(1e-12), math.inf)
    assert interval([node("Sub", "x eps", "y")], eps) == (-math.inf, pytest.approx(-1e-12))
    assert interval([node("Add", "x eps", "y")], {"eps": np.float32(3)}) == UNKNOWN


def test_in_fp16_the_ends_are_rounded_where_a_node_computes_in_it():
    nodes = [node("Relu", "x", "r", "relu"), node("Add", "r eps", "s", "add"), node("Sqrt", "s", "y", "root")]
    graph = Graph.from_model(model(nodes, {"x": [4]}, {"y": [4]}, {"eps": np.float32(1e-10)}))
    types = graph.types()
    assert types["s"] == FLOAT
    assert bounds(graph, types)["y"][0] == pytest.approx(1e-5, rel=1e-6)
    assert bounds(graph, types, set())["y"][0] == 0
    assert bounds(graph, types, {"add"})["s"][0] == np.float32(1e-10)
    assert bounds(graph, types, {"add"})["y"][0] == 0, "the root reads it in FP16"
    assert bounds(graph, types, {"add", "root"})["y"][0] == pytest.approx(1e-5, rel=1e-6)


def test_the_intervals_of_random_networks_hold():
    """With the assumptions about small constants, which these networks fulfil by construction."""
    told = 0
    for seed in range(60):
        graph = Graph.from_model(GuardedNet(seed).build())
        found = bounds(graph, graph.types())
        names = tuple(name for name in graph.float_tensors() if name in found and name != "y")
        if not names:
            continue
        session = Session.from_graph(graph, names)
        for x in inputs(seed).values():
            assert x.shape == SHAPE
            for name, array in session.run({"x": x}, names).items():
                low, high = found[name]
                made = array[np.isfinite(array)].astype(np.float64)
                slack = 1e-4 * np.abs(made) + 1e-37
                assert (made >= low - slack).all() and (made <= high + slack).all(), (seed, name)
                told += 1
    assert told > 500


def test_every_rule_is_of_an_operator_that_onnx_has():
    assert all(onnx.defs.has(op) for op in RULES)
