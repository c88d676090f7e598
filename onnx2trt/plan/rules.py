"""Rules between flags, as data: which combinations are wrong by themselves, and what each flag does on each route."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.locks import lock_path
from onnx2trt.base.model_info import dims
from onnx2trt.plan.argument_types import flatten
from onnx2trt.plan.arguments import NO_TIMING_CACHE, build_parser
from onnx2trt.plan.door_arguments import ARRAY_SUFFIXES, image_beside


class Effect(Enum):
    APPLIED = "applied"
    TRANSLATED = "translated"  # reached by another means, said
    NO_EFFECT = "no effect"  # harmless to ignore, said
    REFUSED = "refused"  # cannot be had here: exit 4


@dataclass(frozen=True)
class Cell:
    effect: Effect
    note: str


def _applied(note: str) -> Cell:
    return Cell(Effect.APPLIED, note)


def _translated(note: str) -> Cell:
    return Cell(Effect.TRANSLATED, note)


def _no_effect(note: str) -> Cell:
    return Cell(Effect.NO_EFFECT, note)


def _refused(note: str) -> Cell:
    return Cell(Effect.REFUSED, note)


# Columns of the table: TensorRT 8.6 to 10 (weak typing), TensorRT 11 (strong typing), TensorRT-RTX (strong typing).
COLUMNS = ("weak", "strong", "rtx")

_TYPED_GRAPH = _translated("this library is strongly typed: the precision is written into the ONNX graph")

# Most flags that every column applies in the same way have no row. A row is looked up only for a flag that was typed.
TABLE: dict[str, dict[str, Cell]] = {
    "--gpu-arch": {
        "weak": _refused("TensorRT builds for the GPU of this machine; --gpu-arch goes with --backend tensorrt-rtx"),
        "strong": _refused("TensorRT builds for the GPU of this machine; --gpu-arch goes with --backend tensorrt-rtx"),
        "rtx": _applied("set_compute_capability"),
    },
    "--layer-precisions": {
        "weak": _applied("precision and output types of the layers"),
        "strong": _TYPED_GRAPH,
        "rtx": _TYPED_GRAPH,
    },
    "--disable-strict-types": {
        "weak": _applied("no precision constraints"),
        "strong": _translated("strict types left TensorRT: no layer is kept in FP32 when the ONNX is converted"),
        "rtx": _translated("strict types left TensorRT: no layer is kept in FP32 when the ONNX is converted"),
    },
    "--precision-constraints": {
        "weak": _applied("OBEY_ or PREFER_PRECISION_CONSTRAINTS, or neither"),
        "strong": _translated("the types written into the ONNX are always obeyed; none writes no FP32 layers"),
        "rtx": _translated("the types written into the ONNX are always obeyed; none writes no FP32 layers"),
    },
    "--strongly-typed": {
        "weak": _applied("a strongly typed network"),
        "strong": _no_effect("this library has only strongly typed networks"),
        "rtx": _no_effect("this library has only strongly typed networks"),
    },
    "--quantization": {
        "weak": _applied("TensorRT's calibrator, or Q/DQ"),
        "strong": _applied("Q/DQ"),
        "rtx": _applied("Q/DQ"),
    },
    "--metric": dict.fromkeys(COLUMNS, _applied("compares the outputs, whatever has built the engine")),
    "--min-int8-share": dict.fromkeys(COLUMNS, _applied("judges the INT8 layers, whatever has built them")),
    "--io-types": {
        "weak": _applied("types of the network's inputs and outputs"),
        "strong": _TYPED_GRAPH,
        "rtx": _TYPED_GRAPH,
    },
    "--tactic-sources": {
        "weak": _applied("set_tactic_sources"),
        "strong": _applied("set_tactic_sources"),
        "rtx": _no_effect("TensorRT-RTX compiles its kernels on the target GPU and has no optional tactic sources"),
    },
    "--timing-cache": {
        "weak": _applied("timing cache of the builder config"),
        "strong": _applied("timing cache of the builder config"),
        "rtx": _no_effect("TensorRT-RTX times nothing at build time"),
    },
    "--dla-core": {
        "weak": _applied("default device DLA, GPU_FALLBACK"),
        "strong": _refused("a DLA needs weak typing; it left TensorRT with version 11"),
        "rtx": _refused("TensorRT-RTX has no DLA"),
    },
    "--plugins": {
        "weak": _applied("loaded into the plugin registry"),
        "strong": _applied("loaded into the plugin registry"),
        "rtx": _refused("TensorRT-RTX takes no plugin libraries"),
    },
    "--version-compatible": {
        "weak": _applied("BuilderFlag.VERSION_COMPATIBLE"),
        "strong": _applied("BuilderFlag.VERSION_COMPATIBLE"),
        "rtx": _refused("TensorRT-RTX comes without the lean runtime that such engines carry"),
    },
    "--hardware-compatibility-level": {
        "weak": _applied("hardware_compatibility_level"),
        "strong": _applied("hardware_compatibility_level"),
        "rtx": _refused("a TensorRT-RTX engine is portable already; --gpu-arch names its targets"),
    },
    "--triton-repository": {
        **dict.fromkeys(COLUMNS, _applied("a tensorrt_plan of Triton")),
        "rtx": _refused("Triton's TensorRT backend does not load engines of TensorRT-RTX; build with --backend tensorrt"),
    },
    "--disable-tactic-sources": {
        "weak": _applied("set_tactic_sources(0)"),
        "strong": _applied("set_tactic_sources(0)"),
        "rtx": _no_effect("TensorRT-RTX compiles its kernels on the target GPU and has no optional tactic sources to switch off"),
    },
}


def column(backend: str, weak_typing: bool) -> str:
    """The table's column of a library."""
    if backend == "tensorrt-rtx":
        return "rtx"
    return "weak" if weak_typing else "strong"


