"""Stage 'refit': the weights of a prepared model go into an engine that is there; and what an engine must remember for that."""

from __future__ import annotations

import tempfile

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.files import read_engine
from onnx2trt.base.words import base_name, listed
from onnx2trt.conversion.former import read_former
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.parser_input import parser_input
from onnx2trt.conversion.run import Run
from onnx2trt.model.fingerprint import Fingerprint, fingerprint
from onnx2trt.model.graph import Graph
from onnx2trt.report.built import Refittable
from onnx2trt.report.result import Result
from onnx2trt.rewrite.prepare import Prepared
from onnx2trt.trt.builder import BuiltEngine
from onnx2trt.trt.header import Header, read_header
from onnx2trt.trt.refit import BUILD, NAMED, EngineRefitter


def check_refittable(job: Job) -> None:
    """
    Raises:
        ConversionError: MACHINE, where the engine could never be given other weights.
    """
    build = job.plan.build
    if job.quantizes and (build.refittable or build.strip_weights):
        raise ConversionError(
            f"{'--refittable' if build.refittable else '--strip-weights'} --precision {job.plan.precision}: scales, rounded weights and "
            "the choice of layers in 8 bits are found for the weights of a model, so an engine that is made from them takes no others",
            hint="Use --precision fp16, or give a model that carries Q/DQ already.",
            code=ExitCode.MACHINE,
        )


def to_remember(job: Job, prepared: Prepared, flags: list[str], exact_scales: bool) -> Refittable | None:
    """What --refit needs to know of an engine; None where it takes no weights.

    Args:
        flags: that the network was made with (plan.refit.to_remember).
        exact_scales: the model's own Q/DQ scales stayed FP32 (pipeline.prepare.HalfChoice).
    """
    build = job.plan.build
    if not (build.refittable or build.strip_weights):
        return None
    return Refittable(
        flags=flags,
        network=fingerprint(job.network()).pack(),
        prepared=fingerprint(prepared.graph).pack(),
        kept_fp32={node: reason for node, precision, reason in prepared.fallback if precision == "fp32"},
        exact_scales=exact_scales,
        other_weights=build.refittable,
        stripped=build.strip_weights,
    )


def read_refittable(path: str, run: Run) -> tuple[bytes, Header | None, Result]:
    """(the engine of --refit, its header, the result beside it)

    Raises:
        ConversionError: VALIDATION where it cannot be read, MACHINE where it takes no weights or nothing tells how it was made.
    """
    with run.stage("preflight", f"reading {base_name(path)}"):
        data = read_engine("--refit", path)
        former, why = read_former(path, path + ".json")
    if former is not None and former.refit is None:
        why = f"it was built without --refittable, so its weights are fixed ({path}.json)"
    if why:
        raise ConversionError(f"--refit {path}: {why}", hint=BUILD + " Copy engines with the .json beside them.", code=ExitCode.MACHINE)
    return data, read_header(data), former


def damaged(path: str, why: object) -> ConversionError:
    """What to say of the JSON beside an engine."""
    return ConversionError(f"--refit {path}: {path}.json is damaged, or was changed by hand: {why}", hint=BUILD, code=ExitCode.MACHINE)


def check_network(job: Job, known: Refittable) -> None:
    """The model is the network that the engine was built from, whatever its weights are.

    Raises:
        ConversionError: MODEL, naming the first difference.
    """
    difference = _unpacked(known.network).first_difference(fingerprint(job.network()))
    if difference:
        raise ConversionError(
            f"{job.info.path} is another network than the engine's: {difference}",
            hint="Only values of weights may differ, so export both in the same way; else build an engine of its own.",
            code=ExitCode.MODEL,
        )


def changed_weights(prepared: Prepared, known: Refittable) -> frozenset[str]:
    """The weights of the prepared model that have other values than the engine was built with.

    Raises:
        ConversionError: MODEL, where the weights lead to another network; MACHINE, where the engine takes the same ones alone.
    """
    then, now = _unpacked(known.prepared), fingerprint(prepared.graph)
    difference = then.first_difference(now)
    if difference:
        raise ConversionError(f"with these weights the network has to be built otherwise: {difference}", hint=BUILD, code=ExitCode.MODEL)
    changed = then.changed(now)
    if changed and not known.other_weights:
        raise ConversionError(
            "the engine was built with --strip-weights alone, so it takes back the weights that it had, and no others; other values has "
            + listed(sorted(map(repr, changed)), NAMED),
            hint="Give the model that it was built from, or build with --refittable --strip-weights.",
            code=ExitCode.MACHINE,
        )
    return changed


def refit_engine(job: Job, prepared: Prepared, data, changed: frozenset[str], run: Run) -> BuiltEngine:
    """An engine with all weights of the prepared model.

    Args:
        data: the engine, as it is; it is not changed.
        changed: weights whose values must get into the engine.

    Raises:
        ConversionError: MACHINE or BUILD, naming the weights that did not get there.
    """
    with tempfile.TemporaryDirectory(prefix="onnx2trt-") as folder, run.stage("refit", "putting the weights into the engine"):
        refitter = EngineRefitter(job.library, data, run.console.library, job.plan.build.version_compatible)
        try:
            _check_taken(prepared.graph, refitter.weights, changed)
            model = prepared.graph.proto if prepared.changed else job.model
            refitter.refit(parser_input(prepared, job.info, folder, model))
            return BuiltEngine(refitter.serialize(), None, {}, None, False, ())
        finally:
            refitter.close()


def _check_taken(graph: Graph, taken: frozenset[str], changed: frozenset[str]) -> None:
    """Every changed weight is one that the engine takes, by its name, or the parser computes what it takes from it.

    Raises:
        ConversionError: MACHINE.
    """
    readers = graph.consumers()
    fixed = [
        name
        for name in sorted(changed - taken)
        if not any(node.op_type == "BatchNormalization" for node in readers.get(name, ()))  # becomes one factor and one summand
    ]
    if fixed:
        raise ConversionError(
            f"the engine has the values of {listed(list(map(repr, fixed)), NAMED)} in its kernels, and the model has others",
            hint="Build the engine anew.",
            code=ExitCode.MACHINE,
        )


def _unpacked(packed: dict) -> Fingerprint:
    try:
        return Fingerprint.unpack(packed)
    except ValueError as error:
        raise ConversionError(f"the JSON beside the engine is damaged: {error}", hint=BUILD, code=ExitCode.MACHINE) from None
