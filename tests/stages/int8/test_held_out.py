"""stages/int8/held_out.py: how near a way to INT8 comes to the model, output by output."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from helpers import planned, write_conv_net
from models import conv_net, node, random
from onnx import TensorProto

from onnx2trt.conversion import comparing
from onnx2trt.conversion.int8 import Known
from onnx2trt.pipeline.int8_fit import Ways
from onnx2trt.rewrite.prepare import working_graph
from onnx2trt.rewrite.qdq import quantizable_layers
from onnx2trt.stages.int8.held_out import signal_to_noise
from onnx2trt.stages.int8.trials import Trials


def with_labels(values: bool) -> onnx.ModelProto:
    """conv_net whose classes are an output, beside its values or alone."""
    found = conv_net(batch=1)
    found.graph.node.append(node("ArgMax", "y", "labels", axis=1))
    found.graph.output.append(onnx.helper.make_tensor_value_info("labels", TensorProto.INT64, [1, 1, 16, 16]))
    if not values:
        del found.graph.output[0]
    return found


@pytest.mark.parametrize("values, told", [(True, {"y"}), (False, {"labels"})])
def test_labels_say_nothing_beside_values(tmp_path, monkeypatch, values, told):
    monkeypatch.chdir(tmp_path)
    onnx.save(with_labels(values), "model.onnx")
    (tmp_path / "data").mkdir()
    for index in range(6):
        np.save(tmp_path / "data" / f"{index}.npy", random(1, 3, 16, 16, seed=index))
    job, run = planned("--precision", "int8", "--calibration-dir", "data", library="rtx")
    graph = working_graph(job.graph(), True, False, ())
    layers = quantizable_layers(graph)
    names = tuple(layer.activation for layer in layers)
    ways = Ways(job, graph, layers, names, Known(), {}, run)
    found = signal_to_noise(job, ways.plain, run, "in a test")
    assert found.keys() == told and all(len(dbs) == 3 for dbs in found.values())
    assert not values or all(20 < db < 60 for db in found["y"])


def test_what_was_tried_is_not_simulated_again_by_the_choice_of_layers(tmp_path, monkeypatch):
    """The first two of five trials judge; the choice of layers runs the other three, and finds what it finds with all."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("onnx2trt.model.session.AT_ONCE", 1)  # of two threads, one may come late and load its part once more
    write_conv_net(tmp_path, 10)
    job, run = planned("--precision", "int8", "--calibration-dir", "data", "--metric", "noise", library="rtx")
    graph = working_graph(job.graph(), True, False, ())
    layers = quantizable_layers(graph)
    ways = Ways(job, graph, layers, tuple(layer.activation for layer in layers), Known(), {}, run)
    fitted, drops, loaded, real = ways.plain, [], [], comparing.Session.from_graph
    monkeypatch.setattr(comparing.Session, "from_graph", lambda *args, **options: loaded.append(1) or real(*args, **options))
    for tried in (False, True):
        if tried:
            signal_to_noise(job, fitted, run, "in a test")
        loaded.clear()
        drops.append(Trials(job, fitted, {}, lambda graph: graph, run).measure((), 50.0).drop_percent)
        assert len(loaded) == (3 if tried else 5)
    assert drops[0] == pytest.approx(drops[1], rel=1e-4) and drops[0] > 0
