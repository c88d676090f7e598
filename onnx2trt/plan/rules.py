"""Rules between flags: which combinations are wrong by themselves."""

from __future__ import annotations

from onnx2trt.base.model_info import dims
from onnx2trt.plan.argument_types import flatten
from onnx2trt.plan.argument_words import flag_of
from onnx2trt.plan.effects import typed_flags
from onnx2trt.plan.outputs import flag_name, output_problem, real
from onnx2trt.plan.precision_arguments import FP8_METHODS, LAYER_PRECISIONS
from onnx2trt.plan.refit import refit_problem


def flag_problem(args) -> str:
    """The first thing wrong with the flags by themselves, in words; empty where they are right."""
    if args.inspect is not None:
        return _inspect_problem(args)
    for check in (_shape_problem, _binding_problem, _preprocessing_problem, _combination_problem, refit_problem, output_problem):
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
    *("--json", "--report", "--detector", "--verbose", "--quiet"),
)
GO_WITH_INSPECT = ("--inspect", "--plugins", "--json", "--verbose", "--quiet")


def _inspect_problem(args) -> str:
    others = [flag for flag in typed_flags(args) if flag not in GO_WITH_INSPECT]
    if others:
        return f"--inspect only reads an engine, so {' and '.join(others)} cannot go with it"
    if args.json and args.json != "-" and real(args.json) in (real(args.inspect), real(args.inspect + ".json")):
        return f"--json and --inspect name the same file: {args.json}"
    return _path_problem(args)


def _profile_problem(args) -> str:
    """Several profiles say all that other flags say of one."""
    names = [name for name, _ in args.profile]
    if len(set(names)) != len(names):
        return f"--profile names a profile twice: {names}"
    others = {"imgsz": None, "max_batch_size": 1, "min_shapes": [], "opt_shapes": [], "max_shapes": [], "triton_repository": None}
    beside = [flag_name(args, dest) for dest, default in others.items() if names and getattr(args, dest) != default]
    bound = {name for name, _ in flatten(args.bind_input)}
    twice = next((entry for _, given in args.profile for entry, _ in given if entry in bound), None)
    if twice is not None:
        return f"--bind-input makes {twice!r} a constant, so --profile cannot give it shapes"
    return f"--profile gives all shapes, so {' and '.join(beside)} cannot go with it" if beside else ""


def _shape_problem(args) -> str:
    problem = _profile_problem(args)
    if problem:
        return problem
    bounds = {}
    for flag in ("min_shapes", "opt_shapes", "max_shapes"):
        pairs = flatten(getattr(args, flag))
        bounds[flag] = dict(pairs)
        if len(bounds[flag]) != len(pairs):
            return f"{flag_of(flag)} names an input twice: {[name for name, _ in pairs]}"
    for low, high in (("min_shapes", "opt_shapes"), ("opt_shapes", "max_shapes"), ("min_shapes", "max_shapes")):
        for name in bounds[low].keys() & bounds[high].keys():
            a, b = bounds[low][name], bounds[high][name]
            if len(a) != len(b) or any(x > y for x, y in zip(a, b)):
                return f"{flag_of(low)} {name}:{dims(a)} is not within {flag_of(high)} {dims(b)}"
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
                return f"--bind-input makes {name!r} a constant, so {flag_of(flag)} {name}:... cannot go with it"
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
    if args.precision == "fp8" and args.quantization == "calibrator":
        return "--precision fp8 and --quantization calibrator contradict each other: TensorRT's calibrators make INT8 alone"
    if args.precision == "fp8" and args.calibration_method not in FP8_METHODS:
        return f"--calibration-method {args.calibration_method} is made for INT8; --precision fp8 takes {', '.join(FP8_METHODS)}"
    if args.precision == "fp32" and args.layer_precisions:
        return "--layer-precisions needs --precision fp16, bf16, int8 or fp8: with fp32 every layer is FP32"
    other = next((named for named in flatten(args.layer_precisions) if named[1] not in LAYER_PRECISIONS.get(args.precision, named)), None)
    if other:
        known = " or ".join(LAYER_PRECISIONS[args.precision])
        return f"--layer-precisions {':'.join(other)} cannot go with --precision {args.precision}: there, layers are bound to {known}"
    archs = set(flatten(args.gpu_arch))
    if "75" in archs and len(archs) > 1:
        return "--gpu-arch: sm_75 makes an engine for several GPUs ten times larger; build its engine in a call of its own"
    return _path_problem(args)


def _path_problem(args) -> str:
    single = ("onnx", "output", "calibration_dir", "calibration_cache", "timing_cache", "test_image", "validation_dir")
    for dest in (*single, "save_onnx", "triton_repository", "json", "report", "validate_only", "inspect", "refit", "plugins"):
        given = getattr(args, dest)
        for value in given if isinstance(given, list) else [given]:
            if value is not None and (not value or "\0" in value):
                return f"{flag_name(args, dest)} is empty or holds a NUL character: {value!r}"
    return ""
