"""The result of a run: typed, and as one JSON object (result.schema.json). Standard library only: the supervising parent writes it, too."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from onnx2trt.compare.accuracy import Accuracy
from onnx2trt.report.built import EngineFile, ProfileRow, Refittable, VariantRow

if TYPE_CHECKING:  # the parent has no use for it, and it takes its time to load
    from onnx2trt.base.errors import ConversionError

SCHEMA_VERSION = 2
RENAMED = {  # key of schema_version 1 -> key of 2
    "precision": {"kept_high": "fallback"},
    "plan": {"hold_layers": "keep_layers"},
    "timings_s": {"balance": "equalize"},
}
WORK_SHARES = ("fp8", "int8", "fp16", "bf16")  # precisions of which the result tells the share of the work, as int8_mac_share
SEAL = "result_sha256"  # of the key
# keys of version 2 that a record may lack
ADDED = ("candidate", "preprocessed", "not_validated_because", "latency_not_measured_because", "triton", "refit", "inferences_on")


def python_version() -> str:
    return ".".join(map(str, sys.version_info[:3]))


@dataclass(frozen=True)
class Failure:
    """Why a run has failed."""

    message: str
    hint: str


@dataclass(frozen=True)
class Environment:
    """Where a run took place."""

    backend: str | None = None  # tensorrt | tensorrt-rtx
    tensorrt: str | None = None  # its version
    gpu: str | None = None  # name and compute capability
    driver: str | None = None  # newest CUDA version that it supports
    python: str = field(default_factory=python_version)


@dataclass(frozen=True)
class ModelFile:
    """The --onnx file."""

    path: str
    sha256: str
    bytes: int
    opset: int
    nodes: int
    quantized: bool  # carries Q/DQ
    half: bool  # carries FP16 tensors
    inputs: list[dict]  # name, dtype, shape
    outputs: list[dict]
    bound: list[dict] | None = None  # inputs that --bind-input has made constants: name, dtype, shape, value as typed

    optional: ClassVar = ("bound",)


@dataclass(frozen=True)
class Precision:
    """What was asked for, and what the engine really is."""

    requested: str | None
    delivered: str | None = None
    int8_mac_share: float | None = None
    layers: dict[str, int] | None = None  # int8, fp16, fp32, and others that there are -> layers
    layers_source: str = "network"  # network | inspector
    fallback: list[dict] = field(default_factory=list)  # layers in a higher precision than asked for: name, precision, reason
    ignored_constraints: list[dict] = field(default_factory=list)  # name, asked, delivered
    tried: list[dict] | None = None  # choices of FP16 or BF16 layers that were measured
    fp16_mac_share: float | None = None
    fp8_mac_share: float | None = None
    bf16_mac_share: float | None = None

    optional: ClassVar = ("tried", "fp8_mac_share", "bf16_mac_share")


@dataclass(frozen=True)
class Calibration:
    """Where the INT8 scales come from."""

    method: str
    samples_used: int | None  # None: the scales come from the cache
    samples_skipped: int
    cache: str | None
    seconds: float
    peak_memory_mb: float | None  # largest resident size of the process, MB of 10**6 bytes
    tried: list[dict] | None = None  # choices of INT8 layers that were measured
    scales: int | None = None  # in the cache; of calibrate
    fit_file: str | None = None  # what goes with them, beside the cache; of calibrate
    profile: str | None = None  # whose usual shapes the samples were fed at, where there are several optimization profiles

    optional: ClassVar = ("tried", "scales", "fit_file", "profile")


@dataclass(frozen=True)
class Latency:
    """Times of single inferences of the engine on the GPU, in milliseconds."""

    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    runs: int
    shape: dict[str, list[int]]  # of each input
    covers: str  # what was timed, in words
    fp16_p50_ms: float | None = None  # of the FP16 engine that was timed in turn


@dataclass(frozen=True)
class TimingCache:
    """The kernel timings that are kept between builds."""

    path: str
    state: str  # new | read | replaced
    written: bool = False


@dataclass(frozen=True)
class Candidate:
    """What was made elsewhere, and is compared with the model: --validate-only, validate."""

    path: str
    sha256: str  # with its external data, as for the model
    bytes: int
    kind: str  # engine | onnx


@dataclass(frozen=True)
class Preprocessed:
    """What the network gets of a file: preprocess."""

    source: str
    inferences: int  # that the file is enough for; the first is described
    arrays: list[dict]  # name, dtype, shape, layout, and of each channel its range and mean
    image: dict | None  # how the image was fitted into the input; None for arrays
    written: dict[str, str]  # file -> SHA-256


@dataclass
class Result:
    """Everything that a run has to say; the pipeline fills it with what the stages return."""

    schema_version: int = SCHEMA_VERSION
    status: str = "failed"  # validated | simulated | not_validated | planned | inspected | calibrated | preprocessed | failed
    not_validated_because: str | None = None  # of that status
    exit_code: int = 1
    error: Failure | None = None
    model: ModelFile | None = None
    environment: Environment = field(default_factory=Environment)
    plan: dict | None = None
    preprocessing: dict | None = None
    preprocessed: Preprocessed | None = None
    precision: Precision | None = None
    calibration: Calibration | None = None
    candidate: Candidate | None = None
    accuracy: list[Accuracy] = field(default_factory=list)
    latency: Latency | None = None
    latency_not_measured_because: str | None = None  # where it was tried
    timing_cache: TimingCache | None = None
    variants: list[VariantRow] = field(default_factory=list)
    structures: list[VariantRow] = field(default_factory=list)  # INT8 engines of one choice of layers, of which one is delivered
    optimization_profiles: list[ProfileRow] = field(default_factory=list)  # where there are several
    engine: EngineFile | None = None
    skipped: bool = False
    key: dict[str, Any] | None = None
    saved_onnx: dict[str, str] | None = None  # what stands behind the name of --save-onnx -> SHA-256
    triton: dict | None = None
    refit: Refittable | None = None  # where the engine takes other weights
    inferences_on: str | None = None  # GPU | CPU | GPU and CPU: where ONNX Runtime computed the model; None where it did not
    timings_s: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def take(self, **found) -> None:
        """What a stage has found."""
        for name, value in found.items():
            if name not in FIELDS:
                raise AttributeError(f"a result has no {name!r}")
            setattr(self, name, value)

    def fail(self, error: ConversionError) -> None:
        """End with an error, and with what was found before it."""
        self.take(**error.found)
        self.take(status="failed", exit_code=int(error.code), error=Failure(error.message, error.hint))

    def seal(self) -> None:
        """Put the hash over all of it into its key, where it has one: --skip-unchanged takes no result that was damaged or changed."""
        if self.key is not None:
            self.key = {**self.key, SEAL: _hash(self.to_dict())}

    def variant(self) -> Result:
        """A result of its own for one of several engines: what all of them have in common is there."""
        return Result(model=self.model, environment=self.environment, plan=self.plan, preprocessing=self.preprocessing)

    def adopt(self, other: Result) -> None:
        """Be this one from now on."""
        self.take(**{name: getattr(other, name) for name in FIELDS})

    def to_dict(self) -> dict:
        """As it stands in the JSON."""
        return {name: _plain(getattr(self, name)) for name in FIELDS}

    @classmethod
    def from_dict(cls, record: dict) -> Result:
        """The inverse of to_dict; records of schema_version 1 are understood.

        Raises:
            ValueError: it is no result.
        """
        try:
            record = upgraded(record)
            values = {name: record[name] for name in FIELDS}
            parts = {name: part(**values[name]) for name, part in PARTS.items() if values[name] is not None}
            rows = {name: [row(**entry) for entry in values[name]] for name, row in ROWS.items()}
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not as a conversion writes it ({type(error).__name__}: {error})") from None
        return cls(**{**values, **parts, **rows})


FIELDS = tuple(entry.name for entry in fields(Result))
PARTS = {
    "error": Failure,
    "model": ModelFile,
    "environment": Environment,
    "precision": Precision,
    "calibration": Calibration,
    "candidate": Candidate,
    "preprocessed": Preprocessed,
    "latency": Latency,
    "timing_cache": TimingCache,
    "engine": EngineFile,
    "refit": Refittable,
}
ROWS = {"accuracy": Accuracy, "variants": VariantRow, "structures": VariantRow, "optimization_profiles": ProfileRow}


def _plain(value):
    """Dataclasses as dicts, without the optional parts that are not known."""
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    if not is_dataclass(value):
        return value
    return {name: part for name, part in asdict(value).items() if part is not None or name not in getattr(value, "optional", ())}


def intact(record: dict) -> bool | None:
    """Whether a result that was read is as it was sealed; None where it carries no seal.

    Raises:
        AttributeError, KeyError, TypeError: it is no result.
    """
    seal = (record["key"] or {}).get(SEAL)
    return None if seal is None else seal == _hash(record)


def _hash(record: dict) -> str:
    """SHA-256 over a result, but for its seal."""
    key = {name: value for name, value in record["key"].items() if name != SEAL}
    return hashlib.sha256(json.dumps({**record, "key": key}, sort_keys=True).encode()).hexdigest()


def upgraded(record: dict) -> dict:
    """A record of this schema_version, made of one of this or of version 1.

    Raises:
        ValueError: it is of another version.
    """
    record = {**dict.fromkeys(ADDED), "structures": [], "optimization_profiles": [], **record}
    if record["schema_version"] == SCHEMA_VERSION:
        return record
    if record["schema_version"] != 1:
        raise ValueError(f"schema_version {record['schema_version']}")
    renamed = {
        part: {names.get(key, key): value for key, value in record[part].items()} for part, names in RENAMED.items() if record.get(part)
    }
    return {**record, **renamed, "schema_version": SCHEMA_VERSION}


def to_json(result: Result) -> str:
    """Indented JSON text; file names that are not UTF-8 are escaped."""
    return json.dumps(result.to_dict(), indent=2, allow_nan=False) + "\n"


def mega(count: int) -> str:
    """A number of bytes for people."""
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
