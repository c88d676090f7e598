"""What was measured of the FP16 engine that INT8 is held against, remembered so that it need not be built for every INT8 engine.

Only figures are kept: an engine file that lies around is never loaded.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from onnx2trt.conversion import remembered
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.plan import key as identity
from onnx2trt.report.built import VariantRow
from onnx2trt.trt.inspector import EngineLayer
from onnx2trt.trt.profile import Timed

FORMAT = 3
# Options that change nothing in an FP16 engine
ONLY_INT8 = ("--calibration-samples", "--calibration-method", "--accept-stale-cache", "--quantization-effort", "--quantization")
PLUGINS = "--plugins"  # among the data of stages.unchanged, by content


@dataclass(frozen=True)
class Baseline:
    """An FP16 engine as it was measured."""

    row: VariantRow
    timed: Timed  # its layers
    measured: str  # date


def recall(job: Job, run: Run) -> Baseline | None:
    """What is known of the FP16 engine of this model, built with these options, on this GPU; None where that is nothing.

    Its row says when it was measured, and whether on other data: times hardly depend on that, accuracy does.
    """
    path = _path(job)
    try:
        kept = remembered.read(path)
        layers = tuple(EngineLayer(**{key: tuple(v) if isinstance(v, list) else v for key, v in layer.items()}) for layer in kept["layers"])
        row = replace(VariantRow(**kept["row"]), measured_on=str(kept["measured"]), other_data=kept["data"] != _data(job))
        found = Baseline(row, (layers, {str(name): float(ms) for name, ms in kept["layer_ms"].items()}), str(kept["measured"]))
        p50 = float(found.row.p50_ms)
    except remembered.BROKEN:
        return None
    other = " on other data" * found.row.other_data
    run.console.info(f"the FP16 engine to compare with is not built again: p50 {p50:.3f} ms, measured on {found.measured}{other} ({path})")
    return found


def remember(job: Job, row: VariantRow, timed: Timed, run: Run) -> None:
    """Keep what was measured; a folder that cannot be written is no fault."""
    layers, times = timed
    figures = {"data": _data(job), "row": asdict(row), "layers": [asdict(layer) for layer in layers], "layer_ms": times}
    remembered.keep(_path(job), figures, run)


def _data(job: Job) -> dict:
    """Flag -> hash of the data that an engine is measured on, and that decides which of its layers stay in FP32."""
    return {flag: value for flag, value in job.inputs["data"].items() if flag != PLUGINS}


def _path(job: Job) -> str | None:
    """The file of this FP16 engine; None where nothing is to be kept (--timing-cache none)."""
    plan = replace(job.plan, precision="fp16", variants=("fp16",), min_int8_share=0.0, calibrator=False, native_method=None, structures=())
    options = {flag: value for flag, value in identity.options(plan).items() if flag not in ONLY_INT8}
    plugins = job.inputs["data"].get(PLUGINS)
    key = {"format": FORMAT, "model": job.inputs["model"], "options": options, "versions": job.inputs["versions"], "plugins": plugins}
    return remembered.place_of(job, "baseline", key)
