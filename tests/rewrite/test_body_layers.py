"""rewrite/body_layers.py, inner_work.py, shares.py: layers in bodies of control flow in INT8, by what is observed while they run."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx2trt.base.model_info import Profile
from onnx2trt.model.graph import Graph
from onnx2trt.model.nodes import all_nodes
from onnx2trt.model.observe import observe
from onnx2trt.model.session import Session
from onnx2trt.rewrite.body_layers import body_layers, exposing
from onnx2trt.rewrite.fit import Fit
from onnx2trt.rewrite.qdq import int8_layers, scales_by_range
from onnx2trt.rewrite.shares import half_mac_share, mac_shares, macs_of
from onnx2trt.rewrite.simulate import simulation
from onnx2trt.rewrite.strong_typing import between_scales, strongly_typed

WIDTH, STEPS = 8, 5
FLOAT = TensorProto.FLOAT
KINDS = ("If", "Loop", "Scan", "If in Loop", "Loop in Loop", "Scan in If")


def value(name, *shape, elem_type=FLOAT):
    return helper.make_tensor_value_info(name, elem_type, shape or ([] if elem_type != FLOAT else None))


def product(source, target, name, seed=0):
    """(nodes, weights) of a matrix product with a Tanh behind it."""
    weight = np.random.default_rng(seed).normal(size=(WIDTH, WIDTH)).astype(np.float32) / 4
    nodes = [
        helper.make_node("MatMul", [source, f"{name}_w"], [f"{name}_m"], name=name),
        helper.make_node("Tanh", [f"{name}_m"], [target], name=f"{name}_tanh"),
    ]
    return nodes, [numpy_helper.from_array(weight, f"{name}_w")]


def branches(source, target, tag=""):
    """An If on the sign of the sum of `source`, with a product in each branch."""
    bodies = {}
    for seed, name in enumerate(("then", "else")):
        nodes, weights = product(source, f"{tag}{name}_out", f"{tag}{name}", seed)
        bodies[f"{name}_branch"] = helper.make_graph(nodes, name, [], [value(f"{tag}{name}_out")], weights)
    return [
        helper.make_node("ReduceSum", [source], [f"{tag}sum"], name=f"{tag}sum", keepdims=0),
        helper.make_node("Greater", [f"{tag}sum", "zero"], [f"{tag}positive"], name=f"{tag}positive"),
        helper.make_node("If", [f"{tag}positive"], [target], name=f"{tag}if", **bodies),
    ]


def loop(nodes, weights, source, target, tag=""):
    """Five steps of these nodes, from `<tag>state` to `<tag>next`."""
    ends = [helper.make_node("Identity", [f"{tag}go"], [f"{tag}on"], name=f"{tag}on")]
    inputs = [value(f"{tag}step", elem_type=TensorProto.INT64), value(f"{tag}go", elem_type=TensorProto.BOOL), value(f"{tag}state")]
    results = [value(f"{tag}on", elem_type=TensorProto.BOOL), value(f"{tag}next")]
    body = helper.make_graph([*nodes, *ends], f"{tag}body", inputs, results, weights)
    return helper.make_node("Loop", ["steps", "yes", source], [target], name=f"{tag}loop", body=body)


def scan(source, target):
    nodes, weights = product("added", "next", "in_scan")
    add, copy = (
        helper.make_node("Add", ["state", "row"], ["added"], name="add"),
        helper.make_node("Identity", ["next"], ["row_out"], name="copy"),
    )
    body = helper.make_graph([add, *nodes, copy], "body", [value("state"), value("row")], [value("next"), value("row_out")], weights)
    return helper.make_node("Scan", ["zeros", source], ["last", target], name="scan", body=body, num_scan_inputs=1)


def graph_of(kind):
    if kind == "If":
        nodes = branches("x", "y")
    elif kind == "Loop":
        nodes = [loop(*product("state", "next", "in_loop"), "x", "y")]
    elif kind == "If in Loop":
        nodes = [loop(branches("state", "next"), [], "x", "y")]
    elif kind == "Loop in Loop":
        nodes = [loop([loop(*product("b_state", "b_next", "in_loop"), "a_state", "a_next", "b_")], [], "x", "y", "a_")]
    elif kind == "Scan":
        nodes = [scan("x", "y")]
    else:
        copy = helper.make_node("Identity", ["x"], ["copied"], name="identity")
        bodies = {
            "then_branch": helper.make_graph([scan("x", "scanned")], "then", [], [value("scanned")]),
            "else_branch": helper.make_graph([copy], "else", [], [value("copied")]),
        }
        nodes = [*branches("x", "ignored")[:2], helper.make_node("If", ["positive"], ["y"], name="if", **bodies)]
    constants = {"zero": np.float32(0), "steps": np.int64(STEPS), "yes": np.array(True), "zeros": np.zeros(WIDTH, np.float32)}
    weights = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    proto = helper.make_graph(nodes, "graph", [value("x", 4, WIDTH)], [value("y", 4, WIDTH)], weights)
    return Graph.from_model(helper.make_model(proto, opset_imports=[helper.make_opsetid("", 19)], ir_version=9))


def feeds():
    random = np.random.default_rng(1)
    return [{"x": (random.normal(size=(4, WIDTH)) + shift).astype(np.float32)} for shift in (1.0, -1.0, 0.5)]


PROFILES = (Profile("x", *[(4, WIDTH)] * 3),)


def seen(graph, layers):
    found = {}
    observe(
        exposing(graph, layers),
        PROFILES,
        {layer.activation for layer in layers},
        feeds,
        lambda name, array: found.setdefault(name, []).append(array.copy()),
    )
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_int8_computes_what_the_bodies_did(kind):
    graph = graph_of(kind)
    layers = body_layers(graph)
    reached = {
        name: max((np.abs(array).max() for array in arrays if array.size), default=0.0) for name, arrays in seen(graph, layers).items()
    }
    fit = Fit(scales_by_range(reached), fp16_scales=True)
    assert all(fit.has_scales(layer) for layer in layers)
    quantized = fit.apply(graph, layers)
    assert int8_layers(quantized) == {layer.node for layer in layers} == set(macs_of(graph, PROFILES))
    assert mac_shares(quantized, PROFILES) == {"int8": 1.0} and mac_shares(graph, PROFILES) == {"int8": 0.0}
    exact, rounded = Session.from_graph(graph), Session.from_graph(simulation(strongly_typed(quantized, {}, True)))
    for feed in feeds():
        expected, found = (session.run(feed)["y"] for session in (exact, rounded))
        assert 0 < np.abs(found - expected).max() < 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_fp16_in_bodies_counts(kind):
    assert half_mac_share(strongly_typed(graph_of(kind), {}, False), PROFILES) == 1.0
    outer = {node.name: "by the user" for node in graph_of(kind).nodes}
    assert half_mac_share(strongly_typed(graph_of(kind), outer, False), PROFILES) == 0.0


def test_all_steps_are_seen_and_only_branches_that_run():
    graph = graph_of("If in Loop")
    layers = {layer.node: layer.activation for layer in body_layers(graph)}
    found = seen(graph, body_layers(graph))
    sizes = [sum(found[layers[name]][number].size for name in layers) for number in range(len(feeds()))]
    assert sizes == [STEPS * 4 * WIDTH] * len(feeds())
    feed = feeds()[0]["x"]
    np.testing.assert_array_equal(found[layers["then"]][0][: feed.size].reshape(feed.shape), feed)  # the sum is positive in the first step


def test_steps_count():
    product_of_all = 4 * WIDTH * WIDTH
    assert macs_of(graph_of("Loop"), PROFILES) == {"in_loop": STEPS * product_of_all}
    assert macs_of(graph_of("Loop in Loop"), PROFILES) == {"in_loop": STEPS * STEPS * product_of_all}
    assert macs_of(graph_of("If"), PROFILES) == {"then": product_of_all, "else": product_of_all}
    assert macs_of(graph_of("Scan"), PROFILES) == {"in_scan": product_of_all}  # four steps of one row


def test_layers_of_one_body_share_what_they_read():
    nodes, weights = product("state", "other", "first")
    more, others = product("state", "next", "second", 1)
    graph = graph_of("Loop")
    shared = [loop([*nodes, *more], [*weights, *others], "x", "y")]
    graph.replace_nodes(shared)
    first, second = body_layers(graph)
    assert (first.activation, first.outer) == (second.activation, "loop") and first.node != second.node
    quantized = Fit({first.activation: 0.01}).apply(graph, (first, second))
    assert sum(node.op_type == "QuantizeLinear" for node in all_nodes(quantized.proto.graph)) == 1
    assert {"first", "second"} <= between_scales(quantized)  # with FP32 scales, layers in bodies stay between them, too
    names = [node.name for node in all_nodes(quantized.proto.graph)]
    assert len(set(names)) == len(names)
    onnx.checker.check_model(quantized.to_model(), full_check=True)


def test_what_has_no_scale_stays():
    graph = graph_of("If")
    other, then = sorted(body_layers(graph), key=lambda layer: layer.node)
    assert int8_layers(Fit({then.activation: 0.01}).apply(graph, (then, other))) == {"then"}


def test_bodies_inside_a_scan_are_left():
    graph = graph_of("Scan")
    add = helper.make_node("Identity", ["row"], ["sum"], name="add")
    nodes = branches("state", "next")
    copy = helper.make_node("Identity", ["next"], ["row_out"], name="copy")
    body = helper.make_graph([add, *nodes, copy], "body", [value("state"), value("row")], [value("next"), value("row_out")])
    graph.replace_nodes([helper.make_node("Scan", ["zeros", "x"], ["last", "y"], name="scan", body=body, num_scan_inputs=1)])
    assert body_layers(graph) == ()
