"""Whether an INT8, FP8 or BF16 engine computes what it was built to compute; TensorRT 10.6 has made wrong numbers of right Q/DQ
(MobileNetV3: 8 dB where the same scales and weights give 35)."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from onnx2trt.base.errors import in_words
from onnx2trt.compare.metrics import decibels
from onnx2trt.conversion.comparing import as_declared, on_arrays
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.data.feeds import batches_to_compare
from onnx2trt.model.graph import Graph
from onnx2trt.model.nodes import attribute
from onnx2trt.model.operators import CONVOLUTIONS
from onnx2trt.model.session import Session
from onnx2trt.rewrite.as_built import InInt8, as_built
from onnx2trt.rewrite.number_formats import INT8
from onnx2trt.rewrite.prepare import Prepared
from onnx2trt.rewrite.simulate import simulation
from onnx2trt.trt import inspector
from onnx2trt.trt.constraints import labels
from onnx2trt.trt.engine import Engine
from onnx2trt.trt.inspector import EngineLayer

SAMPLES = 4
WORSE = 2.0  # times the noise: 3 dB
WRONG_KERNEL = "groupSdcrr"  # sm72_xmma_convolution_groupSdcrr_INT8NCxHW32_..., right for some shapes
SUSPECTED = "TensorRT may compute this grouped convolution wrongly in 8 bits"
FP16_NOISE = 10**-4.5  # of the signal: 45 dB, which layers in FP16 may cost besides, of which the simulation of INT8 may know nothing


@dataclass(frozen=True)
class Faithful:
    """How an engine's outputs compare with those of a simulation of what it was built from, over the same samples."""

    # By which they are further from the model's, in the output where that is most; 0 where FP16_NOISE explains it. None: not compared
    off_db: float | None = None
    falls_short: str = ""  # what to say of it, where it is 3 dB; empty elsewhere


def against_simulation(job: Job, prepared: Prepared, engine: Engine, run: Run) -> Faithful:
    """An engine held against what it was built from: both by their distance from the model, over a few samples.

    Args:
        prepared: what it was built from; what TensorRT's calibrator makes INT8 of besides is read from the engine.
    """
    try:
        with run.stage("validate", "comparing the engine with its simulation"):
            signal, noise = _noise(job, prepared, engine)
    except Exception as error:  # of whatever kind: it has been compared with the model, and that decides
        run.console.warn(f"the engine was not compared with its simulation: {in_words(error)}")
        return Faithful()
    off, short = [], ""
    for name, (simulated, measured) in noise.items():
        of_engine, of_simulation = (decibels(signal[name], value) for value in (measured, simulated))
        explained = measured <= FP16_NOISE * signal[name]
        off.append(min(of_simulation - of_engine, 0.0) if explained else of_simulation - of_engine)
        if not short and measured > WORSE * (simulated + FP16_NOISE * signal[name]):
            short = f"output {name!r} has {of_engine:.1f} dB where a simulation of the same layers has {of_simulation:.1f} dB"
    if off:
        run.console.debug(f"by {max(off):+.2f} dB further from the model than its simulation")
    return Faithful(round(max(off), 2) if off else None, short)


def grouped_convolutions(graph: Graph) -> set[str]:
    """The nodes that TensorRT computes wrongly in INT8, by some of its kernels: convolutions in groups, depthwise or not.

    On an H200 with TensorRT 10.6: a network of 144 channels in groups of 16 by WRONG_KERNEL, 4 dB instead of 33, RegNet-Y-800MF with
    three of these 27.8 instead of 49.4 (TensorRT's own calibration: 23.2), but 128 channels in groups of 4 by it are right; MobileNetV3's
    depthwise layers by Q/DQ, 8 dB instead of 35.
    """
    return {node.name for node in graph.nodes if node.op_type in CONVOLUTIONS and attribute(node, "group", 1) > 1}


def suspects(graph: Graph, layers: tuple[EngineLayer, ...]) -> set[str]:
    """The nodes that may be why an engine computes something else than its simulation: those by the kernel that does, if it is there."""
    grouped = grouped_convolutions(graph)
    known = tuple(layer for layer in layers if WRONG_KERNEL in layer.tactic)
    return inspector.nodes_in_8_bits(known) & grouped or inspector.nodes_in_8_bits(layers) & grouped


def _as_built(prepared: Prepared, engine: Engine) -> Graph:
    """With Q/DQ what is to be built says what is rounded; with TensorRT's calibrator, what was built does, where it can be read."""
    if prepared.equivalent is None or not prepared.scales:
        return prepared.equivalent or prepared.graph
    graph = prepared.graph
    known = labels((node.name, tuple(node.output)) for node in graph.nodes)
    text, tensors = engine.inspect(), {name for node in graph.nodes for name in (*node.input, *node.output)}
    nodes = inspector.nodes_in(inspector.parse_layers(text, known), INT8.name)
    if not nodes:
        return prepared.equivalent
    return as_built(graph, prepared.scales, InInt8(nodes, *inspector.held_in(text, known, tensors, INT8.name)))


def _noise(job: Job, prepared: Prepared, engine: Engine) -> tuple[dict[str, float], dict[str, list[float]]]:
    """(output -> sum of its squares, output -> sums of the squared differences of the simulation, and of the engine)"""
    reference = on_arrays(job.reference().run)
    simulated = as_declared(job, Session.from_graph(simulation(_as_built(prepared, engine))).run)
    real = as_declared(job, engine.run, cast_inputs=False)
    signal: dict[str, float] = defaultdict(float)
    noise: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for batch in batches_to_compare(job.data, [job.data.to_compare()[0].at_most(SAMPLES)]):
        expected, *others = (compute(batch) for compute in (reference, simulated, real))
        for name, array in expected.items():
            if array.dtype.kind != "f" or any(found[name].shape != array.shape for found in others):
                continue
            wanted = array.astype(np.float64)
            usable = np.isfinite(wanted)
            signal[name] += float(np.square(wanted[usable]).sum())
            for index, found in enumerate(others):
                noise[name][index] += float(np.square(found[name].astype(np.float64)[usable] - wanted[usable]).sum())
    return signal, noise
