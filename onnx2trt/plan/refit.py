"""New weights for an engine without a build: what goes with --refit, --refittable and --strip-weights, and what the library must have."""

from __future__ import annotations

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.plan.argument_words import flag_of, words_of
from onnx2trt.plan.capabilities import REFIT_SYMBOLS, Capabilities
from onnx2trt.plan.effects import typed_flags

# what decides about the network and about how data reach it: an engine remembers it; names in `args`
OF_THE_ENGINE = (
    *("precision", "layer_precisions", "precision_constraints", "disable_strict_types", "strongly_typed", "io_types", "tf32"),
    *("imgsz", "max_batch_size", "min_shapes", "opt_shapes", "max_shapes", "shape_values", "bind_input", "profile"),
    *("workspace_size", "builder_optimization_level", "tactic_sources", "disable_tactic_sources", "dla_core"),
    *("version_compatible", "hardware_compatibility_level", "gpu_arch", "refittable"),
)
OF_THE_DATA = ("input_range", "mean", "std", "color", "resize", "min_int8_share")  # remembered, too, where they are not typed again
GO_WITH_REFIT = (
    *("--refit", "--onnx", "--output", "--backend", "--plugins", "--input-range", "--mean", "--std", "--color", "--resize"),
    *("--calibration-dir", "--calibration-samples", "--validate", "--test-image", "--validation-dir"),
    *("--max-accuracy-drop", "--metric", "--min-int8-share", "--no-validate", "--require-execution", "--keep-failed"),
    *("--save-onnx", "--json", "--report", "--dry-run", "--verbose", "--quiet"),
)

NEEDED = {
    "--refit": ("OnnxParserRefitter",),
    "--refittable": ("REFIT", "OnnxParserRefitter"),
    "--strip-weights": ("STRIP_PLAN", "REFIT_IDENTICAL", "OnnxParserRefitter"),
}


def refit_problem(args) -> str:
    """What is wrong with the flags by themselves, in words; empty where they are right."""
    if args.refit and args.door is None:
        others = [flag for flag in typed_flags(args) if flag not in GO_WITH_REFIT]
        if others:
            return f"--refit takes the network as the engine was built, so {' and '.join(others)} cannot go with it"
    flag = "--refittable" if args.refittable else "--strip-weights" if args.strip_weights else ""
    if flag and (args.compare or args.precision == "best"):
        other = "--compare" if args.compare else "--precision best"
        return f"{flag} is for one engine, so {other} cannot go with it: name the precision"
    if args.strip_weights and args.triton_repository:
        return "--strip-weights writes an engine that does not run yet, so --triton-repository cannot go with it"
    return ""


def as_built(args, remembered: list[str]) -> None:
    """Set the flags that an engine was built with.

    Args:
        args: the parsed command line; what was typed of OF_THE_DATA stays.
        remembered: as `to_remember` gives it; out of a file that somebody else may have written.

    Raises:
        ValueError: it is nothing that to_remember gives; the message says why, as a part of a sentence.
    """
    typed, known = typed_flags(args), _parsed(remembered)
    for dest in OF_THE_ENGINE:
        setattr(args, dest, getattr(known, dest))
    for dest in OF_THE_DATA:
        if flag_of(dest) not in typed:
            setattr(args, dest, getattr(known, dest))


def _parsed(words: list[str]):
    """The arguments that the words stand for.

    Raises:
        ValueError: as as_built.
    """
    for word in words:
        if word.partition("=")[0] not in map(flag_of, (*OF_THE_ENGINE, *OF_THE_DATA)):
            raise ValueError(f"{word[:40]!r} is no flag that an engine is built with")
    from onnx2trt.plan.arguments import build_parser

    parser = build_parser()

    def refuse(message: str):
        raise ValueError(message)

    parser.error = refuse
    return parser.parse_args(["--onnx=", *words])


def to_remember(args) -> list[str]:
    """What an engine remembers of the flags that it was built with: words of a command line, a flag and its value in each."""
    typed, words = typed_flags(args), []
    for dest in (*OF_THE_ENGINE, *OF_THE_DATA):
        flag, value = flag_of(dest), getattr(args, dest)
        if flag in typed:
            words += [flag] if value is True else [f"{flag}={word}" for word in words_of(dest, value)]
    return words


def refuse_refit(args, caps: Capabilities, archs: tuple[str, ...]) -> None:
    """
    Args:
        archs: compute capabilities to build for, as 8.9.

    Raises:
        ConversionError: MACHINE, for what this library or machine cannot do.
    """
    asked = [flag for flag in NEEDED if getattr(args, flag[2:].replace("-", "_"))]
    if not asked or caps.backend is None:
        return
    lacking = [name for name in REFIT_SYMBOLS if name not in caps.refits and any(name in NEEDED[flag] for flag in asked)]
    if lacking:
        raise ConversionError(
            f"{' '.join(asked)}: {caps.backend} {caps.version} has no {' and no '.join(lacking)}",
            hint="TensorRT 10 and 11 have what it takes.",
            code=ExitCode.MACHINE,
        )
    if not caps.executes(archs):
        doing = " loads the engine" if args.refit else ": such an engine is built on the GPU that it is for"
        raise ConversionError(
            f"{asked[0]}{doing}, but {caps.driver_problem or 'the GPU of this machine is none of its targets'}",
            hint="Run it on the machine with the GPU that the engine is for.",
            code=ExitCode.MACHINE,
        )
