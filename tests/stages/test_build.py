"""stages/build.py: parsing ahead."""

import os

import onnx
import pytest
from helpers import planned
from models import conv_net, model, node, random

from onnx2trt.stages import build
from onnx2trt.stages.build import parse_ahead
from onnx2trt.trt.library import load_library
from onnx2trt.trt.parser_errors import Refusal

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")


@pytest.fixture
def job_of(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    library = load_library("tensorrt-rtx")

    def make(source):
        onnx.save(source, "model.onnx")
        job, run = planned("--precision", "fp16", library="rtx")
        object.__setattr__(job, "library", library)
        return job, run

    return make


def large_net():
    """With weights that are handed over beside the model."""
    return model([node("MatMul", "x w", "y", "product")], {"x": ["n", 64]}, {"y": ["n", 64]}, {"w": random(64, 64)})


@pytest.mark.parametrize("as_they_lie", [True, False], ids=["arrays", "file"])
@pytest.mark.parametrize("make", [conv_net, large_net])
def test_a_good_graph_is_read_and_nothing_is_left(make, as_they_lie, job_of, monkeypatch):
    monkeypatch.setattr(build, "takes_weights", lambda trt: as_they_lie)
    job, run = job_of(make())
    before = sorted(os.listdir())
    parse_ahead(job, job.graph(), job.info, run)
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize("as_they_lie", [True, False], ids=["arrays", "file"])
def test_a_refusal_names_nodes_and_shapes_of_weights_matter(as_they_lie, job_of, monkeypatch):
    monkeypatch.setattr(build, "takes_weights", lambda trt: as_they_lie)
    job, run = job_of(large_net())
    graph = job.graph()
    graph.weights["w"] = random(63, 64)
    with pytest.raises(Refusal) as caught:
        parse_ahead(job, graph, job.info, run)
    assert caught.value.nodes.keys() == {"product"}


def test_large_weights_are_not_copied(job_of, monkeypatch):
    seen = []
    real = build.ParserInput
    monkeypatch.setattr(build, "ParserInput", lambda **parts: seen.append(parts) or real(**parts))
    job, run = job_of(large_net())
    graph = job.graph()
    parse_ahead(job, graph, job.info, run)
    assert seen[0]["weights"]["w"].ctypes.data == graph.weights["w"].ctypes.data and len(seen[0]["data"]) < graph.weights["w"].nbytes
