"""stages/build.py: outputs that the model declares wrongly."""

import pytest
from helpers import planned, refused, save
from models import model, node

from onnx2trt.base.errors import ExitCode
from onnx2trt.stages.build import check_ranks


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Of a model whose output is [1, 4], and declared as of rank 3."""
    monkeypatch.chdir(tmp_path)
    save(model([node("Relu", "x", "y")], {"x": [1, 4]}, {"y": ["N", 4, 1]}), tmp_path / "model.onnx")
    return planned()


def test_a_wrong_declaration_is_a_warning(job):
    check_ranks(job[0], {"y": 2}, job[1])
    assert "the model declares output 'y' as Nx4x1, which is wrong: its result is 1x4" in " ".join(job[1].console.warnings)


def test_a_wrong_network_is_refused(job):
    with refused(ExitCode.MODEL, "'y' of rank 3", "its result is 1x4", "Nx4x1", hint="Simplify"):
        check_ranks(job[0], {"y": 3}, job[1])


def test_right_ranks_cost_nothing(job, monkeypatch):
    monkeypatch.setattr("onnx2trt.stages.build.Session", None)
    check_ranks(job[0], {}, job[1])