OF_THE_DOOR = {"calibrate": ("precision",)}  # what a door sets by itself


def typed_flags(args) -> list[str]:
    """The flags whose value differs from the default, by their long name; of a door, those that it takes."""
    typed = []
    for action in build_parser()._actions:
        if action.dest not in ("help", *args.named, *OF_THE_DOOR.get(args.door, ())) and getattr(args, action.dest) != action.default:
            typed.append(max(action.option_strings, key=len))
    return typed


def effects_of(args, backend: str, weak_typing: bool) -> tuple[tuple[str, Cell], ...]:
    """(flag, cell) of the typed flags that are translated or have no effect here.

    Args:
        weak_typing: the library has it; --strongly-typed then asks for the other column.

    Raises:
        ConversionError: MACHINE, naming every typed flag that this library refuses.
    """
    native = column(backend, weak_typing)
    asked = column(backend, weak_typing and not args.strongly_typed)
    cells = [(flag, TABLE[flag][native if flag == "--strongly-typed" else asked]) for flag in typed_flags(args) if flag in TABLE]
    refused = [f"{flag}: {cell.note}" for flag, cell in cells if cell.effect is Effect.REFUSED]
    if refused:
        raise ConversionError("not possible with this library: " + "; ".join(refused), code=ExitCode.MACHINE)
    return tuple((flag, cell) for flag, cell in cells if cell.effect is not Effect.APPLIED)


def flag_problem(args) -> str:
    """The first thing wrong with the flags by themselves, in words; empty where they are right."""
    if args.inspect is not None:
        return _inspect_problem(args)
    for check in (_shape_problem, _binding_problem, _preprocessing_problem, _combination_problem, _output_problem):
        problem = check(args)
        if problem:
            return problem
    return ""


# what the door 'validate' takes, and --precision: int8 says that synthetic inputs do not tell its accuracy
GO_WITH_VALIDATE_ONLY = (
    *("--validate-only", "--onnx", "--backend", "--plugins", "--precision"),
    *("--imgsz", "--max-batch-size", "--min-shapes", "--opt-shapes", "--max-shapes", "--shape-values", "--bind-input"),
    *("--input-range", "--mean", "--std", "--color", "--resize"),
    *("--validate", "--test-image", "--validation-dir", "--max-accuracy-drop", "--metric", "--min-int8-share", "--require-execution"),
    *("--json", "--report", "--verbose", "--quiet"),
)
GO_WITH_INSPECT = ("--inspect", "--plugins", "--json", "--verbose", "--quiet")


