"""model/segments.py: a graph in pieces computes what it computes in one piece."""

import time
import zlib

import numpy as np
import onnx
import pytest
from models import conv_net, model, node, random
from random_networks import random_network

from onnx2trt.base.memory import return_freed
from onnx2trt.base.under_way import UNDER_WAY
from onnx2trt.model.graph import Graph
from onnx2trt.model.segments import Segments, bounds_by_cost
from onnx2trt.model.session import Session


def cut_at_random(graph: Graph, seed: int) -> list[int]:
    random_state = np.random.default_rng(seed)
    places = [place for place in bounds_by_cost(graph, {}) if place < len(graph.nodes)]
    count = min(int(random_state.integers(1, 9)), len(places))
    return [*sorted(random_state.choice(places, count, replace=False).tolist()), len(graph.nodes)]


@pytest.mark.parametrize("seed", range(40))
def test_random_networks_cut_anywhere_compute_the_same(seed):
    network = random_network(8000 + seed)
    graph, feed = Graph.from_model(network.model), network.feed(1)
    made = [name for n in graph.nodes for name in n.output if name]
    wanted = [
        name
        for name in (*graph.input_names, *made)
        if seed % 3 == 0 or zlib.crc32(f"{seed} {name}".encode()) % 3 == 0 or name in graph.output_names
    ]
    segments = Segments(graph, cut_at_random(graph, seed), wanted)
    assert [n.name for piece in segments.graphs for n in piece.nodes] == [n.name for n in graph.nodes], "each node once, in order"
    seen = [(name, array) for found in segments.run(feed) for name, array in found.items()]
    assert [name for name, _ in seen] == wanted, "in order of execution, each once"
    inner = tuple(name for name in wanted if name in made)
    expected = {**feed, **Session.from_graph(graph, inner).run(feed, inner)}
    for name, array in seen:
        largest = max(np.abs(expected[name]).max(initial=0), 1)
        np.testing.assert_allclose(array, expected[name], rtol=1e-4, atol=1e-5 * largest, err_msg=name)


def test_nothing_is_computed_that_nobody_wants():
    graph = Graph.from_model(conv_net())
    segments = Segments(graph, [1, 2], ["c1"])
    assert [len(piece.nodes) for piece in segments.graphs] == [1, 0] and list(segments.graphs[0].output_names) == ["c1"]
    assert [list(found) for found in segments.run({"x": random(1, 3, 16, 16)})] == [["c1"], []]


def test_an_inference_in_pieces_is_seen_as_one():
    graph = Graph.from_model(conv_net())
    segments = Segments(graph, [2, len(graph.nodes)], [name for n in graph.nodes for name in n.output])
    seconds = []
    for _ in segments.run({"x": random(1, 3, 16, 16)}):
        time.sleep(0.01)
        seconds.append(UNDER_WAY.longest()[0])
    assert len(seconds) == 2 and seconds[1] > seconds[0] > 0.009 and UNDER_WAY.longest() == (0, "")


def test_inputs_alone_need_no_session():
    segments = Segments(Graph.from_model(conv_net()), [0], ["x"])
    feed = {"x": random(1, 3, 16, 16)}
    assert segments.sessions == [None] and [dict(found) for found in segments.run(feed)] == [feed]


def test_a_body_takes_what_it_captures_from_segments_before_it():
    def body(value: str) -> onnx.GraphProto:
        made = onnx.helper.make_node("Add", ["early", value], [f"{value}_out"], name=f"{value}_add")
        return onnx.helper.make_graph([made], value, [], [onnx.helper.make_tensor_value_info(f"{value}_out", 1, None)])

    nodes = [node("Neg", "x", "early"), node("Abs", "early", "a"), node("Exp", "a", "b")]
    nodes.append(onnx.helper.make_node("If", ["flag"], ["y"], name="branch", then_branch=body("a"), else_branch=body("b")))
    graph = Graph.from_model(model(nodes, {"x": [1, 4], "flag": (onnx.TensorProto.BOOL, [])}, {"y": None}))
    segments = Segments(graph, [1, 2, 3, 4], ["y"])
    for flag in (True, False):
        feed = {"x": random(1, 4), "flag": np.array(flag)}
        *_, found = segments.run(feed)
        np.testing.assert_allclose(found["y"], Session.from_graph(graph).run(feed)["y"], rtol=1e-6)


def test_no_cut_goes_through_a_sequence():
    nodes = [
        node("SequenceConstruct", "x x", "s"),
        node("Neg", "x", "n"),
        node("ConcatFromSequence", "s", "y", axis=0),
        node("Abs", "n", "z"),
    ]
    graph = Graph.from_model(model(nodes, {"x": [1, 4]}, {"y": None, "z": None}))
    cost = bounds_by_cost(graph, {"n": (1, 4)})
    assert {1, 2, 3, 4} - set(cost) == {1, 2} and cost[3] == 16


def anonymous_mb() -> float:
    return sum(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")) / 1024


def test_segments_hold_nothing_between_inferences():
    """Else all of them together hold what the whole graph would."""
    names = [f"t{index}" for index in range(17)]
    graph = Graph.from_model(model([node("Neg", *pair) for pair in zip(names, names[1:])], {"t0": [2**22]}, {"t16": [2**22]}))
    segments, feed = Segments(graph, range(1, 17), ["t16"]), {"t0": np.ones(2**22, np.float32)}
    before = anonymous_mb()
    for _ in range(2):
        for found in segments.run(feed):
            assert all((array == 1).all() for array in found.values())
    del found
    return_freed()  # the C library keeps what was freed, for whoever asks next
    assert anonymous_mb() - before < 100, "16 tensors of 16 MB"
