"""stages/faithful.py: an INT8 engine against a simulation of its layers; the engine is a function."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import network, planned, write_conv_net
from models import node, random

from onnx2trt.pipeline import int8
from onnx2trt.stages.faithful import FP16_NOISE, Faithful, against_simulation, suspects
from onnx2trt.trt.inspector import EngineLayer


@pytest.fixture
def built(tmp_path, monkeypatch):
    """(job, prepared, run) of an INT8 network."""
    monkeypatch.chdir(tmp_path)
    write_conv_net(tmp_path)
    job, run = planned("--precision", "int8", "--calibration-dir", "data", "--max-accuracy-drop", "50", "--quantization-effort", "fast")
    return job, int8.choose(job, run).prepared(run), run


def engine_of(job, change, layers=()):
    """What the model computes, changed."""
    from onnx2trt.model.session import Session

    session = Session.from_path("model.onnx")
    return SimpleNamespace(
        run=lambda arrays: {name: change(array) for name, array in session.run(arrays).items()},
        inspect=lambda: json.dumps({"Layers": layers}),
    )


def noisy(db: float):
    def change(array):
        noise = np.random.default_rng(0).standard_normal(array.shape).astype(array.dtype)
        return array + noise * np.sqrt((array**2).mean() / (noise**2).mean() / 10 ** (db / 10))

    return change


@pytest.mark.parametrize("db, short", [(100, False), (46, False), (1, True)])
def test_an_engine_that_is_further_off_than_its_simulation_is_named(built, db, short):
    job, prepared, run = built
    found = against_simulation(job, prepared, engine_of(job, noisy(db)), run)
    said = found.falls_short
    assert bool(said) is short and (not short or "'y' has 1.0 dB where a simulation" in said), said
    of_simulation = found.off_db + db
    assert 20 < of_simulation < 60, "that of the simulation, whatever the engine is"


def test_what_layers_in_fp16_cost_is_no_fault_where_int8_costs_nothing(built, monkeypatch):
    job, prepared, run = built
    monkeypatch.setattr("onnx2trt.stages.faithful.simulation", lambda graph: job.graph())
    limit = -10 * np.log10(2 * FP16_NOISE)
    assert not against_simulation(job, prepared, engine_of(job, noisy(limit + 0.5)), run).falls_short
    explained = -10 * np.log10(FP16_NOISE)
    assert against_simulation(job, prepared, engine_of(job, noisy(explained + 0.5)), run).off_db == 0
    assert against_simulation(job, prepared, engine_of(job, noisy(explained - 0.5)), run).off_db > 40
    assert against_simulation(job, prepared, engine_of(job, noisy(limit - 0.5)), run).falls_short


def test_an_engine_that_makes_something_of_nothing_is_named(built, monkeypatch):
    """Where the model gives zeros alone, there is no signal that an error could be a share of."""
    job, prepared, run = built
    monkeypatch.setattr("onnx2trt.stages.faithful._noise", lambda *_: ({"y": 0.0}, {"y": [0.0, 1.0]}))
    assert "output 'y' has -200.0 dB" in against_simulation(job, prepared, None, run).falls_short
    monkeypatch.setattr("onnx2trt.stages.faithful._noise", lambda *_: ({"y": 0.0}, {"y": [0.0, 0.0]}))
    assert against_simulation(job, prepared, None, run) == Faithful(0.0)


def test_an_engine_that_does_not_run_is_not_judged_by_it(built):
    job, prepared, run = built

    def fails(array):
        raise RuntimeError("CUDA error 700")

    assert against_simulation(job, prepared, engine_of(job, fails), run) == Faithful()
    assert any(
        "not compared with its simulation: CUDA error 700" in warning or "CUDA error 700" in warning for warning in run.console.warnings
    )


def entry(node, reads, writes, precision="Int8"):
    ends = [[{"Name": name, "Format/Datatype": precision} for name in names] for names in (reads, writes)]
    return {"Name": node, "LayerType": "Conv", "Inputs": ends[0], "Outputs": ends[1], "Metadata": f"[ONNX Layer: {node}]"}


def test_what_tensorrt_rounds_besides_is_simulated_too(built):
    """Its calibrator is given scales of tensors that no layer was meant to read as INT8, and may use them."""
    job, prepared, run = built
    assert prepared.equivalent is not None
    scale = np.float32(0.5)
    prepared = replace(prepared, scales={**prepared.scales, "y": float(scale)})
    layers = [entry(node.name, node.input[:1], node.output) for node in prepared.graph.nodes]
    as_planned = [*layers[:-1], entry(prepared.graph.nodes[-1].name, prepared.graph.nodes[-1].input[:1], ())]
    engine = [engine_of(job, lambda array: np.rint(array / scale) * scale, layers) for layers in (as_planned, layers)]
    planned, as_built = (against_simulation(job, prepared, one, run) for one in engine)
    assert planned.falls_short and not as_built.falls_short and as_built.off_db < 0.5 < planned.off_db


def test_of_an_engine_that_says_nothing_of_its_layers_the_plan_is_simulated(built):
    job, prepared, run = built
    one, other = (against_simulation(job, prepared, engine_of(job, noisy(10), layers), run) for layers in ((), [{"Name": "conv"}]))
    assert one == other and one.off_db


def test_what_may_be_wrong_are_convolutions_in_groups_by_the_kernel_that_is_known_for_it():
    graph = network(
        [node("Conv", "x w", "a", "first", group=2), node("Conv", "a w", "b", "second", group=2), node("Conv", "b v", "y", "plain")],
        {"w": random(4, 2, 1, 1), "v": random(4, 4, 1, 1, seed=1)},
    )

    def layers(**tactics):
        return tuple(EngineLayer(name, "CaskConvolution", "int8", "int8", "int8", (name,), tactic) for name, tactic in tactics.items())

    wrong, other = "sm72_xmma_convolution_groupSdcrr_INT8NCxHW32_R3_S3_U1_V1", "sm80_xmma_fprop_implicit_gemm"
    assert suspects(graph, layers(first=other, second=wrong, plain=other)) == {"second"}
    assert suspects(graph, layers(first=other, second=other, plain=wrong)) == {"first", "second"}, "no convolution in groups is by it"
    in_fp16 = replace(layers(second=other)[0], precision="fp16")
    assert suspects(graph, (*layers(first=other, plain=other), in_fp16)) == {"first"} and suspects(graph, layers(plain=other)) == set()