def _inspect_problem(args) -> str:
    others = [flag for flag in typed_flags(args) if flag not in GO_WITH_INSPECT]
    if others:
        return f"--inspect only reads an engine, so {' and '.join(others)} cannot go with it"
    if args.json and args.json != "-" and _real(args.json) in (_real(args.inspect), _real(args.inspect + ".json")):
        return f"--json and --inspect name the same file: {args.json}"
    return _path_problem(args)


def _shape_problem(args) -> str:
    bounds = {}
    for flag in ("min_shapes", "opt_shapes", "max_shapes"):
        pairs = flatten(getattr(args, flag))
        bounds[flag] = dict(pairs)
        if len(bounds[flag]) != len(pairs):
            return f"--{flag.replace('_', '-')} names an input twice: {[name for name, _ in pairs]}"
    for low, high in (("min_shapes", "opt_shapes"), ("opt_shapes", "max_shapes"), ("min_shapes", "max_shapes")):
        for name in bounds[low].keys() & bounds[high].keys():
            a, b = bounds[low][name], bounds[high][name]
            if len(a) != len(b) or any(x > y for x, y in zip(a, b)):
                return f"--{low.replace('_', '-')} {name}:{dims(a)} is not within --{high.replace('_', '-')} {dims(b)}"
    return ""


def _binding_problem(args) -> str:
    bound = [name for name, _ in flatten(args.bind_input)]
    twice = next((name for name in bound if bound.count(name) > 1), None)
    if twice is not None:
        return f"--bind-input names input {twice!r} twice"
    for name, (least, usual, most) in flatten(args.shape_values):
        if not all(a <= b <= c for a, b, c in zip(least, usual, most)):
            return f"--shape-values {name}: {dims(least)}, {dims(usual)}, {dims(most)} are not in ascending order"
    for flag in ("min_shapes", "opt_shapes", "max_shapes", "shape_values", "io_types"):
        for name, _ in flatten(getattr(args, flag)):
            if name in bound:
                return f"--bind-input makes {name!r} a constant, so --{flag.replace('_', '-')} {name}:... cannot go with it"
    return ""


def _preprocessing_problem(args) -> str:
    for flag in ("mean", "std"):
        values = flatten(getattr(args, flag))
        if getattr(args, flag) and len(values) not in (1, 3, 4):
            return f"--{flag} takes one number, or one for each channel (1, 3 or 4): got {list(values)}"
    if any(value <= 0 for value in flatten(args.std)):
        return f"--std must be above 0: got {list(flatten(args.std))}"
    return ""


def _combination_problem(args) -> str:
    if args.validate_only and args.door is None:
        others = [flag for flag in typed_flags(args) if flag not in GO_WITH_VALIDATE_ONLY]
        if others:
            return f"--validate-only builds nothing, so {' and '.join(others)} cannot go with it"
        if args.precision == "best":
            return "--validate-only builds nothing, so --precision best cannot go with it"
    if args.no_validate and args.require_execution:
        return "--no-validate and --require-execution contradict each other"
    if args.no_validate and (args.compare or args.precision == "best"):
        return f"{'--compare' if args.compare else '--precision best'} measures, so --no-validate cannot go with it"
    if args.disable_strict_types and args.layer_precisions:
        return "--disable-strict-types keeps no layer in a higher precision, so --layer-precisions cannot go with it"
    if args.disable_tactic_sources and args.tactic_sources:
        return "--disable-tactic-sources and --tactic-sources contradict each other"
    if args.precision_constraints == "none" and args.layer_precisions:
        return "--precision-constraints none binds nothing, so --layer-precisions cannot go with it"
    if args.disable_strict_types and args.precision_constraints == "obey":
        return "--disable-strict-types and --precision-constraints obey contradict each other"
    if args.strongly_typed and args.quantization == "calibrator":
        return "--strongly-typed and --quantization calibrator contradict each other: calibrators need builder flags"
    if args.precision == "fp32" and args.layer_precisions:
        return "--layer-precisions needs --precision fp16 or int8: with fp32 every layer is FP32"
    archs = set(flatten(args.gpu_arch))
    if "75" in archs and len(archs) > 1:
        return "--gpu-arch: sm_75 makes an engine for several GPUs ten times larger; build its engine in a call of its own"
    return _path_problem(args)


