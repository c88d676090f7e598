"""The Python interface: the command as two functions, with its flags as keywords.

Each call runs in a child process, as the command does: a crash of the library, or a signal to it, is an exception here.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, TypedDict

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.signals import ENDING
from onnx2trt.base.system import check_system

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from onnx2trt.report.result import Result

Path = str | os.PathLike[str]
Shapes = str | Sequence[str] | Mapping[str, Sequence[int]]


class Options(TypedDict, total=False):
    """Keywords of `convert`: the flags of the command, with underscores. `python -m onnx2trt --help` explains them.

    Flags that take pairs take a mapping, too: opt_shapes={"image": (1, 3, 224, 224)}, layer_precisions={"*/norm*": "fp32"}.
    """

    output: Path
    refit: Path
    backend: Literal["auto", "tensorrt", "tensorrt-rtx"]
    gpu_arch: str | Sequence[str]
    workspace_size: float
    imgsz: int | str | Sequence[int]
    max_batch_size: int
    min_shapes: Shapes
    opt_shapes: Shapes
    max_shapes: Shapes
    profile: str | Sequence[str]  # "small=x:1x3x224x224:4x3x224x224:8x3x224x224", each
    shape_values: str | Sequence[str] | Mapping[str, Sequence[int] | Sequence[Sequence[int]]]  # values, or (min, opt, max) of them
    bind_input: str | Sequence[str] | Mapping[str, object]  # input -> number, bool, list, array, or path of a .npy file
    precision: Literal["fp32", "fp16", "bf16", "int8", "fp8", "best"]
    compare: bool
    no_baseline: bool
    layer_precisions: str | Sequence[str] | Mapping[str, str]
    precision_constraints: Literal["prefer", "obey", "none"]
    disable_strict_types: bool
    strongly_typed: bool
    io_types: str | Sequence[str] | Mapping[str, str]
    tf32: bool
    builder_optimization_level: int
    timing_cache: Path
    tactic_sources: str | Sequence[str]
    disable_tactic_sources: bool
    dla_core: int
    plugins: Path | Sequence[Path]
    version_compatible: bool
    refittable: bool
    strip_weights: bool
    hardware_compatibility_level: Literal["none", "ampere_plus", "same_compute_capability"]
    calibration_dir: Path
    calibration_samples: int
    calibration_cache: Path
    accept_stale_cache: bool
    quantization: Literal["auto", "calibrator", "qdq"]
    calibration_method: Literal["auto", "entropy", "minmax", "percentile", "mse"]
    quantization_effort: Literal["fast", "default", "best"]
    input_range: Literal[1, 255]
    mean: float | Sequence[float]
    std: float | Sequence[float]
    color: Literal["rgb", "bgr", "gray"]
    resize: Literal["stretch", "letterbox", "crop"]
    validate: Path | Sequence[Path]
    test_image: Path
    validation_dir: Path
    max_accuracy_drop: float
    metric: str | Mapping[str, str]  # of all outputs that it fits, or output -> metric
    min_int8_share: float
    validate_only: Path
    no_validate: bool
    require_execution: bool
    keep_failed: bool
    save_onnx: Path
    triton_repository: Path
    json: Path
    report: Path
    detector: Literal["yolo", "yolov5", "none"]
    skip_unchanged: bool
    dry_run: bool
    verbose: bool | int
    quiet: bool


def convert(onnx: Path, **options: Unpack[Options]) -> Result:
    """Convert an ONNX model into a TensorRT engine, or do what else the flags ask for (dry_run, validate_only).

    Args:
        onnx: the model.
        options: see Options.

    Returns:
        What the command writes as JSON, typed.

    Raises:
        ConversionError: with the command's message and hint, its exit code as `code`, and what was found before as `result`.
        TypeError: for a keyword that is no flag.
        KeyboardInterrupt: Ctrl-C; the child is gone, and no file of it is left.
    """
    return _run({"onnx": onnx, **options})


def inspect(
    engine: Path, *, plugins: Sequence[Path] = (), json: Path | None = None, verbose: bool | int = False, quiet: bool = False
) -> Result:
    """What is in an engine file, and whether it loads here.

    Raises:
        ConversionError: as for `convert`.
    """
    return _run({"inspect": engine, "plugins": plugins, "json": json, "verbose": verbose, "quiet": quiet})


def _run(options: dict) -> Result:
    check_system()
    from onnx2trt.supervised import run_supervised, write_json

    arguments, json_path = _checked(options)
    with _own_signal_handlers():
        ended = run_supervised(arguments, json_path)
        problem = write_json(json_path, ended)
    if ended.interrupted == signal.SIGINT:
        raise KeyboardInterrupt
    if ended.interrupted:
        signal.raise_signal(ended.interrupted)  # the caller's own handlers are in force again
    if ended.result.error or problem:
        raise problem or _failure(ended.result)
    return ended.result


def _failure(result: Result) -> ConversionError:
    error = ConversionError(result.error.message, hint=result.error.hint, code=ExitCode(result.exit_code))
    error.result = result
    return error


def _checked(options: dict) -> tuple[list[str], str | None]:
    """(the command line, --json)

    Raises:
        ConversionError: USAGE, for values that the command line would refuse.
        TypeError: for a keyword that is no flag.
    """
    from onnx2trt.plan.arguments import build_parser
    from onnx2trt.plan.rules import flag_problem

    parser = build_parser()
    actions = {action.dest: action for action in parser._actions if action.dest != "help"}
    unknown = sorted(options.keys() - actions.keys())
    if unknown:
        raise TypeError(f"convert() got an unexpected keyword argument {unknown[0]!r}: keywords are the command's flags with underscores")

    def refuse(message: str):
        raise ConversionError(message, hint="Keywords take what the command's flags take.", code=ExitCode.USAGE)

    parser.error = refuse
    arguments = [word for name, value in options.items() for word in _words(actions[name], value)]
    args = parser.parse_args(arguments)
    problem = flag_problem(args)
    if args.json == "-":
        problem = "json='-' is for the command: here the result is returned"
    if problem:
        refuse(problem)
    return arguments, args.json


def _words(action, value) -> list[str]:
    """A keyword as words of the command line; none where it says what the default is."""
    flag = max(action.option_strings, key=len)
    if value is None or value is False and action.nargs == 0:
        return []
    if action.nargs == 0:
        if action.dest == "verbose" and value in (0, 1, 2):
            return [flag] * int(value)
        if value is not True:
            raise TypeError(f"{action.dest} is True or False, not {value!r}")
        return [flag]
    if isinstance(value, Mapping) and action.dest == "bind_input":
        value = [f"{name}={_value(part)}" for name, part in value.items()]
    elif isinstance(value, Mapping):
        value = [f"{name}:{_sizes(part)}" for name, part in value.items()]
    several = action.nargs == "+" or action.dest == "validate"
    if several and not isinstance(value, str | os.PathLike | int | float):
        return [f"{flag}={_text(part)}" for part in value]
    if not several and isinstance(value, Sequence) and not isinstance(value, str):
        value = ",".join(map(str, value))
    return [f"{flag}={_text(value)}"]


def _sizes(value) -> str:
    """(1, 3, 8, 8) as 1x3x8x8, and ((8, 8), (16, 16), (40, 40)) as 8x8:16x16:40x40."""
    if isinstance(value, str):
        return value
    parts = list(value)
    nested = any(hasattr(part, "__len__") and not isinstance(part, str) for part in parts)
    return ":".join(map(_sizes, parts)) if nested else "x".join(map(str, parts))


def _value(value) -> str:
    """What an input is bound to, as it is typed: {"sr": 16000}, {"mask": [True, False]}, {"table": numpy.ones(3)}, {"x": Path("x.npy")}."""
    if isinstance(value, str | os.PathLike):
        return os.fspath(value)
    plain = value.tolist() if hasattr(value, "tolist") else value
    return repr(plain)


def _text(value) -> str:
    return os.fspath(value) if isinstance(value, os.PathLike) else str(value)


@contextmanager
def _own_signal_handlers() -> Iterator[None]:
    """Whatever the supervision does with signals in the block, the caller's handlers are in force after it."""
    if threading.current_thread() is not threading.main_thread():  # handlers belong to the main thread, and are left alone here
        yield
        return
    handlers = {number: signal.getsignal(number) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
