"""stages/shapes.py: what was made is tried at the smallest and the largest shapes."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from helpers import planned, refused
from models import conv_net

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.conversion import promised_shapes
from onnx2trt.conversion.candidate import OnnxCandidate
from onnx2trt.model.graph import Graph
from onnx2trt.model.preflight import preflight
from onnx2trt.model.session import Session
from onnx2trt.rewrite.prepare import Prepared
from onnx2trt.stages.shapes import try_engine, try_onnx, try_prepared

FLAGS = ("--max-batch-size", "4")


@pytest.fixture
def made(tmp_path, monkeypatch):
    """(job, run) of a network with a free batch."""
    monkeypatch.chdir(tmp_path)
    onnx.save(conv_net(), "model.onnx")
    return planned(*FLAGS)


def engine(job, change=lambda outputs: outputs, seen=None):
    session = Session.from_path(job.info.path)

    def run(arrays):
        if seen is not None:
            seen.append(arrays["x"].shape)
        return change(session.run(arrays))

    return SimpleNamespace(run=run, attempt=run)


def test_an_engine_is_run_at_the_smallest_and_at_the_largest_shape(made):
    job, run = made
    seen: list = []
    try_engine(job, engine(job, seen=seen), run)
    assert seen == [(1, 3, 16, 16), (4, 3, 16, 16)] and not run.console.warnings
    try_engine(job, None, run)  # there is none to run


def test_shapes_that_take_the_model_too_long_are_run_without_it(made, monkeypatch):
    job, run = made
    monkeypatch.setattr(promised_shapes, "MOST_SECONDS", 1e-12)
    seen: list = []
    try_engine(job, engine(job, seen=seen), run)
    assert seen == [(1, 3, 16, 16), (4, 3, 16, 16)], "the first has no time to foretell from, the second is run alone"
    assert len(run.console.warnings) == 1 and "runs at x:4x3x16x16, but was not compared with the model there" in run.console.warnings[0]

    def no_room(arrays):
        raise ConversionError("the GPU has no room for 5 MB", hint="Lower --max-batch-size.", code=ExitCode.MACHINE)

    with refused(ExitCode.MACHINE, "the engine does not run at x:4x3x16x16: the GPU has no room"):
        try_engine(job, SimpleNamespace(run=Session.from_path(job.info.path).run, attempt=no_room), run)
    with refused(ExitCode.MACHINE, "has no room"):
        try_engine(job, SimpleNamespace(run=no_room, attempt=no_room), run)


def test_an_output_of_another_shape_is_refused(made):
    job, run = made
    with refused(ExitCode.VALIDATION, "at x:4x3x16x16", "'y' of the engine is 4x4x15x16, the model's 4x4x16x16"):
        try_engine(job, engine(job, lambda found: {"y": found["y"][:, :, 1:] if len(found["y"]) == 4 else found["y"]}), run)


def test_values_that_are_no_numbers_are_refused(made):
    job, run = made
    with refused(ExitCode.VALIDATION, "at x:4x3x16x16", "'y' of the engine are NaN or infinite"):
        try_engine(job, engine(job, lambda found: {"y": np.where(len(found["y"]) == 4, np.nan, found["y"])}), run)


def test_noise_at_one_shape_alone_is_said(made):
    job, run = made
    try_engine(job, engine(job, lambda found: {"y": found["y"] * (-1 if len(found["y"]) == 4 else 1)}), run)
    assert len(run.console.warnings) == 1 and "at x:4x3x16x16" in run.console.warnings[0]


def test_a_prepared_model_that_lost_its_free_batch_is_refused(made):
    job, run = made
    graph = job.graph()
    try_prepared(job, Prepared(graph), run)
    fixed = Graph.from_model(conv_net(batch=1))
    with refused(ExitCode.VALIDATION, "the prepared model does not run at x:4x3x16x16"):
        try_prepared(job, Prepared(fixed), run)
    try_prepared(replace(job, profiles=tuple(replace(one, max=one.min) for one in job.profiles)), Prepared(fixed), run)


def test_a_candidate_of_another_tool_is_tried_as_well(made):
    job, run = made
    for batch in ("N", 1):
        onnx.save(conv_net(batch=batch), "candidate.onnx")
        found, info = preflight("candidate.onnx")
        candidate = OnnxCandidate(info, Graph.from_model(found))
        if batch == "N":
            try_onnx(job, candidate, run)
            assert not run.console.warnings
        else:
            with refused(ExitCode.VALIDATION, "candidate.onnx does not run at x:4x3x16x16"):
                try_onnx(job, candidate, run)
