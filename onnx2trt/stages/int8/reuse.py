"""What the run that made the calibration cache found beyond its scales, taken over where the conditions are the same."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.side_files import NotTaken, read_bounded
from onnx2trt.conversion.int8 import Known, WrittenCache
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.model.graph import Graph
from onnx2trt.model.observe import static_shapes
from onnx2trt.plan.efforts import EFFORTS
from onnx2trt.plan.plan import Route
from onnx2trt.quant import calibration_cache
from onnx2trt.quant.calibration_cache import Cache
from onnx2trt.quant.equalize.equalization import rebuild
from onnx2trt.quant.fit_file import FORMAT, Found, Packed, most_bytes, pack
from onnx2trt.quant.fp16_segments import unconvertible

LAYERS = "layers"  # no flag: ALL, or those that a rule leaves; AND_ATTENTION may follow
ALL, AND_ATTENTION = "all", " and attention"
# What the choice of layers depends on, but not how the layers were made INT8
ONLY_FOR_THE_CHOICE = ("--max-accuracy-drop", "--metric", "--min-int8-share", "--no-validate", "--validation-dir")


def look_up(job: Job, graph: Graph, cache: Cache | None, run: Run) -> Known:
    """The cache, and what belongs to it.

    With calibration data, whatever does not fit is found again; without, it is said, and what there is has to do.

    Args:
        graph: folded, FP32.
        cache: as it was read; None where there is none yet.

    Raises:
        ConversionError: CALIBRATION, for a cache or fit file that is damaged or of another model.
    """
    if cache is None or not cache.fits:
        return Known(cache)
    packed, path = _read(cache, graph), calibration_cache.fit_file(cache.path)
    if packed is None:
        changed, problem = [], f"{path} is missing, or belongs to another cache"
    else:
        changed = _changed(packed, job)
        problem = changed and f"{path} was made with another {' and another '.join(changed)}"
    if problem and job.data.calibration is not None:
        run.console.info(f"{problem}: everything is found again from {job.data.calibration.origin}")
        return Known()
    if packed is None or not set(changed) <= set(ONLY_FOR_THE_CHOICE):
        run.console.warn(f"{problem}: only the scales of {cache.path} are used. Accuracy may be much lower; give --calibration-dir")
        return Known(cache)
    chosen = not changed or job.data.validation is None
    if problem:
        then = "the choice of layers is used as it is; give --calibration-dir to choose again" if chosen else "the layers are chosen again"
        (run.console.warn if chosen else run.console.info)(f"{problem}: {then}")
    what = "fitted weights and the choice of layers come" if chosen else "fitted weights come"
    run.console.info(f"{what} from {path}")
    try:
        found = packed.unpack(graph, job.number_format)
        equalization = rebuild(graph, static_shapes(graph, job.profiles), found.shifts, found.factors)
    except ValueError as error:
        raise _damaged(path, error) from None
    fit = replace(found.fit, scales=found.fit.scales or cache.scales, fp16_scales=job.fp16_scales(graph))
    found, layers = replace(found, fit=fit, kept_fp32=_kept_here(found.kept_fp32, graph, job)), packed.conditions.get(LAYERS)
    by_rule, attention = not str(layers).startswith(ALL), str(layers).endswith(AND_ATTENTION)
    return Known(cache, found, equalization, chosen, by_rule, attention)


def write_found(job: Job, graph: Graph, written: WrittenCache | None, found: Found, run: Run) -> None:
    """Write the fit file of a cache that was written, and tie the two.

    Args:
        graph: as for look_up.
    """
    if written is None:
        return
    structural = unconvertible(graph)
    measured = {node: reason for node, reason in found.kept_fp32.items() if structural.get(node) != reason}
    data = pack(replace(found, kept_fp32=measured), {**_conditions(job), LAYERS: _layers(job)})
    identity = replace(written.identity, fit_sha256=hashlib.sha256(data).hexdigest())
    fit, side = calibration_cache.fit_file(written.path), calibration_cache.side_file(written.path)
    run.write_now({fit: data, side: calibration_cache.side_text(written.text, identity).encode()})


def _read(cache: Cache, graph: Graph) -> Packed | None:
    """The fit file that the side file names by its hash; None where there is none."""
    path = calibration_cache.fit_file(cache.path)
    if cache.identity.fit_sha256 is None:
        return None
    try:
        data = read_bounded(path, most_bytes(graph))
    except (FileNotFoundError, NotTaken):
        return None
    except OSError as error:
        raise ConversionError(f"{path} cannot be read: {error.strerror}", code=ExitCode.CALIBRATION) from None
    if hashlib.sha256(data).hexdigest() != cache.identity.fit_sha256:
        return None
    try:
        return Packed(data)
    except ValueError as error:
        raise _damaged(path, error) from None


def _damaged(path: str, error: ValueError) -> ConversionError:
    return ConversionError(
        f"{path} cannot be used: {error}",
        hint="Delete it, and give --calibration-dir to make it again.",
        code=ExitCode.CALIBRATION,
    )


def _conditions(job: Job) -> dict:
    """Flag -> value, of everything beside model and calibration data that decides what is found."""
    plan, judged = job.plan, job.data.validation
    return {
        "--quantization-effort": next(name for name, effort in EFFORTS.items() if effort == plan.calibration.effort),
        "--layer-precisions": [list(override) for override in plan.layer_precisions],
        "--disable-strict-types": not plan.keep_layers,
        "--max-accuracy-drop": plan.validation.max_drop_percent,
        "--metric": [list(choice) for choice in plan.validation.metric],
        "--min-int8-share": plan.min_int8_share,
        "--no-validate": not plan.validation.enabled,
        "--validation-dir": calibration_cache.hash_files(judged.files, judged.origin) if judged else None,
    }


def _layers(job: Job) -> str:
    """Which layers could become INT8."""
    return (ALL if job.plan.structures else "by rule") + AND_ATTENTION * job.plan.attention


def _changed(packed: Packed, job: Job) -> list[str]:
    """The flags that differ.

    Without calibration data, other validation data changes nothing: what was chosen is checked on it in the end, as always.
    """
    if packed.format != FORMAT:
        return ["version of onnx2trt"]
    now = _conditions(job)
    if job.data.calibration is None:
        del now["--validation-dir"]
    return [flag for flag, value in now.items() if packed.conditions.get(flag) != value]


def _kept_here(kept_fp32: dict[str, str], graph: Graph, job: Job) -> dict[str, str]:
    """What was measured, and what this route cannot convert."""
    return {**(unconvertible(graph) if job.plan.route is Route.STRONG else {}), **kept_fp32}
