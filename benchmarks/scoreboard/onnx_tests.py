"""(a) The model tests of the onnx wheel: about 2000 models with inputs and right outputs, which none of us has written."""

from __future__ import annotations

import hashlib
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from .case import Case, load, shape_flags, write_arrays, write_samples

GROUP = "onnx"
KINDS = ("simple", "pytorch-converted", "pytorch-operator", "real")


def cases(work: Path, names: frozenset[str] | None = None) -> list[Case]:
    """Every model as a folder under `work`; made once for each version of onnx.

    Args:
        names: of some tests, where not all are wanted; they get a folder of their own.
    """
    some = "-" + hashlib.sha256(" ".join(sorted(names)).encode()).hexdigest()[:8] if names else ""
    root = work / f"onnx-{onnx.__version__}{some}"
    if not (root / "complete").exists():
        shutil.rmtree(root, ignore_errors=True)
        _write_all(root, names)
        (root / "complete").touch()
    return [load(folder.parent) for folder in sorted(root.glob("*/*/case.json"))]


def _write_all(root: Path, names: frozenset[str] | None) -> None:
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # overflows in the making of the tests, on purpose
        for test in _named(load_model_tests(kind="node"), names):
            inputs, outputs = ([_array(value) for value in values] for values in test.data_sets[0])
            _write(root / "node" / test.name, "node", test.model, inputs, outputs)
    for kind in KINDS:
        for test in _named(load_model_tests(kind=kind), names):
            try:
                _write(root / kind / test.name, kind, *_from_files(test))
            except (OSError, IndexError, ValueError) as error:
                print(f"{kind}/{test.name} cannot be read: {error}", file=sys.stderr)


def _named(tests: list, names: frozenset[str] | None) -> list:
    return [test for test in tests if names is None or test.name in names]


def _from_files(test) -> tuple[onnx.ModelProto, list, list]:
    """(model, inputs, outputs) of a test that lies in files; the light models have an output alone, of zeros or ones."""
    if test.model_dir is None:
        path = Path(onnx.__file__).parent.parent / test.url
        model = onnx.load(path)
        return model, _light_inputs(model), [_tensor(path.with_name(f"{path.stem}_output_0.pb"))]
    folder = Path(test.model_dir) / "test_data_set_0"
    arrays = {
        role: [_tensor(path) for path in sorted(folder.glob(f"{role}_*.pb"), key=lambda path: int(path.stem.split("_")[1]))]
        for role in ("input", "output")
    }
    return onnx.load(Path(test.model_dir) / "model.onnx"), arrays["input"], arrays["output"]


def _tensor(path: Path):
    """A tensor of a file, or None where it holds a sequence or an optional value."""
    try:
        return numpy_helper.to_array(onnx.load_tensor(path))
    except Exception:  # of protobuf or onnx, by what the file holds
        return None


def _array(value):
    """A tensor as an array; lists and what is not there as they are."""
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def _light_inputs(model: onnx.ModelProto) -> list[np.ndarray]:
    """As onnx.backend.test.runner makes them: 0, 1, 2, ... over the number of values."""
    weights = {tensor.name for tensor in model.graph.initializer}
    found = []
    for value in model.graph.input:
        if value.name not in weights:
            shape = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
            size = int(np.prod(shape))
            found.append((np.arange(size) / size).astype(np.float32).reshape(shape))
    return found


def _write(folder: Path, kind: str, model: onnx.ModelProto, inputs: list, outputs: list) -> None:
    weights = {tensor.name for tensor in model.graph.initializer}
    names = [value.name for value in model.graph.input if value.name not in weights or len(model.graph.input) == len(inputs)]
    write_arrays(folder, names, inputs, outputs)
    onnx.save(model, folder / "model.onnx")
    feed = {name: np.asarray(value) for name, value in zip(names, inputs) if isinstance(value, np.ndarray | np.generic)}
    data = write_samples(folder / "data", [feed]) if len(feed) == len(names) else None
    flags = shape_flags(model, feed) + ((f"--validation-dir={data}",) if data else ())
    Case(GROUP, kind, folder.name, str(folder), flags=flags, source="onnx").save()
