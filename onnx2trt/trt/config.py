"""Plan -> builder config. Whatever TensorRT does not keep as it was set is a failure, never ignored."""

from __future__ import annotations

import warnings
from types import ModuleType

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.plan.plan import Plan, Route

PREFERENCES = {"prefer": "PREFER_PRECISION_CONSTRAINTS", "obey": "OBEY_PRECISION_CONSTRAINTS"}
MEMORY_UNIT = 2**30


def configure(trt: ModuleType, builder, config, plan: Plan) -> None:
    """Apply everything but profiles, calibrator and timing cache.

    Raises:
        ConversionError: BUILD where a setting is not kept, MACHINE for a DLA that is not there.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated members raise SystemError under -W error
        _set_workspace(trt, config, plan)
        for name, value in wanted_flags(trt, plan).items():
            _set_flag(trt, config, name, value)
        _set_tactics(trt, config, plan)
        _set_level(config, plan)
        _set_compatibility(trt, config, plan)
        _set_architectures(trt, config, plan)
        if plan.build.dla_core is not None:
            _set_dla(trt, builder, config, plan.build.dla_core)
        if plan.route is Route.WEAK or plan.executes_here:
            config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # so that layers and types can be read back


def wanted_flags(trt: ModuleType, plan: Plan) -> dict[str, bool]:
    """Builder flag -> value, in an order that TensorRT accepts (FP16 before constraints that speak of it)."""
    flags = {"TF32": plan.tf32}
    if plan.route is Route.WEAK:
        flags["FP16"] = plan.precision in ("fp16", "int8")  # INT8 falls back to FP16, not to FP32
        flags["INT8"] = plan.precision == "int8"
        for preference, name in PREFERENCES.items():
            flags[name] = plan.build.precision_constraints == preference
        if hasattr(trt.BuilderFlag, "GPU_FALLBACK"):
            flags["GPU_FALLBACK"] = True  # without effect but with a DLA
    if plan.build.version_compatible:
        flags["VERSION_COMPATIBLE"] = True
    if plan.build.refittable:
        flags["REFIT"] = True
    if plan.build.strip_weights:
        if not plan.build.refittable:
            flags["REFIT_IDENTICAL"] = True  # kernels may be chosen by the values of the weights, which have to come back
        flags["STRIP_PLAN"] = True
    return flags


def _set_flag(trt: ModuleType, config, name: str, value: bool) -> None:
    flag = getattr(trt.BuilderFlag, name)
    (config.set_flag if value else config.clear_flag)(flag)
    if config.get_flag(flag) != value:
        raise ConversionError(f"TensorRT did not {'set' if value else 'clear'} the builder flag {name}", code=ExitCode.BUILD)


def _set_workspace(trt: ModuleType, config, plan: Plan) -> None:
    pool = trt.MemoryPoolType.WORKSPACE
    config.set_memory_pool_limit(pool, plan.workspace_bytes)
    if config.get_memory_pool_limit(pool) != plan.workspace_bytes:
        raise ConversionError(f"TensorRT did not take a workspace of {plan.workspace_bytes / MEMORY_UNIT:g} GB", code=ExitCode.BUILD)


def _set_tactics(trt: ModuleType, config, plan: Plan) -> None:
    if plan.tactic_sources is None:
        return
    mask = sum(1 << int(getattr(trt.TacticSource, name)) for name in plan.tactic_sources)
    if not config.set_tactic_sources(mask) or config.get_tactic_sources() != mask:
        raise ConversionError(f"TensorRT did not take the tactic sources {', '.join(plan.tactic_sources) or 'none'}", code=ExitCode.BUILD)


def _set_level(config, plan: Plan) -> None:
    level = plan.build.optimization_level
    if level is not None:
        config.builder_optimization_level = level
        if config.builder_optimization_level != level:
            raise ConversionError(f"TensorRT did not take builder optimization level {level}", code=ExitCode.BUILD)


def _set_compatibility(trt: ModuleType, config, plan: Plan) -> None:
    level = plan.build.hardware_compatibility
    if level != "none":
        wanted = getattr(trt.HardwareCompatibilityLevel, level.upper())
        config.hardware_compatibility_level = wanted
        if config.hardware_compatibility_level != wanted:
            raise ConversionError(f"TensorRT did not take hardware compatibility level {level}", code=ExitCode.BUILD)


def _set_architectures(trt: ModuleType, config, plan: Plan) -> None:
    if not plan.gpu_archs:
        return
    config.num_compute_capabilities = len(plan.gpu_archs)
    for index, arch in enumerate(plan.gpu_archs):
        capability = getattr(trt.ComputeCapability, "SM" + arch.replace(".", ""))
        if not config.set_compute_capability(capability, index) or config.get_compute_capability(index) != capability:
            raise ConversionError(f"TensorRT-RTX did not take compute capability {arch}", code=ExitCode.BUILD)


def _set_dla(trt: ModuleType, builder, config, core: int) -> None:
    if core >= builder.num_DLA_cores:
        raise ConversionError(
            f"--dla-core {core}: this GPU has {builder.num_DLA_cores or 'no'} DLA cores",
            hint="DLAs are on Jetson and DRIVE modules; leave the flag out elsewhere.",
            code=ExitCode.MACHINE,
        )
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core
    if config.DLA_core != core:
        raise ConversionError(f"TensorRT did not take DLA core {core}", code=ExitCode.BUILD)
