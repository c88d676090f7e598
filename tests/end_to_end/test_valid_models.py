"""Random valid models of opset 7 to 22 through the pipeline; a long run is `python -m tests.fuzz.valid --count 1000`."""

import numpy as np
import onnx
import pytest

from onnx2trt.model.graph import Graph
from onnx2trt.model.session import Session
from tests.fuzz import valid
from tests.fuzz.valid_models import BODIES, OPSETS, random_model

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")


def test_they_are_of_all_opsets_and_kinds_and_run():
    opsets, kinds = set(), set()
    for seed in range(120):
        found = random_model(seed)
        opsets.add(found.model.opset_import[0].version)
        kinds.update(found.kinds)
        if seed % 10 == 0:
            outputs = Session.from_graph(Graph.from_model(found.model)).run(found.feed(0))
            assert all(np.isfinite(values).all() for values in outputs.values()), seed
    assert opsets == set(OPSETS)
    assert {"shared weight", "weight as output", "weights as inputs", "If", "Loop", "attention", "Q/DQ", "padding SAME_LOWER"} <= kinds
    assert {"padding uneven", "Pad reflect", "embedding", "ArgMax"} <= kinds and any(kind.startswith("LSTM") for kind in kinds)


@pytest.mark.parametrize("seed", [2, 11, BODIES + 27, BODIES + 129])
def test_conversions_of_valid_models_hold(tmp_path, monkeypatch, seed):
    """Among them the model on whose bright inputs the entropy method once cut off nine tenths of the range, and bodies in bodies."""
    monkeypatch.chdir(tmp_path)
    found = valid.judge(seed, tmp_path)
    assert found.problems == [] and found.codes == {"fp16": 0, "int8": 0}


def test_bodies_of_all_kinds_are_made():
    kinds = {kind for seed in range(BODIES, BODIES + 60) for kind in random_model(seed).kinds}
    assert {"If", "Loop", "Scan", "If inside", "Loop inside", "Scan inside"} <= kinds


def test_what_does_not_hold_is_seen(tmp_path, monkeypatch):
    """A conversion that renames an output, and one that loses what the model computes."""
    found = random_model(3)
    renamed = onnx.ModelProto.FromString(found.model.SerializeToString())
    renamed.graph.output[0].name += "_"
    assert valid.ends(renamed) != valid.ends(found.model) == valid.ends(onnx.ModelProto.FromString(found.model.SerializeToString()))
    measure = valid.Measure(found)
    graph = Graph.from_model(found.model)
    assert min(measure(graph).values()) == valid.NOTHING_DB
    graph.weights = {name: array * 1.2 if array.dtype == np.float32 else array for name, array in graph.weights.items()}
    assert min(measure(graph).values()) < valid.LEAST_DB
    verdict = valid.Verdict(3, 17, ())
    monkeypatch.setattr(valid, "prepared_by", lambda effort, *_: graph if effort == "default" else Graph.from_model(found.model))
    valid.hold_against_simpler_ways(verdict, found, measure)
    assert len(verdict.problems) == len(measure(graph)) and "where a simpler way has 50.0" in verdict.problems[0]


@pytest.mark.parametrize("lost, seen", [(0.9, False), (1.1, True)])
def test_what_the_default_effort_may_lose_is_1_db(lost, seen):
    found = {"default": {"y": 30.0, "z": 40.0}, "fast": {"y": 30.0 + lost, "z": 20.0}, "minmax": {"y": 10.0, "z": 20.0}}
    assert valid.lost_by_default(found) == ({"y": (30.0, 30.0 + lost)} if seen else {})
