"""The part of the plan that goes to TensorRT's builder as it is."""

from __future__ import annotations

from dataclasses import dataclass

from onnx2trt.base.cache_folders import default_path
from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.plan.arguments import NO_TIMING_CACHE
from onnx2trt.plan.capabilities import Capabilities


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
    refittable: bool = False
    strip_weights: bool = False


def build_options(args, caps: Capabilities) -> Build:
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
        refittable=args.refittable,
        strip_weights=args.strip_weights,
    )


def _timing_cache(args, caps: Capabilities) -> str | None:
    """TensorRT-RTX times nothing at build time, so it has no use for one."""
    if caps.backend != "tensorrt" or args.timing_cache == NO_TIMING_CACHE:
        return None
    return args.timing_cache or default_path(caps.cache_folder, caps.backend, caps.version, caps.gpu, caps.gpu_arch)


def tactic_sources(args, caps: Capabilities) -> tuple[str, ...] | None:
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
