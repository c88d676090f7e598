"""What a result says of the engines that were built. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class VariantRow:
    """One of several engines that were built beside one another; None where it is not known."""

    precision: str
    status: str
    delivered: str | None
    int8_mac_share: float | None
    engine_bytes: int | None
    p50_ms: float | None
    p99_ms: float | None
    throughput_per_s: float | None
    drop_percent: float | None
    metric: str | None
    sqnr_db: float | None
    build_s: float
    error: str | None
    measured_on: str | None = None  # date, of a row that is remembered from an earlier run
    other_data: bool | None = None  # whether that was with other data than this run's
    moved_bytes: int | None = None  # as in EngineFile
    least_ms: dict[str, float] | None = None  # as in EngineFile
    structure: str | None = None  # of an INT8 engine, where several were built
    falls_short: str | None = None  # how far its outputs are off those of its simulation, where that is too far
    off_simulation_db: float | None = None  # by how much further they are from the model's, in the output where that is most
    fp8_mac_share: float | None = None

    optional: ClassVar = (
        *("measured_on", "other_data", "moved_bytes", "least_ms", "structure"),
        *("falls_short", "off_simulation_db", "fp8_mac_share"),
    )


@dataclass(frozen=True)
class EngineFile:
    """The engine that was written or looked at; what is None was not there to be known, or is for --inspect only."""

    path: str
    bytes: int
    sha256: str
    gpu_archs: list[str]
    weights_bytes: int | None = None
    kernels: int | None = None  # of one inference at the opt shapes, by the engine's own plan, as is moved_bytes
    moved_bytes: int | None = None  # that they read and write: an estimate of the traffic, no time
    fused_attentions: int | None = None  # of the kernels, those that compute a whole attention; None: none, or not known
    least_ms: dict[str, float] | None = None  # name of a GPU -> what bytes and arithmetic take by its data sheet: a bound, no time
    fp16_kernels: int | None = None  # the same of an FP16 engine, beside one that is INT8
    fp16_moved_bytes: int | None = None
    fp16_least_ms: dict[str, float] | None = None
    profiles: int | None = None
    device_memory_bytes: int | None = None
    tensors: list[dict] | None = None
    layers: int | None = None
    profile_shapes: list | None = None
    made_with: dict | None = None
    sources: list[str] | None = None
    loaded: bool | None = None
    not_loaded_because: str | None = None

    @property
    def optional(self) -> tuple[str, ...]:
        """What is left out where it is None: what no engine told, and all that is for --inspect only elsewhere."""
        of_inspect = () if self.loaded is not None else ("made_with", "sources", "loaded", "not_loaded_because")
        return (
            "weights_bytes",
            "kernels",
            "moved_bytes",
            "fused_attentions",
            "least_ms",
            "fp16_kernels",
            "fp16_moved_bytes",
            "fp16_least_ms",
            "profiles",
            "device_memory_bytes",
            "tensors",
            "layers",
            "profile_shapes",
            *of_inspect,
        )


@dataclass(frozen=True)
class Refittable:
    """What --refit needs to know of an engine that takes other weights."""

    flags: list[str]  # that the network was made with, as words of a command line
    network: dict  # fingerprint of the model (model.fingerprint): lines, values
    prepared: dict  # and of what the parser has read
    kept_fp32: dict[str, str]  # node -> reason
    exact_scales: bool  # the model's own Q/DQ scales stayed FP32
    other_weights: bool  # False: only those that it was built with
    stripped: bool  # the engine is without its weights
    refitted_from: dict | None = None  # path and sha256 of the engine that got other weights

    optional: ClassVar = ("refitted_from",)


@dataclass(frozen=True)
class ProfileRow:
    """One of several optimization profiles of an engine."""

    name: str
    inputs: list[dict]  # name, min, opt, max
    p50_ms: float | None  # at its opt shapes; None where it was not timed
    p99_ms: float | None
