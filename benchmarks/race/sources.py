"""The networks by name, each with data: the model file, what calibrates it, and the arrays that engines are timed and compared on."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.race import process
from benchmarks.race.zoo import ZOO

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "ultralight_segmentation"
MADE_HERE = ("resnet50", "unet")  # benchmarks/networks.py
BATCH = {"example1": 1, "example16": 16}  # of the example network, whose batch is free
NAMES = (*MADE_HERE, *ZOO, "ppocr", *BATCH)
FEEDS = 4  # batches kept for TensorRT's own calibrator; the first of them is what engines are timed and compared on
FILES = 2  # batches that the networks made here are calibrated with


@dataclass(frozen=True)
class Source:
    """A network to measure."""

    name: str
    model: str = ""  # file; empty for a name of NAMES
    data: str = ""  # folder of images, or of .npz / .npy files
    shape: tuple[int, ...] = ()  # batch, or the whole shape of the only input, where the model leaves it free

    @property
    def made_up(self) -> bool:
        """Its weights are random, so that accuracy means nothing."""
        return not self.model and (self.name in ZOO or self.name in MADE_HERE)


def parse(text: str) -> Source:
    """NAME=MODEL.onnx:DATA_FOLDER, or with :BATCH or :1x3x224x224 behind it.

    Raises:
        ValueError: it is not of that form.
    """
    name, _, rest = text.partition("=")
    head, _, last = rest.rpartition(":")
    shape = ()
    if all(part.isdigit() for part in last.split("x")):
        shape = tuple(map(int, last.split("x")))
        head, _, last = head.rpartition(":")
    if not (name and head and last) or "/" in name:
        raise ValueError(f"{text!r} is not NAME=MODEL.onnx:DATA_FOLDER, with or without :BATCH or :1x3x224x224 behind it")
    return Source(name, str(Path(head).resolve()), str(Path(last).resolve()), shape)


def prepare(source: Source, folder: Path, limit: float) -> None:
    """FOLDER/model.onnx, FOLDER/calibration, FOLDER/feeds/*.npz, FOLDER/reference.npz and FOLDER/about.json; nothing is made twice.

    reference.npz holds what ONNX Runtime computes in FP32 from the first of the feeds; about.json the shapes of inputs that the
    model leaves free, and where models and data are.

    Raises:
        RuntimeError: a network of the zoo could not be exported.
    """
    if (folder / "about.json").exists():
        return
    model, data = (Path(source.model), Path(source.data)) if source.model else _write(source.name, folder, limit)
    batch = (BATCH[source.name],) if source.name in BATCH else source.shape
    feeds, free = make_feeds(model, data, batch)
    (folder / "feeds").mkdir(exist_ok=True)
    for index, feed in enumerate(feeds):
        np.savez(folder / "feeds" / f"{index}.npz", **feed)
    np.savez(folder / "reference.npz", **reference(model, feeds[0]))
    about = {
        "model": str(model),
        "data": str(data),
        "free": free,
        "rows": max(array.shape[0] if array.ndim else 1 for array in feeds[0].values()),
    }
    (folder / "about.json").write_text(json.dumps(about))


def _write(name: str, folder: Path, limit: float) -> tuple[Path, Path]:
    """(model, data) of a name of NAMES."""
    if name in BATCH:
        return EXAMPLE / "model.onnx", EXAMPLE / "calibration"
    model, data = folder / "model.onnx", folder / "calibration"
    if name in ZOO:  # in a process of its own, which torch does not outlive
        error, _ = process.run(
            [sys.executable, ROOT / "benchmarks" / "race" / "zoo.py", name, folder], folder, folder / "export.log", limit
        )
        if error:
            raise RuntimeError(f"no export: {error}")
        return model, data
    import onnx

    if name == "ppocr":
        from benchmarks.entropy_scales import DATA, SHAPE
        from tests.real_models import ppocr

        made = onnx.load(ppocr("det"))
        for dim, size in zip(made.graph.input[0].type.tensor_type.shape.dim, SHAPE):
            dim.dim_value = size
        onnx.save(made, model)
        return model, DATA / "calibration"
    from benchmarks import networks

    made = getattr(networks, name)()
    onnx.save(made, model)
    _write_noise(data, tuple(dim.dim_value for dim in made.graph.input[0].type.tensor_type.shape.dim))
    return model, data


def _write_noise(folder: Path, shape: tuple[int, ...]) -> None:
    """Patches, as images have, for the input x."""
    random = np.random.default_rng(1)
    folder.mkdir(exist_ok=True)
    for index in range(FILES):
        coarse = random.random([*shape[:2], shape[2] // 16, shape[3] // 16], np.float32)
        np.savez(folder / f"{index}.npz", x=coarse.repeat(16, axis=2).repeat(16, axis=3))


def make_feeds(model: Path, data: Path, shape: tuple[int, ...] = ()) -> tuple[list[dict[str, np.ndarray]], dict[str, list[int]]]:
    """The first batches of the data, as the model takes them, and the shapes of the inputs that it leaves free.

    Args:
        shape: batch, or the whole shape of the only input; else the first file of arrays says it, or a free batch is 1.

    Raises:
        ConversionError: the data does not go with the model, or a shape is missing.
    """
    from onnx2trt.base.errors import ExitCode
    from onnx2trt.data import samples
    from onnx2trt.data.reader import Reader, make_preprocessing
    from onnx2trt.data.rows import rows_of
    from onnx2trt.model.preflight import preflight
    from onnx2trt.plan.plan import Preprocess, Shapes
    from onnx2trt.plan.shapes import image_input, make_profiles

    inputs = preflight(str(model))[1].inputs
    free = tuple((name, dims) for name, dims in _shapes(inputs, data, shape).items())
    profiles = make_profiles(inputs, Shapes(free, free, free, shape[0] if len(shape) == 1 else 1))
    rows = rows_of(inputs, profiles)
    found = samples.find(str(data), "DATA_FOLDER", 10**6, ExitCode.CALIBRATION, lambda path: rows.count(path, inputs))
    images = found.kind == "images"
    preprocessing = make_preprocessing(Preprocess(None, "stretch", 1, (), ()), image_input(inputs, profiles)) if images else None
    reader, feeds = Reader(inputs, profiles, preprocessing, rows), []
    for batch in reader.batches(found.at_most(FEEDS * reader.batch_size(found))):
        feeds.append({name: np.array(array) for name, array in batch.arrays.items()})  # its memory is used again
    dynamic = {spec.name for spec in inputs if spec.dynamic}
    return feeds, {profile.name: list(profile.opt) for profile in profiles if profile.name in dynamic}


def _shapes(inputs, data: Path, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Of inputs that the model leaves free, as far as they are known."""
    free = [spec for spec in inputs if spec.dynamic]
    if len(shape) > 1:
        return {spec.name: shape for spec in free}
    first = next((path for path in sorted(data.rglob("*")) if path.suffix in (".npz", ".npy")), None)
    if not free or first is None:
        return {}
    arrays = np.load(first)
    named = {inputs[0].name: arrays} if first.suffix == ".npy" else arrays
    found = {spec.name: tuple(named[spec.name].shape) for spec in free}
    if len(shape) == 1:
        found = {spec.name: (*shape, *found[spec.name][1:]) if not isinstance(spec.shape[0], int) else found[spec.name] for spec in free}
    return found


def reference(model: Path, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What ONNX Runtime computes from a feed, in FP32."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    return dict(zip((output.name for output in session.get_outputs()), session.run(None, feed)))
