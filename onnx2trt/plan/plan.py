"""Every decision of a conversion, taken once: flags + capabilities of the library -> Plan. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from onnx2trt.base.cache_folders import default_path
from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.plan.argument_types import flatten
from onnx2trt.plan.arguments import NO_TIMING_CACHE
from onnx2trt.plan.capabilities import Capabilities
from onnx2trt.plan.effects import Cell, effects_of, typed_flags
from onnx2trt.plan.efforts import EFFORTS, Effort
from onnx2trt.plan.outputs import engine_path, flag_name, triton_model
from onnx2trt.plan.structures import Structure, candidates

NATIVE_METHODS = ("entropy", "minmax")
BEST = "best"  # --precision best
LEAST_FP16_SHARE = 0.10  # of the work, for FP16 or BF16 to count as delivered; for INT8 --min-int8-share says it


class Route(Enum):
    """How the asked precision reaches TensorRT; nothing after make_plan looks at a version again."""

    WEAK = "weak typing"  # TensorRT 8.6 to 10: builder flags and layer precisions
    STRONG = "strong typing"  # TensorRT 11, TensorRT-RTX: the ONNX itself carries the precision


@dataclass(frozen=True)
class Preprocess:
    """What the user said about images; the size and the layout come from the model."""

    color: str | None
    resize: str
    input_range: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Shapes:
    """Flags about inputs as typed: (input name or "", dims) pairs."""

    min: tuple
    opt: tuple
    max: tuple
    max_batch: int
    shape_values: tuple[tuple[str, tuple], ...] = ()  # (input, (min, opt, max) of its values)
    bind_input: tuple[tuple[str, str], ...] = ()  # (input, the value that makes it a constant)
    image_size: tuple[int, int] | None = None  # (height, width) of images, where the model leaves them free


@dataclass(frozen=True)
class Calibration:
    directory: str | None
    samples: int
    cache: str | None
    method: str
    accept_stale: bool
    effort: Effort


@dataclass(frozen=True)
class Validation:
    enabled: bool
    test_image: str | None
    directory: str | None
    max_drop_percent: float
    metric: tuple[tuple[str, str], ...]  # (output, "" for all that it fits; the metric), the last counts
    require_execution: bool
    engine: str | None  # of --validate-only
    flags: tuple[str, str] = ("--test-image", "--validation-dir")  # that the file and the folder were given with, for messages


@dataclass(frozen=True)
class Outputs:
    engine: str | None  # None: nothing is built
    keep_failed: bool
    save_onnx: str | None
    json: str | None
    report: str | None
    array: str | None  # of preprocess
    triton_model: str | None = None  # the model's folder in a Triton repository

    @property
    def side_file(self) -> str | None:
        return self.engine and self.engine + ".json"


@dataclass(frozen=True)
class Build:
    """Builder options that need no other decision."""

    precision_constraints: str  # prefer | obey | none
    optimization_level: int | None
    timing_cache: str | None  # None: kernel timings are not kept
    timing_cache_named: bool  # by the user, so it must be possible to write it
    dla_core: int | None
    plugins: tuple[str, ...]
    version_compatible: bool
    hardware_compatibility: str  # none | ampere_plus | same_compute_capability


@dataclass(frozen=True)
class Plan:
    door: str | None  # the part of the job that is done; None: the whole job
    onnx: str
    precision: str
    variants: tuple[str, ...]  # precisions to build, what was asked for first; more than one are compared
    compare: bool  # the user wants to see all of them
    backend: str | None
    route: Route
    executes_here: bool  # the engine can be run on the GPU of this machine
    gpu_archs: tuple[str, ...]  # as 8.9
    workspace_bytes: int
    tactic_sources: tuple[str, ...] | None  # None: the library's default
    tf32: bool
    keep_layers: bool  # False: nothing is kept in a higher precision
    layer_precisions: tuple[tuple[str, str], ...]
    io_types: tuple[tuple[str, str], ...]  # (input or output, fp32 | fp16)
    min_int8_share: float  # of the multiply-accumulates, 0..1, for INT8 to count as delivered
    structures: tuple[Structure, ...]  # of INT8, to be measured against each other; none: what is built follows a rule
    calibrator: bool  # INT8 by TensorRT's calibrator, not by Q/DQ; where structures are measured, the one at hand
    bf16: bool  # the library and the GPUs have it
    fp16_scales: bool  # Q/DQ with FP16 scales; rewrite.strong_typing says why TensorRT 10 gets FP32 ones
    native_method: str | None  # what TensorRT's calibrator shall compute itself; None: it gets our scales
    build: Build
    shapes: Shapes
    preprocess: Preprocess
    calibration: Calibration
    validation: Validation
    outputs: Outputs
    dry_run: bool
    skip_unchanged: bool
    effects: tuple[tuple[str, Cell], ...]  # typed flags that are translated or ignored here
    typed: tuple[str, ...]  # flags with another value than the default


def make_plan(args, caps: Capabilities) -> Plan:
    """All rules between flags and capabilities.

    Args:
        args: the parsed command line (plan.arguments), already through check_arguments.
        caps: the probed library and machine.

    Raises:
        ConversionError: MACHINE for what this library or machine cannot do.
    """
    route = Route.WEAK if caps.weak_typing and not args.strongly_typed else Route.STRONG
    # first: it refuses flags that the rest takes for given
    effects = effects_of(args, caps.backend, caps.weak_typing) if caps.backend else ()
    archs = _gpu_archs(flatten(args.gpu_arch), caps)
    _refuse_impossible(args, caps, route, archs)
    keep_layers = not args.disable_strict_types and args.precision_constraints != "none"
    bf16 = not caps.no_bf16(archs)
    variants = _variants(args, caps.executes(archs), bf16)
    return Plan(
        door=args.door,
        onnx=args.onnx,
        precision=args.precision,
        variants=variants,
        compare=args.compare,
        backend=caps.backend,
        route=route,
        executes_here=caps.executes(archs),
        gpu_archs=archs,
        workspace_bytes=int(args.workspace_size * 2**30),
        tactic_sources=_tactic_sources(args, caps),
        tf32=args.tf32,
        keep_layers=keep_layers,
        layer_precisions=flatten(args.layer_precisions),
        io_types=flatten(args.io_types),
        min_int8_share=args.min_int8_share / 100,
        structures=_structures(args, route, caps.executes(archs) and len(variants) > 1, keep_layers),
        calibrator=route is Route.WEAK and args.quantization != "qdq",
        bf16=bf16,
        fp16_scales=not caps.weak_typing,
        native_method=_native_method(args),
        build=_build_options(args, caps),
        shapes=_shapes(args),
        preprocess=Preprocess(args.color, args.resize, args.input_range, flatten(args.mean), flatten(args.std)),
        calibration=_calibration(args),
        validation=_validation(args),
        outputs=_outputs(args),
        dry_run=args.dry_run,
        skip_unchanged=args.skip_unchanged,
        effects=effects,
        typed=tuple(typed_flags(args)),
    )


def _calibration(args) -> Calibration:
    folder, samples, cache = args.calibration_dir, args.calibration_samples, args.calibration_cache
    return Calibration(folder, samples, cache, args.calibration_method, args.accept_stale_cache, EFFORTS[args.quantization_effort])


def _validation(args) -> Validation:
    return Validation(
        enabled=not args.no_validate,
        test_image=args.test_image,
        directory=args.validation_dir,
        max_drop_percent=args.max_accuracy_drop,
        metric=tuple(dict(flatten(args.metric)).items()),
        require_execution=args.require_execution,
        engine=args.validate_only,
        flags=(flag_name(args, "test_image"), flag_name(args, "validation_dir")),
    )


def _shapes(args) -> Shapes:
    bounds = (flatten(getattr(args, f"{bound}_shapes")) for bound in ("min", "opt", "max"))
    return Shapes(*bounds, args.max_batch_size, flatten(args.shape_values), flatten(args.bind_input), args.imgsz)


def _variants(args, executes: bool, bf16: bool) -> tuple[str, ...]:
    """--compare: all. best: what can win; FP32 only where nothing else passes. INT8 on a GPU: FP16, too, to say what INT8 is good for."""
    calibrated = args.calibration_dir or args.calibration_cache
    half = ("fp16", "bf16") if bf16 else ("fp16",)
    asked = ((*half, "int8") if calibrated else half) if args.precision == BEST else (args.precision,)
    if args.compare:
        return tuple(dict.fromkeys((*asked, "fp32", *half, "int8")))
    baseline = not (args.no_baseline or args.no_validate or args.validate_only) and args.precision == "int8" and executes
    return (*asked, "fp16") if baseline else asked


def _structures(args, route: Route, timed: bool, bind: bool) -> tuple[Structure, ...]:
    """None where engines are not timed against each other, TensorRT calibrates by itself, or one build has to do."""
    alone = _native_method(args) is not None and args.quantization != "qdq"
    if route is not Route.WEAK or not timed or alone or EFFORTS[args.quantization_effort].builds == 1:
        return ()
    return candidates(args.quantization, bind)


def _native_method(args) -> str | None:
    """auto is measured on the CPU, and so are the methods that TensorRT's calibrators do not have."""
    if args.calibration_method in NATIVE_METHODS:
        return args.calibration_method
    return NATIVE_METHODS[0] if args.plugins and args.calibration_method == "auto" else None  # ONNX Runtime does not have the plugins


