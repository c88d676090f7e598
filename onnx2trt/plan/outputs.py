"""The files that a run writes, by the flags alone: their names, and whether two flags name one file."""

from __future__ import annotations

import os

from onnx2trt.base.locks import lock_path
from onnx2trt.plan.argument_types import flatten
from onnx2trt.plan.argument_words import flag_of
from onnx2trt.plan.arguments import NO_TIMING_CACHE
from onnx2trt.plan.door_arguments import ARRAY_SUFFIXES, image_beside


def flag_name(args, dest: str) -> str:
    """What the user knows an argument by."""
    return args.named.get(dest) or flag_of(dest)


def output_problem(args) -> str:
    if args.door == "preprocess":
        files = _preprocessed_files(args)
        if args.output and not args.output.lower().endswith(ARRAY_SUFFIXES):
            return f"--output must end with .npy or .npz: got {args.output}"
    else:
        files = _engine_files(args) if args.door is None and not args.validate_only else []
        if files and files[0][1].endswith(("/", os.sep)):
            return f"--output names a folder: {files[0][1]}"
    if args.json and args.json != "-" and real(args.json) not in [real(path) for flag, path in files if flag == SIDE_FILE]:
        files.append(("--json", args.json))
    files += [("--report", args.report), ("--calibration-cache", args.calibration_cache)]
    if args.calibration_cache:
        files.append(("--calibration-cache's side file", args.calibration_cache + ".json"))
        files.append(("--calibration-cache's fit file", args.calibration_cache + ".fit.npz"))
    if args.timing_cache and args.timing_cache != NO_TIMING_CACHE:
        files += [("--timing-cache", args.timing_cache), ("--timing-cache's lock file", lock_path(args.timing_cache))]
    files += [(flag_name(args, dest), getattr(args, dest)) for dest in ("onnx", "test_image", "validate_only")]
    files += [("--plugins", path) for path in args.plugins]
    files += [("--bind-input", value) for _, value in flatten(args.bind_input) if value.endswith(ARRAY_SUFFIXES)]
    seen: dict[str, str] = {}
    for flag, path in files:
        if path and seen.setdefault(real(path), flag) != flag:
            return f"{flag} and {seen[real(path)]} name the same file: {path}"
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


def real(path: str) -> str:
    return os.path.realpath(path)
