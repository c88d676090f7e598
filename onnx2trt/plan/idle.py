"""Flags that play no part in a run: which, and why. What is wrong by itself is refused in rules.py, and so is what a library lacks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from onnx2trt.plan.effects import Cell, Effect
from onnx2trt.plan.plan import Plan
from onnx2trt.plan.precision_arguments import EIGHT_BIT
from onnx2trt.plan.variants import BEST

IMAGES = ("--input-range", "--mean", "--std", "--color", "--resize")
SHAPES = ("--imgsz", "--max-batch-size", "--min-shapes", "--opt-shapes", "--max-shapes")
CALIBRATION = ("--calibration-cache", "--accept-stale-cache", "--calibration-method", "--quantization", "--quantization-effort")
MEASURED_ON = ("--validate", "--test-image", "--validation-dir")
JUDGED_BY = ("--max-accuracy-drop", "--metric")


@dataclass(frozen=True)
class Facts:
    """What is known of a run beyond its flags."""

    quantized: bool = False  # the model carries Q/DQ
    images: bool = True  # some of the data are images
    free: bool = True  # some size of an input is free
    max_given: bool = False  # --max-shapes names every input with a free batch
    rewritten: bool = False  # the model is repaired before it is built, in whatever precision
    candidate: str = ""  # what is validated: engine | onnx; empty where an engine is built


@dataclass(frozen=True)
class _Run:
    """A run, in the terms that the rules are written in."""

    plan: Plan
    facts: Facts

    @property
    def builds(self) -> bool:
        return not self.facts.candidate and self.plan.door != "preprocess"

    @property
    def int8(self) -> bool:
        return self.builds and not set(EIGHT_BIT).isdisjoint(self.plan.variants)

    @property
    def quantizes(self) -> bool:
        return self.int8 and not self.facts.quantized

    @property
    def only_fp32(self) -> bool:
        return self.builds and self.plan.variants == ("fp32",)

    @property
    def nothing_to_compare(self) -> str:
        """Why no outputs are compared; empty where they are. See stages.validate."""
        plan = self.plan
        if not plan.validation.enabled:
            return "--no-validate"
        if plan.build.plugins and self.facts.candidate != "onnx":
            return "with --plugins ONNX Runtime cannot run the model"
        changed = self.facts.rewritten or any(precision == "fp16" for _, precision in plan.io_types)
        if self.only_fp32 and not plan.executes_here and not changed:
            return "an FP32 engine that is not executed here is compared with nothing"
        return ""

    @property
    def ranges(self) -> bool:
        """Whether the ranges of tensors are measured. See stages.ranges."""
        plan = self.plan
        asked = plan.keep_layers or plan.calibrator or plan.calibration.cache
        return self.builds and not self.only_fp32 and not plan.build.plugins and bool(asked)

    @property
    def calibration_dir_unused(self) -> str:
        """Why nothing is read from --calibration-dir; empty where it is."""
        given = self.plan.validation.directory or self.plan.validation.test_image
        if self.quantizes or self.ranges or not (self.nothing_to_compare or given):
            return ""
        return "nothing is calibrated, and " + (self.nothing_to_compare or f"accuracy is measured on {given}")


def _calibration(run: _Run) -> str:
    if not run.int8:
        return "only INT8 and FP8 are calibrated" + (", and there are no data for it" if run.plan.precision == BEST else "")
    return "the model carries its own Q/DQ" if run.facts.quantized else ""


def _effort(run: _Run) -> str:
    alone = run.plan.calibrator and run.plan.build.plugins
    return _calibration(run) or ("with --plugins TensorRT calibrates by itself" if alone else "")


def _calibration_samples(run: _Run) -> str:
    return run.calibration_dir_unused if run.plan.calibration.directory else "there is no --calibration-dir"


def _accept_stale(run: _Run) -> str:
    return _calibration(run) or ("" if run.plan.calibration.cache else "there is no --calibration-cache")


def _judged(run: _Run) -> str:
    synthetic = run.quantizes and set(run.plan.variants) <= set(EIGHT_BIT) and not _data(run.plan)
    return run.nothing_to_compare or (f"synthetic inputs do not tell the accuracy of {run.plan.precision.upper()}" if synthetic else "")


def _data(plan: Plan) -> bool:
    return bool(plan.calibration.directory or plan.validation.directory or plan.validation.test_image)


def _int8_share(run: _Run) -> str:
    if run.plan.door == "calibrate":
        return run.nothing_to_compare
    return "" if run.int8 or run.facts.quantized or run.facts.candidate else "neither INT8 nor FP8 was asked for"


def _baseline(run: _Run) -> str:
    plan = run.plan
    if plan.compare:
        return "--compare builds all precisions"
    if plan.precision not in EIGHT_BIT:
        return "only an INT8 or FP8 engine is held against an FP16 one"
    if plan.executes_here and not plan.validation.enabled:
        return "--no-validate"
    if plan.executes_here:
        return ""
    if plan.backend != "tensorrt-rtx":
        return "no engine is executed here, so none is timed"
    return "the model brings its Q/DQ: none of its layers goes back to FP16" if run.facts.quantized else ""


def _max_batch(run: _Run) -> str:
    return _shapes(run) or ("--max-shapes says it" if run.facts.max_given else "")


def _shapes(run: _Run) -> str:
    if run.facts.candidate == "engine":
        return "the shapes are those of the engine's profile"
    return "" if run.facts.free else "every size of the model is fixed"


def _of_onnx(run: _Run) -> str:
    return "a prepared ONNX is computed by ONNX Runtime" if run.facts.candidate == "onnx" else ""


def _precision(run: _Run) -> str:
    has_its_own = run.facts.candidate == "engine" and run.plan.precision not in EIGHT_BIT
    return "the engine has its precision already" if has_its_own else ""


# flag -> why it plays no part in a run; empty where it does. Flags without a row always do, or are refused.
RULES: dict[str, Callable[[_Run], str]] = {
    **dict.fromkeys(CALIBRATION, _calibration),
    "--accept-stale-cache": _accept_stale,
    "--quantization-effort": _effort,
    "--calibration-dir": lambda run: run.calibration_dir_unused,
    "--calibration-samples": _calibration_samples,
    "--min-int8-share": _int8_share,
    "--no-baseline": _baseline,
    **dict.fromkeys(MEASURED_ON, lambda run: run.nothing_to_compare),
    **dict.fromkeys(JUDGED_BY, _judged),
    **dict.fromkeys(IMAGES, lambda run: "" if run.facts.images else "none of the data are images"),
    **dict.fromkeys(SHAPES, _shapes),
    "--max-batch-size": _max_batch,
    **dict.fromkeys(("--precision-constraints", "--disable-strict-types"), lambda run: "every layer is FP32" if run.only_fp32 else ""),
    **dict.fromkeys(("--backend", "--plugins"), _of_onnx),
    "--precision": _precision,
    "--detector": lambda run: "" if run.plan.outputs.report else "only --report draws boxes",
}


def idle_flags(plan: Plan, facts: Facts) -> tuple[tuple[str, Cell], ...]:
    """The typed flags that play no part in a run, with the reason; those that the library has no use for stand in plan.effects already."""
    run = _Run(plan, facts)
    found = ((flag, RULES[flag](run)) for flag in plan.typed if flag in RULES)
    return tuple((flag, Cell(Effect.NO_EFFECT, why)) for flag, why in found if why)


def in_words(effects: tuple[tuple[str, Cell], ...]) -> str:
    """One sentence that names all flags without effect, those of the same reason together; empty where there are none."""
    by_reason: dict[str, list[str]] = {}
    for flag, cell in effects:
        if cell.effect is Effect.NO_EFFECT:
            by_reason.setdefault(cell.note, []).append(flag)
    if not by_reason:
        return ""
    return "without effect here: " + "; ".join(f"{', '.join(flags)} ({why})" for why, flags in by_reason.items())
