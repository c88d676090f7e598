"""Stage 'read back': what the engine really is, from the engine where it can be loaded, else from the typed network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.model.graph import Graph
from onnx2trt.plan.plan import Plan, Route
from onnx2trt.rewrite.prepare import Prepared, mac_share
from onnx2trt.trt import inspector
from onnx2trt.trt.builder import BuiltEngine
from onnx2trt.trt.constraints import labels
from onnx2trt.trt.engine import Engine
from onnx2trt.trt.library import Library
from onnx2trt.trt.memory import open_cuda

LEAST_FP16_LAYERS = 0.10  # share of the layers for FP16 to count as delivered; for INT8 the plan says it
ORDER = ("fp32", "fp16", "int8")


@contextmanager
def loaded_engine(library: Library, plan: Plan, data, run: Run, host_code: bool = False) -> Iterator[Engine | None]:
    """The engine on the GPU of this machine for the length of a block; None where it cannot be executed here.

    Raises:
        ConversionError: MACHINE, where it should load, but does not.
    """
    if not plan.executes_here:
        yield None
        return
    cuda = open_cuda()
    try:
        with run.stage("load", "loading the engine"):
            engine = Engine(library, data, cuda, run.console.debug, host_code)
            run.engine_details = engine.describe()
        try:
            yield engine
        finally:
            engine.close()
    finally:
        cuda.close()


def read_precision(job: Job, prepared: Prepared, built: BuiltEngine, engine: Engine | None, run: Run) -> None:
    """Put the delivered precision into the result.

    Raises:
        ConversionError: VALIDATION, where it is less than what was asked for.
    """
    layers, source, share = built.layers, "network", prepared.int8_mac_share
    ignored: tuple[tuple[str, str, str], ...] = ()
    if engine is not None:
        known = labels((node.name, tuple(node.output)) for node in prepared.graph.nodes)
        found = inspector.parse_layers(engine.inspect(), known)
        if found:
            layers, source = inspector.count_layers(found), "inspector"
            ignored = inspector.ignored_constraints(found, prepared.constraints, prepared.half_nodes)
            if job.plan.precision == "int8":
                share = mac_share(prepared.graph, job.profiles, inspector.nodes_in(found, "int8"))
    for node, asked, got in ignored:
        run.console.warn(f"TensorRT ignored the constraint of node {node!r}: asked for {asked}, got {got}")
    layers = layers or dict.fromkeys(("int8", "fp16", "fp32"), 0)
    delivered = _delivered(layers, share, job.plan.min_int8_share)
    run.result["precision"] = {
        **(run.result["precision"] or {}),  # what was tried to get there
        "requested": job.plan.precision,
        "delivered": delivered,
        "int8_mac_share": share,
        "layers": layers,
        "layers_source": source,
        "fallback": [{"name": name, "precision": kept, "reason": reason} for name, kept, reason in prepared.fallback],
        "ignored_constraints": [{"name": node, "asked": asked, "delivered": got} for node, asked, got in ignored],
    }
    if ORDER.index(delivered) < ORDER.index(job.plan.precision):
        raise _less_than_asked(job, layers, share, delivered)


def describe_engine(job: Job, engine: Engine, run: Run) -> None:
    """Put the precision of an engine that was built elsewhere into the result; nothing was asked for, so nothing can be missing."""
    graph = Graph.from_model(job.model, job.profiles)
    found = inspector.parse_layers(engine.inspect(), labels((node.name, tuple(node.output)) for node in graph.nodes))
    share = mac_share(graph, job.profiles, inspector.nodes_in(found, "int8")) if found else None
    layers = inspector.count_layers(found) if found else None
    if layers is None:
        run.console.warn("the engine was built without detailed verbosity: its layers cannot be read")
    run.result["precision"] = {
        "requested": None,
        "delivered": _delivered(layers, share, job.plan.min_int8_share) if layers else None,
        "int8_mac_share": share,
        "layers": layers,
        "layers_source": "inspector",
        "fallback": [],
        "ignored_constraints": [],
    }


def _delivered(layers: dict[str, int], share: float | None, least_share: float) -> str:
    total = sum(layers.values())
    if share is not None and share >= least_share:
        return "int8"
    return "fp16" if total and layers["fp16"] >= LEAST_FP16_LAYERS * total else "fp32"


def _less_than_asked(job: Job, layers: dict[str, int], share: float | None, delivered: str) -> ConversionError:
    asked = job.plan.precision
    counts = ", ".join(f"{count} {name.upper()}" for name, count in layers.items())
    text = ""
    if share is not None:
        text = f", INT8 share of the multiply-accumulates {share:.1%}, less than --min-int8-share {100 * job.plan.min_int8_share:g}"
    hint = "The reasons stand under fallback in --json; ask for a higher precision, or allow more with --layer-precisions."
    if job.plan.route is Route.WEAK:
        other = "--layer-precisions '*:fp16'" if asked == "fp16" else "--quantization qdq"
        hint = f"TensorRT times its kernels and found others faster: use --precision {delivered}, or bind it with {other}."
    return ConversionError(
        f"{asked} was asked for, but the engine is {delivered}: layers {counts}{text}", hint=hint, code=ExitCode.VALIDATION
    )
