#!/usr/bin/env python3
"""Measure a segmentation model on the 40 test images: mean IoU, IoU per class, pixel accuracy.

    python evaluate.py model.onnx                 # table
    python evaluate.py model.engine               # the same for an engine, on the machine that can run it
    python evaluate.py model.onnx --json          # one line of JSON
    python evaluate.py model.onnx --limit 10      # only the first 10 images

Any ONNX with the input and output of `model.onnx` will do (float32, float16, or with
QuantizeLinear/DequantizeLinear pairs), and any engine made of it. The IoU of a class is its intersection over its union,
both summed over all images; mIoU is the mean over the classes, background included.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # numpy, OpenCV and onnxruntime are imported where they are used,
    import numpy as np  # so that --help answers without them

    Predictor = Callable[[np.ndarray], np.ndarray]

HEIGHT, WIDTH = 256, 320
CLASSES = ("background", "disc", "ring", "square", "triangle", "star", "zebra")
ENGINE_SUFFIXES = (".engine", ".plan", ".trt")
INPUT, OUTPUT = "image", "logits"
ROOT = Path(__file__).resolve().parents[2]  # of the repository, whose modules load prepared models and engines


def preprocess(data: bytes) -> np.ndarray:
    """Decode a JPEG into a network input: float32 RGB [3, 256, 320] in 0..1."""
    import cv2
    import numpy as np

    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None or image.shape != (HEIGHT, WIDTH, 3):
        raise ValueError(f"expected a {WIDTH}x{HEIGHT} colour image")
    rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return np.ascontiguousarray(rgb.transpose(2, 0, 1), np.float32) / 255


def read_mask(path: Path) -> np.ndarray:
    """Read a ground truth mask: uint8 [256, 320], class numbers."""
    import cv2

    mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if mask is None or mask.shape != (HEIGHT, WIDTH) or mask.max() >= len(CLASSES):
        raise ValueError(f"{path}: expected a {WIDTH}x{HEIGHT} mask of classes below {len(CLASSES)}")
    return mask


def test_pairs(data: Path, limit: int | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (input float32 [3, 256, 320], mask uint8 [256, 320]) of the test images in order."""
    paths = sorted((data / "test").glob("*.jpg"))[:limit]
    if not paths:
        raise FileNotFoundError(f"no images in {data / 'test'}")
    for path in paths:
        yield preprocess(path.read_bytes()), read_mask(data / "test_masks" / f"{path.stem}.png")


def predict_onnx(path: Path) -> Predictor:
    """Load an ONNX model; return a function from float32 [N, 3, 256, 320] to logits [N, C, 256, 320].

    FP16 layers are simulated with the converter's own rounding: onnxruntime computes them in FP32 on a CPU.
    """
    import onnx

    sys.path.insert(0, str(ROOT))
    from onnx2trt.model.graph import Graph
    from onnx2trt.model.session import Session
    from onnx2trt.rewrite.simulate import simulation

    session = Session.from_graph(simulation(Graph.from_model(onnx.load(path))))
    return lambda batch: session.run({INPUT: batch})[OUTPUT]


@contextmanager
def predict_engine(path: Path) -> Iterator[Predictor]:
    """Load a TensorRT engine on the GPU of this machine for the length of a block; as `predict_onnx`."""
    sys.path.insert(0, str(ROOT))
    from onnx2trt.trt.engine import Engine
    from onnx2trt.trt.library import load_library
    from onnx2trt.trt.memory import open_cuda

    cuda = open_cuda()
    try:
        engine = Engine(load_library("auto"), path.read_bytes(), cuda, lambda *_: None)
        try:
            yield lambda batch: engine.run({INPUT: batch})[OUTPUT]
        finally:
            engine.close()
    finally:
        cuda.close()  # pycuda aborts at exit where its context was not given back


@contextmanager
def load_predictor(path: Path) -> Iterator[Predictor]:
    """The predictor for a model file, chosen by its suffix, for the length of a block."""
    if not path.is_file():
        sys.exit(f"evaluate.py: no such file: {path}")
    if path.suffix == ".onnx":
        yield predict_onnx(path)
    elif path.suffix in ENGINE_SUFFIXES:
        with predict_engine(path) as predict:
            yield predict
    else:
        sys.exit(f"evaluate.py: {path.name}: expected a .onnx file or an engine ({', '.join(ENGINE_SUFFIXES)})")


def scores(confusion: np.ndarray) -> dict:
    """Turn a confusion matrix, int64 [truth, predicted], into the reported figures (0..1).

    A class that is neither present nor predicted has no IoU (None) and is left out of the mean.
    """
    hit = confusion.diagonal()
    union = confusion.sum(0) + confusion.sum(1) - hit
    per_class = {name: float(h / u) if u else None for name, h, u in zip(CLASSES, hit, union)}
    known = [value for value in per_class.values() if value is not None]
    return {
        "miou": sum(known) / len(known),
        "iou": per_class,
        "pixel_accuracy": float(hit.sum() / confusion.sum()),
    }


def evaluate(predict: Predictor, data: Path, limit: int | None = None) -> dict:
    """Run a predictor over the test images one by one; return `scores` and the time taken."""
    import numpy as np

    count, images, seconds = len(CLASSES), 0, 0.0
    confusion = np.zeros((count, count), np.int64)
    for image, truth in test_pairs(data, limit):
        start = time.perf_counter()
        logits = predict(image[None])
        seconds += time.perf_counter() - start
        if logits.shape != (1, count, HEIGHT, WIDTH):
            raise ValueError(f"expected logits [1, {count}, {HEIGHT}, {WIDTH}], got {list(logits.shape)}")
        pairs = truth.astype(np.int64) * count + logits[0].argmax(0)
        confusion += np.bincount(pairs.ravel(), minlength=count * count).reshape(count, count)
        images += 1
    return scores(confusion) | {"images": images, "ms_per_image": 1000 * seconds / images}


def report(result: dict) -> str:
    """Format the result of `evaluate` for people."""
    lines = [f"{'class':<12}{'IoU':>8}"]
    for name, value in result["iou"].items():
        lines.append(f"{name:<12}{'-' if value is None else format(value, '.4f'):>8}")
    lines += [f"{'mIoU':<12}{result['miou']:>8.4f}", f"{'accuracy':<12}{result['pixel_accuracy']:>8.4f}"]
    return "\n".join(lines + [f"{result['images']} images, {result['ms_per_image']:.1f} ms each"])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="ONNX file, or TensorRT engine")
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(__file__).resolve().parent,
        help="folder with test/ and test_masks/ (default: the folder of this script)",
    )
    parser.add_argument("--limit", type=int, help="use only the first images")
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead of a table")
    args = parser.parse_args()
    with load_predictor(args.model) as predict:
        result = evaluate(predict, args.data, args.limit)
    print(json.dumps(result) if args.json else report(result))


if __name__ == "__main__":
    main()
