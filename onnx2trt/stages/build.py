"""Stages 'parse' and 'build': the prepared model becomes a serialized engine."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from functools import partial

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.model_info import ModelInfo, dims
from onnx2trt.base.stage_names import STARTING_STAGE
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.parser_input import parser_input
from onnx2trt.conversion.promised_shapes import made_up, sizes_at
from onnx2trt.conversion.run import Run
from onnx2trt.model.graph import Graph
from onnx2trt.model.nodes import list_nodes
from onnx2trt.rewrite.for_tensorrt8 import for_tensorrt8
from onnx2trt.rewrite.prepare import Prepared
from onnx2trt.trt import remarks
from onnx2trt.trt.builder import BuiltEngine, Constraints, EngineBuilder
from onnx2trt.trt.network import ParserInput, takes_weights

LONG_SECONDS = 25.0  # of a build, from which on it is said that this may be so


def build_engine(job: Job, prepared: Prepared, calibrator, timings: bytes | None, run: Run, what: str = "the engine") -> BuiltEngine:
    """Parse and build.

    Args:
        calibrator: for INT8 by TensorRT's calibrator (stages.int8.trt_calibrator.Calibrator); None elsewhere.
        timings: contents of the timing cache; empty to start one, None to go without.
        what: is built, for the user.

    Raises:
        ConversionError: MODEL, CALIBRATION or BUILD.
    """
    with tempfile.TemporaryDirectory(prefix="onnx2trt-") as folder:
        with run.stage("parse", "parsing the prepared ONNX"):
            run.channel.stage(STARTING_STAGE)
            builder = EngineBuilder(job.library, job.plan, run.console.library)
            run.channel.stage("parse")
            graph = _as_the_parser_reads(job, prepared.graph)
            prepared = replace(prepared, graph=graph, changed=prepared.changed or graph is not prepared.graph)
            model = prepared.graph.proto if prepared.changed else job.model
            source = parser_input(prepared, job.info, folder, model, takes_weights(job.library.trt))
            ranks = builder.parse(source, job.engine_io)
            check_ranks(job, ranks, run)
        nodes = tuple((n.name, tuple(n.output)) for n in prepared.graph.nodes)
        constraints = Constraints(prepared.constraints, prepared.half_nodes, prepared.half_outputs, nodes)
        dynamic = any(spec.dynamic for spec in job.info.inputs) or any(profile.values for profile in job.profiles)
        label = "calibrating and building the engine" if calibrator is not None and calibrator.needs_data else f"building {what}"
        long = (
            f"TensorRT has built for {LONG_SECONDS:.0f} s, not done yet: it alone decides how long that takes, minutes for large networks "
            f"(this one has {len(nodes)} nodes), and one step may be most of it; Ctrl-C ends it at once"
        )
        with run.stage("build", label), run.told_after(LONG_SECONDS, long), run.console.counted("steps of TensorRT") as builder.step:
            built = builder.build(job.profiles, dynamic, constraints, calibrator and calibrator.for_tensorrt(), timings)
    for line in remarks.explain(built.warnings):
        run.console.once(line, meaning=line.partition(": ")[2])
    return built


def _as_the_parser_reads(job: Job, graph: Graph) -> Graph:
    """Q/DQ in the form that this version takes; `graph` itself where there is nothing to change."""
    return for_tensorrt8(graph) if job.library.before_10 else graph


def check_ranks(job: Job, ranks: dict[str, int], run: Run) -> None:
    """Outputs whose declared rank is not the one that TensorRT has found: what ONNX Runtime computes is right.

    Args:
        ranks: output -> rank by TensorRT.

    Raises:
        ConversionError: MODEL, where TensorRT is wrong.
    """
    if not ranks:
        return
    real = _real_shapes(job, run)
    for name, rank in ranks.items():
        declared = dims(next(spec.shape for spec in job.info.outputs if spec.name == name))
        if name in real and len(real[name]) != rank:
            raise ConversionError(
                f"TensorRT's parser made output {name!r} of rank {rank}; its result is {dims(real[name])}, the model says {declared}",
                hint="Simplify what makes that output, or export it again.",
                code=ExitCode.MODEL,
            )
        found = f"its result is {dims(real[name])}" if name in real else f"TensorRT makes it of rank {rank}"
        run.console.warn(f"the model declares output {name!r} as {declared}, which is wrong: {found}")


def _real_shapes(job: Job, run: Run) -> dict[str, tuple[int, ...]]:
    """Output -> shape at the opt shapes; empty where it cannot be computed here."""
    if job.plan.build.plugins:
        return {}
    try:
        found = job.reference().run(made_up(job.info.inputs, sizes_at(job.profiles, "opt")))
    except ConversionError as error:
        run.console.debug(f"ranks of outputs cannot be checked: {error.message}")
        return {}
    return {name: array.shape for name, array in found.items()}


def parse_ahead(job: Job, graph: Graph, io: ModelInfo, run: Run) -> None:
    """Let the parser read a graph before anything long begins; to be called within a stage. Nothing is kept.

    Args:
        graph: where the parser takes arrays as they lie in memory, its weights are not copied.
        io: the model, with the types that inputs and outputs have in the graph.

    Raises:
        ConversionError: MODEL, a Refusal where the parser says no; USAGE, where values of inputs have to be known.
    """
    with tempfile.TemporaryDirectory(prefix="onnx2trt-") as folder:
        run.channel.stage(STARTING_STAGE)
        builder = EngineBuilder(job.library, job.plan, run.console.library)
        run.channel.stage("parse")
        graph = _as_the_parser_reads(job, graph)
        nodes = partial(list_nodes, graph.proto)
        if takes_weights(job.library.trt):
            data, weights = graph.with_external_data("weights")
            source = ParserInput(data=data, weights=weights, nodes=nodes)
        else:
            graph.save(os.path.join(folder, "model.onnx"), "weights")
            source = ParserInput(path=os.path.join(folder, "model.onnx"), nodes=nodes)
        builder.parse(source, io)
        builder.check_shape_inputs(job.profiles)