def _refuse_impossible(args, caps: Capabilities, route: Route, archs: tuple[str, ...]) -> None:
    if caps.backend == "tensorrt" and caps.driver_problem:
        raise ConversionError(
            f"TensorRT {caps.version} needs a GPU to build, but {caps.driver_problem}",
            hint="With --backend tensorrt-rtx an engine for TensorRT-RTX (GeForce and RTX GPUs) can be built without one.",
            code=ExitCode.MACHINE,
        )
    if args.quantization == "calibrator" and not (route is Route.WEAK and caps.calibrators):
        raise ConversionError(
            f"--quantization calibrator: {caps.backend} {caps.version} has no calibrator",
            hint="Leave the flag out: INT8 is then reached by Q/DQ. Calibrators are in TensorRT 8.6 to 10.",
            code=ExitCode.MACHINE,
        )
    if args.precision == "bf16" and caps.no_bf16(archs):
        raise ConversionError(f"--precision bf16: {caps.no_bf16(archs)}", hint="Use --precision fp16 or fp32.", code=ExitCode.MACHINE)
    if args.precision == BEST and not caps.executes(archs):
        raise ConversionError(
            f"--precision best takes what is fastest, but no engine can be timed here: {caps.driver_problem or _foreign_gpu(caps, archs)}",
            hint="Name a precision (--compare shows sizes and accuracy), or convert on a machine with the target GPU.",
            code=ExitCode.MACHINE,
        )
    if args.require_execution and caps.backend and not caps.executes(archs):
        raise ConversionError(
            f"--require-execution: the engine could not be executed on this machine: {caps.driver_problem or _foreign_gpu(caps, archs)}",
            hint="Convert on a machine with the target GPU, or leave the flag out.",
            code=ExitCode.MACHINE,
        )


