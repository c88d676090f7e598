"""Every decision of a conversion, taken once: flags + capabilities of the library -> Plan. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.plan.argument_types import flatten
from onnx2trt.plan.build import Build, build_options, tactic_sources
from onnx2trt.plan.capabilities import Capabilities
from onnx2trt.plan.effects import Cell, effects_of, typed_flags
from onnx2trt.plan.efforts import EFFORTS
from onnx2trt.plan.outputs import engine_path, flag_name, triton_model
from onnx2trt.plan.parts import Calibration, Outputs, Preprocess, Shapes, Validation
from onnx2trt.plan.precision_arguments import WRITTEN
from onnx2trt.plan.refit import refuse_refit
from onnx2trt.plan.structures import Structure, candidates
from onnx2trt.plan.variants import fp8_beside, fp8_problem, variants_of

NATIVE_METHODS = ("entropy", "minmax")
LEAST_FP16_SHARE = 0.10  # of the work, for FP16 or BF16 to count as delivered; for INT8 --min-int8-share says it


class Route(Enum):
    """How the asked precision reaches TensorRT; nothing after make_plan looks at a version again."""

    WEAK = "weak typing"  # TensorRT 8.6 to 10: builder flags and layer precisions
    STRONG = "strong typing"  # TensorRT 11, TensorRT-RTX: the ONNX itself carries the precision


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
    baseline: bool  # INT8, or FP8, is held against FP16
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
    refit: str | None  # the engine that gets the weights of `onnx`; None: one is built
    effects: tuple[tuple[str, Cell], ...]  # typed flags that are translated or ignored here
    typed: tuple[str, ...]  # flags with another value than the default

    @property
    def by_plan(self) -> bool:
        """INT8 is held against FP16 by what the engines' own plans tell, since none can be timed."""
        held = self.baseline or len(self.variants) > 1
        return held and self.backend == "tensorrt-rtx" and not self.executes_here

    @property
    def attention(self) -> bool:
        """Whether 8 bits are tried on attention: of TensorRT 10.6 on an H200, a ViT-B took 1.51 of FP16 with FP8 there, 0.89 without."""
        if self.precision == "fp8":
            return self.backend == "tensorrt-rtx"
        return any(structure.attention for structure in self.structures)

    def for_precision(self, precision: str) -> Plan:
        """The plan of one of the variants; `WRITTEN` says which are strongly typed whatever the library."""
        own = replace(self, precision=precision)
        if precision not in WRITTEN:
            return own
        scales = precision == "fp8" or self.fp16_scales
        return replace(own, route=Route.STRONG, fp16_scales=scales, calibrator=False, native_method=None, structures=())


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
    refuse_refit(args, caps, archs)
    _refuse_impossible(args, caps, route, archs)
    keep_layers = not args.disable_strict_types and args.precision_constraints != "none"
    bf16 = not caps.no_bf16(archs)
    variants = variants_of(args, caps.executes(archs), bf16, fp8_beside(caps, archs))
    plan = Plan(
        door=args.door,
        onnx=args.onnx,
        precision=args.precision,
        variants=variants,
        compare=args.compare,
        backend=caps.backend,
        route=route,
        executes_here=caps.executes(archs),
        baseline=not args.no_baseline,
        gpu_archs=archs,
        workspace_bytes=int(args.workspace_size * 2**30),
        tactic_sources=tactic_sources(args, caps),
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
        build=build_options(args, caps),
        shapes=_shapes(args),
        preprocess=Preprocess(args.color, args.resize, args.input_range, flatten(args.mean), flatten(args.std)),
        calibration=_calibration(args),
        validation=_validation(args),
        outputs=_outputs(args),
        dry_run=args.dry_run,
        skip_unchanged=args.skip_unchanged,
        refit=args.refit,
        effects=effects,
        typed=tuple(typed_flags(args)),
    )
    return plan.for_precision(plan.precision) if variants == (plan.precision,) else plan


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


def _bounds_of(given: tuple[tuple[str, tuple], ...]) -> tuple[tuple, tuple, tuple]:
    """((input, (smallest, usual, largest)), ...) as pairs for --min-shapes, --opt-shapes and --max-shapes."""
    return tuple(tuple((name, sizes[place]) for name, sizes in given) for place in range(3))


def _shapes(args) -> Shapes:
    bounds = (flatten(getattr(args, f"{bound}_shapes")) for bound in ("min", "opt", "max"))
    profiles = tuple((name, Shapes(*_bounds_of(given), 1)) for name, given in args.profile)
    return Shapes(*bounds, args.max_batch_size, flatten(args.shape_values), flatten(args.bind_input), args.imgsz, profiles)


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
    problem = fp8_problem(caps, archs) if args.precision == "fp8" and not args.validate_only else ""
    if problem:
        raise ConversionError(f"--precision fp8: {problem}", hint="Use --precision int8 or fp16.", code=ExitCode.MACHINE)
    if args.precision == "bf16" and caps.no_bf16(archs):
        raise ConversionError(f"--precision bf16: {caps.no_bf16(archs)}", hint="Use --precision fp16 or fp32.", code=ExitCode.MACHINE)
    if args.require_execution and caps.backend and not caps.executes(archs):
        raise ConversionError(
            f"--require-execution: the engine could not be executed on this machine: {caps.driver_problem or _foreign_gpu(caps, archs)}",
            hint="Convert on a machine with the target GPU, or leave the flag out.",
            code=ExitCode.MACHINE,
        )


def _foreign_gpu(caps: Capabilities, archs: tuple[str, ...]) -> str:
    return f"its GPU is a {caps.gpu} ({caps.gpu_arch}), the engine is for {', '.join(archs) or 'TensorRT-RTX GPUs'}"


def _outputs(args) -> Outputs:
    others = (args.keep_failed, args.save_onnx, args.json, args.report, _array_path(args))
    return Outputs(engine_path(args), *others, triton_model(args), args.detector)


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
