"""stages/build.py: parsing ahead; outputs that the model declares wrongly."""

import os

import onnx
import pytest
from helpers import planned, refused, save
from models import conv_net, model, node, random

from onnx2trt.base.errors import ExitCode
from onnx2trt.stages import build
from onnx2trt.stages.build import check_ranks, parse_ahead
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


# ---- ranks


@pytest.fixture
def wrong(tmp_path, monkeypatch):
    """Of a model whose output is [1, 4], and declared as of rank 3."""
    monkeypatch.chdir(tmp_path)
    save(model([node("Relu", "x", "y")], {"x": [1, 4]}, {"y": ["N", 4, 1]}), tmp_path / "model.onnx")
    return planned()


def test_a_wrong_declaration_is_a_warning(wrong):
    check_ranks(wrong[0], {"y": 2}, wrong[1])
    assert "the model declares output 'y' as Nx4x1, which is wrong: its result is 1x4" in " ".join(wrong[1].console.warnings)


def test_a_wrong_network_is_refused(wrong):
    with refused(ExitCode.MODEL, "'y' of rank 3", "its result is 1x4", "Nx4x1", hint="Simplify"):
        check_ranks(wrong[0], {"y": 3}, wrong[1])


def test_right_ranks_cost_nothing(wrong, monkeypatch):
    monkeypatch.setattr("onnx2trt.conversion.job.Session", None)
    check_ranks(wrong[0], {}, wrong[1])