def _build_options(args, caps: Capabilities) -> Build:
    level = args.hardware_compatibility_level
    if level != "none" and level.upper() not in caps.hardware_levels:
        raise ConversionError(
            f"{caps.backend} {caps.version} has no hardware compatibility level {level}",
            hint=f"It knows {', '.join(sorted(caps.hardware_levels)).lower()}.",
            code=ExitCode.MACHINE,
        )
    return Build(
        precision_constraints="none" if args.disable_strict_types else args.precision_constraints,
        optimization_level=args.builder_optimization_level,
        timing_cache=_timing_cache(args, caps),
        timing_cache_named=args.timing_cache not in (None, NO_TIMING_CACHE),
        dla_core=args.dla_core,
        plugins=tuple(args.plugins),
        version_compatible=args.version_compatible,
        hardware_compatibility=level,
    )


def _timing_cache(args, caps: Capabilities) -> str | None:
    """TensorRT-RTX times nothing at build time, so it has no use for one."""
    if caps.backend != "tensorrt" or args.timing_cache == NO_TIMING_CACHE:
        return None
    return args.timing_cache or default_path(caps.cache_folder, caps.backend, caps.version, caps.gpu, caps.gpu_arch)


def _tactic_sources(args, caps: Capabilities) -> tuple[str, ...] | None:
    """None: as the library has them."""
    if caps.backend != "tensorrt" or not (args.disable_tactic_sources or args.tactic_sources):
        return None
    names = () if args.disable_tactic_sources else args.tactic_sources
    unknown = [name for name in names if name not in caps.tactic_sources]
    if unknown:
        raise ConversionError(
            f"--tactic-sources {', '.join(unknown)}: {caps.backend} {caps.version} knows {', '.join(sorted(caps.tactic_sources))}",
            hint="cuBLAS and cuDNN left TensorRT with version 11.",
            code=ExitCode.MACHINE,
        )
    return names


def _foreign_gpu(caps: Capabilities, archs: tuple[str, ...]) -> str:
    return f"its GPU is a {caps.gpu} ({caps.gpu_arch}), the engine is for {', '.join(archs) or 'TensorRT-RTX GPUs'}"


def _outputs(args) -> Outputs:
    others = (args.keep_failed, args.save_onnx, args.json, args.report, _array_path(args))
    return Outputs(engine_path(args), *others, triton_model(args))


def _array_path(args) -> str | None:
    return args.output if args.door == "preprocess" else None


def _gpu_archs(archs: tuple[str, ...], caps: Capabilities) -> tuple[str, ...]:
    """('89',) -> ('8.9',), each known to the library, in the order typed and without repeats."""
    unknown = [arch for arch in archs if f"SM{arch}" not in caps.compute_capabilities]
    if unknown:
        known = sorted(int(name[2:]) for name in caps.compute_capabilities if name[2:].isdigit())
        raise ConversionError(
            f"{caps.backend} {caps.version} cannot build for {', '.join('sm_' + arch for arch in unknown)}",
            hint="It knows " + ", ".join(f"sm_{arch}" for arch in known) + "; without --gpu-arch the engine is portable (8.0 and newer).",
            code=ExitCode.MACHINE,
        )
    return tuple(dict.fromkeys(f"{arch[:-1]}.{arch[-1]}" for arch in archs))
