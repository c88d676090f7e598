"""quant/candidates.py: calibration methods, equalized channels and fitted weights, judged by what they make of the outputs."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from models import conv_net, model, node, profiles, random

from onnx2trt.model.graph import Graph
from onnx2trt.model.session import Session
from onnx2trt.quant.candidates import ALIKE_DB, CHANGED_MORE, LIMIT_DB, LOST_DB, Bench, Outcome, best_of, sqnr_db
from onnx2trt.quant.histograms import METHODS, Collector
from onnx2trt.rewrite.fold import raise_opset
from onnx2trt.rewrite.qdq import quantizable_layers


def outcome(method, change, **outputs):
    return Outcome(method, change, outputs)


# ---- which of them


def test_the_one_that_changes_least_is_best():
    assert best_of([outcome("a", 0.02, y=30.0), outcome("b", 0.01, y=30.5), outcome("c", 0.01, y=30.5)]).method == "b", (
        "the first of equals"
    )


def test_one_that_cuts_off_a_few_values_is_not_best_whatever_it_does_to_most():
    cut, whole = outcome("entropy", 0.01, y=20.0), outcome("minmax", 0.02, y=20.0 + 1.01 * ALIKE_DB)
    assert best_of([cut, whole]) is whole
    assert best_of([cut, outcome("minmax", 0.02, y=20.0 + 0.99 * ALIKE_DB)]) is cut, "told apart by noise alone"


def test_every_output_counts():
    one, other = outcome("a", 0.01, y=40.0, z=20.0), outcome("b", 0.02, y=35.0, z=30.0)
    assert best_of([one, other]) is other, "5 dB behind in one output instead of 10 in the other"


def test_outputs_that_are_as_good_as_identical_are_not_told_apart():
    found = sqnr_db([{"y": np.ones(4)}], [{"y": np.ones(4) * (1 + 1e-7)}])
    assert found == {"y": LIMIT_DB} == sqnr_db([{"y": np.ones(4)}], [{"y": np.ones(4)}])


# ---- whether it pays


@pytest.mark.parametrize(
    "change, y, z, said",
    [
        (0.02, 30.0, 40.0, ""),
        (0.02, 30.0 - 0.9 * LOST_DB, 60.0, ""),
        (0.02, 30.0 - 1.1 * LOST_DB, 60.0, "0.6 dB further from the model in output 'y'"),
        (0.001, 60.0, 20.0, "20.0 dB further from the model in output 'z'"),
        (0.0199 * CHANGED_MORE, 30.0, 40.0, ""),
        (0.0201 * CHANGED_MORE, 60.0, 60.0, "change the outputs by 2.05% instead of 2.00%"),
    ],
)
def test_what_is_worse_is_said(change, y, z, said):
    found = outcome("mse", change, y=y, z=z).worse_than(outcome("mse", 0.02, y=30.0, z=40.0))
    assert said in found and bool(found) == bool(said)


def test_signal_to_noise_is_that_of_all_samples_together():
    expected, found = [{"y": np.array([3.0, 4.0])}, {"y": np.array([0.0, 0.0])}], [{"y": np.array([3.0, 4.5])}, {"y": np.array([0.0, 0.0])}]
    assert sqnr_db(expected, found)["y"] == pytest.approx(20.0)
    assert sqnr_db([{"y": np.array([7, 1])}], [{"y": np.array([7, 2])}])["y"] == pytest.approx(10 * math.log10(50)), "integers, too"


@pytest.mark.parametrize(
    "reference, output, expected",
    [
        ([1.0, math.inf], [1.0, 5.0], LIMIT_DB),
        ([1.0, 1.0], [1.0, math.nan], -LIMIT_DB),
        ([1.0, 1.0], [1.0], -LIMIT_DB),
        ([0.0, 0.0], [0.0, 0.1], -LIMIT_DB),
        ([0.0, 0.0], [0.0, 0.0], LIMIT_DB),
    ],
)
def test_values_that_have_no_ratio(reference, output, expected):
    assert sqnr_db([{"y": np.array(reference)}], [{"y": np.array(output)}]) == {"y": expected}


# ---- on a bench


def bench(graph=None, methods=METHODS, feeds=None):
    graph = raise_opset(Graph.from_model(conv_net()), 19) if graph is None else graph
    feeds = feeds or [{"x": np.abs(random(1, 3, 16, 16, seed=seed))} for seed in range(6)]
    console = SimpleNamespace(track=lambda found, *_: found, debug=lambda _: None)
    shape = profiles(**{name: array.shape for name, array in feeds[0].items()})
    return Bench(graph, shape, quantizable_layers(graph), methods, lambda: (feeds[::2], feeds[1::2]), False, console)


class Fixed:
    """A collector that has its scales already."""

    def __init__(self, **found):
        self._found = found

    def scales(self, method):
        return self._found[method]


def test_the_scales_that_change_least_are_chosen():
    found = {"mse": dict.fromkeys(("x", "r1", "r2"), 0.5), "minmax": dict.fromkeys(("x", "r1", "r2"), 0.03)}
    ours = bench(methods=("mse", "minmax"))
    best = ours.try_methods(ours.graph, Fixed(**found), with_weights=False)
    coarse = bench(methods=("mse",)).try_methods(ours.graph, Fixed(**found), with_weights=False)
    assert best.method == "minmax" and coarse.change > 3 * best.change and coarse.sqnr_db["y"] < best.sqnr_db["y"] - 10


def test_scales_that_make_nan_are_not_chosen():
    """x / x: what is rounded to 0 makes NaN."""
    nodes = [node("MatMul", "x w", "m", "product"), node("Div", "m m", "y")]
    graph = Graph.from_model(model(nodes, {"x": [1, 4]}, {"y": [1, 4]}, {"w": np.eye(4, dtype=np.float32)}, opset=19))
    ours = bench(graph, ("mse", "minmax"), [{"x": np.ones((1, 4), np.float32)}] * 2)
    assert ours.try_methods(graph, Fixed(mse={"x": 100.0}, minmax={"x": 0.01}), with_weights=False).method == "minmax"
    only = bench(graph, ("mse",), [{"x": np.ones((1, 4), np.float32)}] * 2)
    bad = only.try_methods(graph, Fixed(mse={"x": 100.0}), with_weights=False)
    assert bad.change == math.inf and bad.sqnr_db == {"y": -LIMIT_DB}


def test_fitted_weights_are_tried_on_samples_that_they_were_not_fitted_to():
    ours, collector = bench(methods=("minmax",)), Collector()
    for name in ("x", "r1", "r2"):
        collector.visit(name, np.full(9, 3.0, np.float32))
    nearest, fitted = (ours.try_methods(ours.graph, collector, with_weights) for with_weights in (False, True))
    assert nearest.method == fitted.method == "minmax" and fitted.sqnr_db != nearest.sqnr_db


def test_what_is_plain_is_found_by_the_samples_to_fit_to():
    ours = bench(methods=("minmax",))
    seen = Collector()
    session = Session.from_graph(ours.graph, ("r1", "r2"))
    for feed in ours.samples()[0]:
        for name, array in {**feed, **session.run(feed, ("r1", "r2"))}.items():
            seen.visit(name, array)
    assert ours.plain == ours.try_methods(ours.graph, seen, with_weights=False) and ours.plain is ours.plain