def _path_problem(args) -> str:
    single = ("onnx", "output", "calibration_dir", "calibration_cache", "timing_cache", "test_image", "validation_dir")
    for dest in (*single, "save_onnx", "triton_repository", "json", "report", "validate_only", "inspect", "plugins"):
        given = getattr(args, dest)
        for value in given if isinstance(given, list) else [given]:
            if value is not None and (not value or "\0" in value):
                return f"{flag_name(args, dest)} is empty or holds a NUL character: {value!r}"
    return ""


def flag_name(args, dest: str) -> str:
    """What the user knows an argument by."""
    return args.named.get(dest) or f"--{dest.replace('_', '-')}"


def _output_problem(args) -> str:
    if args.door == "preprocess":
        files = _preprocessed_files(args)
        if args.output and not args.output.lower().endswith(ARRAY_SUFFIXES):
            return f"--output must end with .npy or .npz: got {args.output}"
    else:
        files = _engine_files(args) if args.door is None and not args.validate_only else []
        if files and files[0][1].endswith(("/", os.sep)):
            return f"--output names a folder: {files[0][1]}"
    if args.json and args.json != "-" and _real(args.json) not in [_real(path) for flag, path in files if flag == SIDE_FILE]:
        files.append(("--json", args.json))
    files += [("--report", args.report), ("--calibration-cache", args.calibration_cache)]
    if args.calibration_cache:
        files.append(("--calibration-cache's side file", args.calibration_cache + ".json"))
        files.append(("--calibration-cache's fit file", args.calibration_cache + ".fit.npz"))
    if args.timing_cache and args.timing_cache != NO_TIMING_CACHE:
        files += [("--timing-cache", args.timing_cache), ("--timing-cache's lock file", lock_path(args.timing_cache))]
    files += [(flag_name(args, dest), getattr(args, dest)) for dest in ("onnx", "test_image", "validate_only")]
    seen: dict[str, str] = {}
    for flag, path in files:
        if path and seen.setdefault(_real(path), flag) != flag:
            return f"{flag} and {seen[_real(path)]} name the same file: {path}"
    return ""


TRITON_FILES = (os.path.join("1", "model.plan"), "config.pbtxt")
SIDE_FILE = "--output's side file"  # --json may name it: both hold the same


def _engine_files(args) -> list[tuple[str, str | None]]:
    """(flag, path) of what is written beside reports and caches where an engine is built; the engine first."""
    engine, model = engine_path(args), triton_model(args)
    served = [("--triton-repository", os.path.join(model, name)) for name in TRITON_FILES] if model else []
    rejected = [("--keep-failed", engine + ".rejected")] if args.keep_failed else []
    return [("--output", engine), (SIDE_FILE, engine + ".json"), ("--save-onnx", args.save_onnx), *rejected, *served]


def engine_path(args) -> str | None:
    """The engine's file name: --output, else the model's stem + .engine in the current folder; None where none is built."""
    if args.door or args.validate_only:
        return None
    return args.output or os.path.splitext(os.path.basename(args.onnx))[0] + ".engine"


def triton_model(args) -> str | None:
    """The model's folder in the repository of --triton-repository: named as the engine is, without its suffix."""
    if not args.triton_repository:
        return None
    return os.path.join(args.triton_repository, os.path.splitext(os.path.basename(engine_path(args)))[0])


def _preprocessed_files(args) -> list[tuple[str, str | None]]:
    return [("--output", args.output), ("--output's image", args.output and image_beside(args.output))]


def _real(path: str) -> str:
    return os.path.realpath(path)
