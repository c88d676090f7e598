"""model/session.py: which model is computed; several inferences at once give what one after the other gives, in order."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import save
from models import conv_net, model, node, random
from onnx import TensorProto

from onnx2trt.base.errors import ConversionError
from onnx2trt.base.under_way import UNDER_WAY
from onnx2trt.model import session as reference
from onnx2trt.model.graph import Graph
from onnx2trt.model.preflight import preflight
from onnx2trt.model.session import AT_ONCE, Session


def test_inferences_at_once_come_in_order_and_are_the_same(monkeypatch):
    monkeypatch.setattr(reference, "usable_cores", lambda: 4)
    graph = Graph.from_model(conv_net())
    feeds = [{"x": random(1, 3, 16, 16, seed=number)} for number in range(9)]
    one, several = Session.from_graph(graph), Session.from_graph(graph, in_turn=False)
    assert one.at_once == 1 and several.at_once == AT_ONCE
    expected, found = list(one.run_each(iter(feeds))), list(several.run_each(iter(feeds)))
    assert len(found) == 9
    for right, other in zip(expected, found):
        np.testing.assert_allclose(other["y"], right["y"], rtol=1e-5, atol=1e-6)


def test_an_error_of_one_inference_is_raised():
    session = Session.from_graph(Graph.from_model(conv_net()), in_turn=False)
    with pytest.raises(ConversionError, match="cannot run the model on x float32"):
        list(session.run_each([{"x": random(1, 3, 16, 16)}, {"x": random(1, 5, 16, 16)}]))


def test_an_inference_is_seen_while_it_runs():
    seen, value = [], SimpleNamespace(name="x", type="tensor(float)")
    loaded = SimpleNamespace(
        get_inputs=lambda: [value],
        get_outputs=lambda: [value],
        run=lambda names, feed: seen.append(UNDER_WAY.longest()[1]) or [feed["x"]],
    )
    Session(loaded, []).run({"x": random(1)})
    assert seen == ["one inference"] and UNDER_WAY.longest() == (0, "")


def test_one_core_runs_one_after_the_other(monkeypatch):
    monkeypatch.setattr(reference, "usable_cores", lambda: 1)
    assert Session.from_graph(Graph.from_model(conv_net()), in_turn=False).at_once == 1


def full(*_):
    raise OSError("no space left on device")


@pytest.mark.parametrize("room", [True, False], ids=["by a file", "no room for it"])
def test_a_graph_of_its_own_computes_the_same_and_is_let_go(room, monkeypatch):
    monkeypatch.setattr(reference, "LARGE", 0)
    if not room:
        monkeypatch.setattr(Graph, "save_apart", full)
    feed = {"x": random(1, 3, 16, 16)}
    graph = Graph.from_model(conv_net())
    expected = Session.from_graph(graph).run(feed)
    own = graph.copy()
    found = Session.from_own_graph(own).run(feed)
    assert all(np.array_equal(expected[name], found[name]) for name in expected) and bool(own.weights) != room


# ---- the model that others are compared with


def of_model(tmp_path, source, adopted):
    """The session of a file that was rewritten on reading."""
    _, info = preflight(save(source, tmp_path / "m.onnx"))
    return Session.of_model(replace(info, adopted=True), lambda: Graph.from_model(adopted))


def test_the_file_is_computed_though_it_was_rewritten(tmp_path):
    source = model([node("Mul", "x two", "y")], {"x": [4]}, {"y": [4]}, {"two": np.float32(2)})
    other = model([node("Mul", "x two", "y")], {"x": [4]}, {"y": [4]}, {"two": np.float32(3)})
    assert (of_model(tmp_path, source, other).run({"x": np.ones(4, np.float32)})["y"] == 2).all()


@pytest.mark.parametrize("kind", ["equal names", "BF16", "other outputs"])
def test_what_was_rewritten_is_computed_where_the_file_cannot_be(tmp_path, kind):
    elem_type = TensorProto.BFLOAT16 if kind == "BF16" else TensorProto.FLOAT
    names = ("same", "same") if kind == "equal names" else ("a", "b")
    outputs = {"y": (elem_type, [4])} | ({"x": [4]} if kind == "other outputs" else {})
    source = model([node("Identity", "x", "t", names[0]), node("Identity", "t", "y", names[1])], {"x": (elem_type, [4])}, outputs)
    adopted = model([node("Add", "x x", "y")], {"x": [4]}, {"y": [4]})
    _, info = preflight(save(source, tmp_path / "m.onnx"))
    info = replace(info, adopted=True, outputs=info.outputs[:1])
    assert (Session.of_model(info, lambda: Graph.from_model(adopted)).run({"x": np.ones(4, np.float32)})["y"] == 2).all()


def test_fp64_inputs_take_fp32(tmp_path):
    source = model([node("Add", "x x", "y")], {"x": (TensorProto.DOUBLE, [4])}, {"y": (TensorProto.DOUBLE, [4])})
    found = of_model(tmp_path, source, source).run({"x": np.ones(4, np.float32)})["y"]
    assert found.dtype == np.float64 and (found == 2).all()


@pytest.mark.parametrize("name", ["file", "graph"])
def test_quantized_operators_are_summed_without_saturation(tmp_path, name):
    """x86 CPUs without VNNI add pairs of products in 16 bits, where 255 * 127 * 2 has no room; on others this cannot fail."""
    scales = {"one": np.float32(1), "zero": np.uint8(0), "wzero": np.int8(0), "out": np.float32(1000)}
    weights = {"w": np.full((2, 4, 1, 1), 127, np.int8), **scales}
    ends = {"x": (TensorProto.UINT8, [1, 4, 3, 3])}, {"y": (TensorProto.UINT8, [1, 2, 3, 3])}
    proto = model([node("QLinearConv", "x one zero w one wzero out zero", "y")], *ends, weights)
    session = Session.from_path(save(proto, tmp_path / "m.onnx")) if name == "file" else Session.from_graph(Graph.from_model(proto))
    assert np.array_equal(session.run({"x": np.full((1, 4, 3, 3), 255, np.uint8)})["y"], np.full((1, 2, 3, 3), round(4 * 255 * 127 / 1000)))
