"""One model of the scoreboard, as a folder: model.onnx, what goes in, and, where somebody shipped it, what comes out."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

NO_NPZ = "V"  # kind of the types that only ml_dtypes knows (BF16, FP8, INT4): an .npz gives them back as raw bytes
IN_FP32 = ("bfloat16", "float8_e4m3fn")  # of these, what the converter makes FP32 inputs of


@dataclass(frozen=True)
class Case:
    """A model and how it is converted. Everything else lies in its folder."""

    group: str  # onnx | wheels | exports
    kind: str  # of the group: "node", "object detection", "vision transformer"
    name: str
    folder: str
    model: str = "model.onnx"  # in the folder, or an absolute path
    precisions: tuple[str, ...] = ("fp32", "fp16")
    flags: tuple[str, ...] = ()  # shapes, and what else a user has to say
    source: str = ""  # where the model comes from

    @property
    def key(self) -> str:
        return f"{self.group}/{self.name}"

    @property
    def path(self) -> Path:
        return Path(self.folder) / self.model

    def feed(self) -> dict[str, np.ndarray]:
        """Input -> array, of what was shipped; lists, strings and absent optional values are left out."""
        names = json.loads((Path(self.folder) / "inputs.json").read_text())
        return {name: array for name, array in zip(names, self._arrays("input")) if isinstance(array, np.ndarray)}

    def expected(self) -> list[np.ndarray | None]:
        """The outputs that were shipped, in the model's order; None for what is no tensor."""
        return self._arrays("output")

    def _arrays(self, role: str) -> list[np.ndarray | None]:
        files = sorted(Path(self.folder).glob(f"{role}_*.pb"), key=lambda path: int(path.stem.rsplit("_", 1)[1]))
        return [_array(path) for path in files]

    def save(self) -> None:
        (Path(self.folder) / "case.json").write_text(json.dumps(asdict(self)))


def load(folder: Path) -> Case:
    about = json.loads((folder / "case.json").read_text())
    return Case(**{**about, "folder": str(folder), "precisions": tuple(about["precisions"]), "flags": tuple(about["flags"])})


def _array(path: Path) -> np.ndarray | None:
    data = path.read_bytes()
    return numpy_helper.to_array(onnx.TensorProto.FromString(data)) if data else None


def write_arrays(folder: Path, names: list[str], inputs: list, outputs: list) -> None:
    """inputs.json, input_N.pb and output_N.pb; what is no tensor becomes an empty file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "inputs.json").write_text(json.dumps(names))
    for role, values in (("input", inputs), ("output", outputs)):
        for index, value in enumerate(values):
            known = isinstance(value, np.ndarray | np.generic)
            (folder / f"{role}_{index}.pb").write_bytes(numpy_helper.from_array(np.asarray(value)).SerializeToString() if known else b"")


def write_samples(folder: Path, samples: list[dict[str, np.ndarray]]) -> Path | None:
    """A folder of .npz files for --calibration-dir and --validation-dir; None where no such file can hold them."""
    samples = [{name: _as_given(array) for name, array in sample.items()} for sample in samples]
    if not samples or not samples[0] or not all(map(_holds, samples[0].values())):
        return None
    folder.mkdir(parents=True, exist_ok=True)
    for index, sample in enumerate(samples):
        np.savez(folder / f"{index:03}.npz", **sample)
    return folder


def _as_given(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype.name in IN_FP32 else array


def _holds(array: np.ndarray) -> bool:
    """Whether a data file of the command may hold it: no types of ml_dtypes, no strings, no NaN."""
    return array.dtype.kind not in (NO_NPZ, "O", "U", "S") and (array.dtype.kind != "f" or bool(np.isfinite(array).all()))


def shape_flags(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> tuple[str, ...]:
    """--min-, --opt- and --max-shapes for the inputs with free dimensions, as the arrays have them."""
    weights = {tensor.name for tensor in model.graph.initializer}
    flags: list[str] = []
    for value in model.graph.input:
        shape = value.type.tensor_type
        free = not shape.HasField("shape") or any(not dim.HasField("dim_value") for dim in shape.shape.dim)
        if value.name in feed and value.name not in weights and free and feed[value.name].ndim:
            sizes = "x".join(map(str, feed[value.name].shape))
            flags += [f"--{bound}-shapes={value.name}:{sizes}" for bound in ("min", "opt", "max")]
    return tuple(flags)
