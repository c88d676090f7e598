"""What the rooms say to each other about a model: names, shapes, types. Values only."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the parent process has no use for it
    import numpy as np

STANDARD_DOMAINS = ("", "ai.onnx")  # two names of the domain of ONNX's own operators


@dataclass(frozen=True)
class TensorSpec:
    """One input or output as the ONNX declares it."""

    name: str
    shape: tuple[int | str | None, ...] | None  # a free dimension is its symbol or None; None: rank unknown
    dtype: str  # numpy's name: float32, uint8, int64, bool, ...

    @property
    def dynamic(self) -> bool:
        return self.shape is None or any(not isinstance(dim, int) for dim in self.shape)

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Whether an array of this shape is what was declared; of an unknown rank, any is."""
        if self.shape is None:
            return True
        return len(shape) == len(self.shape) and all(not isinstance(dim, int) or dim == size for dim, size in zip(self.shape, shape))


@dataclass(frozen=True)
class Profile:
    """Optimization profile of one input; for a fixed shape the three are equal."""

    name: str
    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]
    values: tuple[tuple[int, ...], ...] | None = None  # of an input whose values decide about shapes: the smallest, usual, largest ones
    parts: tuple[Profile, ...] = ()  # of each optimization profile, where there are several: this one then spans all, usual as in the first

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Whether a shape lies between the smallest and the largest."""
        return len(shape) == len(self.min) and all(a <= b <= c for a, b, c in zip(self.min, shape, self.max))

    def to_dict(self) -> dict:
        """As it stands in the result."""
        shapes = {"name": self.name, "min": self.min, "opt": self.opt, "max": self.max}
        return shapes if self.values is None else {**shapes, "values": dict(zip(("min", "opt", "max"), self.values))}


def spanning(groups: Sequence[tuple[Profile, ...]]) -> tuple[Profile, ...]:
    """One profile for each input that spans those of several optimization profiles.

    Args:
        groups: the inputs of each optimization profile, in the same order.
    """
    if len(groups) == 1:
        return groups[0]
    found = []
    for parts in zip(*groups):
        least = tuple(map(min, zip(*(part.min for part in parts))))
        most = tuple(map(max, zip(*(part.max for part in parts))))
        found.append(Profile(parts[0].name, least, parts[0].opt, most, _spanned(parts), parts))
    return tuple(found)


def _spanned(parts: tuple[Profile, ...]) -> tuple[tuple[int, ...], ...] | None:
    """Values that decide about shapes, over several optimization profiles."""
    if any(part.values is None for part in parts):
        return None
    least, most = (tuple(map(pick, zip(*(part.values[place] for part in parts)))) for pick, place in ((min, 0), (max, 2)))
    return least, parts[0].values[1], most


def groups_of(profiles: tuple[Profile, ...]) -> tuple[tuple[Profile, ...], ...]:
    """The inverse of spanning: the inputs of each optimization profile."""
    count = min((len(profile.parts) for profile in profiles), default=0)
    return tuple(tuple(profile.parts[index] for profile in profiles) for index in range(count)) or (profiles,)


@dataclass(frozen=True, eq=False)
class BoundInput:
    """An input of the ONNX that --bind-input has made a constant."""

    spec: TensorSpec
    value: np.ndarray  # of spec.dtype, C-contiguous
    text: str  # as typed


@dataclass(frozen=True)
class ModelInfo:
    """What preflight found in the --onnx file."""

    path: str
    sha256: str  # of the file, or of the file and its external data files in name order
    bytes: int  # with external data
    opset: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    nodes: int
    quantized: bool  # carries QuantizeLinear / DequantizeLinear
    half: bool  # carries FP16 tensors
    warnings: tuple[str, ...] = field(default=())
    adopted: bool = False  # what is converted was rewritten on reading (rewrite/adopt.py)
    metadata: dict[str, str] = field(default_factory=dict)  # what the exporter has written beside the graph
    bound: tuple[BoundInput, ...] = ()  # inputs that are constants now; they are not among `inputs`
    external: tuple[str, ...] = ()  # paths of the files that hold its data

    @property
    def identity(self) -> str:
        """SHA-256 of what is converted: of the file, or of the file and the values that its inputs are bound to."""
        if not self.bound:
            return self.sha256
        digest = hashlib.sha256(self.sha256.encode())
        for entry in sorted(self.bound, key=lambda entry: entry.spec.name):
            digest.update(f"\0{entry.spec.name}\0{entry.spec.dtype}\0{entry.value.shape}\0".encode() + entry.value.tobytes())
        return digest.hexdigest()

    @property
    def constants(self) -> dict[str, np.ndarray]:
        """Name -> value of the bound inputs."""
        return {entry.spec.name: entry.value for entry in self.bound}


@dataclass(frozen=True)
class ImageInput:
    """The one input that takes an image, with the size that images are brought to."""

    name: str
    layout: str  # NCHW | NHWC
    batch: int  # images in one inference: the fixed batch, or 1 where it is free
    channels: int
    height: int
    width: int
    dtype: str  # float32 | float16 | uint8


@dataclass(frozen=True)
class NodeInfo:
    """A node of a model, wherever in it, to be named where it is at fault."""

    name: str
    operator: str
    domain: str
    inputs: tuple[str, ...]
    outermost: bool  # of the graph itself, not of a graph or function inside it


def dims(shape) -> str:
    """(1, 3, 'h', None) -> '1x3xhx?', the form in which shapes are typed."""
    return "x".join("?" if dim is None else str(dim) for dim in shape) if shape else "scalar"
