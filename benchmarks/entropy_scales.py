"""Our entropy scales against those that TensorRT 10.6's own calibrator made of the same images.

    python benchmarks/entropy_scales.py [--json FILE]

Reports the relative difference of the scales (median and 90 % quantile over the inputs of all convolutions), and how well the
text masks of both INT8 models agree with the FP32 model's: IoU pooled over the test images, every convolution quantised,
simulated by ONNX Runtime.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if not __package__:  # run as a file: our package stands one folder up
    sys.path[0] = str(ROOT)

import numpy as np  # noqa: E402

from onnx2trt.base.errors import ExitCode  # noqa: E402
from onnx2trt.base.model_info import ImageInput, Profile, TensorSpec  # noqa: E402
from onnx2trt.data.reader import Reader, make_preprocessing  # noqa: E402
from onnx2trt.data.samples import find  # noqa: E402
from onnx2trt.model.graph import Graph  # noqa: E402
from onnx2trt.model.observe import observe_parallel  # noqa: E402
from onnx2trt.model.preflight import preflight  # noqa: E402
from onnx2trt.model.session import Session  # noqa: E402
from onnx2trt.plan.parts import Preprocess  # noqa: E402
from onnx2trt.quant import calibration_cache  # noqa: E402
from onnx2trt.quant.histograms import Collector  # noqa: E402
from onnx2trt.rewrite import qdq  # noqa: E402
from onnx2trt.rewrite.prepare import working_graph  # noqa: E402
from tests.real_models import ppocr  # noqa: E402

DATA = ROOT / "tests" / "data" / "ppocr_det"
CACHE = DATA / "tensorrt-10.6-entropy2.cache"
SHAPE = (1, 3, 640, 640)
PROFILES = (Profile("x", SHAPE, SHAPE, SHAPE),)
MASK = 0.3  # the detector's own threshold


def images(folder: Path | str) -> Iterator[dict[str, np.ndarray]]:
    """The images of a folder as the detector takes them: RGB, stretched, 0..1."""
    preprocessing = make_preprocessing(Preprocess(None, "stretch", 1, (), ()), ImageInput("x", "NCHW", 1, 3, 640, 640, "float32"))
    reader = Reader((TensorSpec("x", SHAPE, "float32"),), PROFILES, preprocessing)
    for batch in reader.batches(find(str(folder), "--calibration-dir", 10**6, ExitCode.CALIBRATION)):
        yield batch.arrays


def detector() -> Graph:
    """The FP32 graph that INT8 is written into."""
    return working_graph(Graph.from_model(preflight(str(ppocr("det")))[0], PROFILES), quantize=True, fp16_scales=False)


def entropy_scales(graph: Graph) -> dict[str, float]:
    """Ours, of the inputs of all convolutions."""
    names = dict.fromkeys(layer.activation for layer in qdq.quantizable_layers(graph))
    collector = Collector()
    observe_parallel(graph, PROFILES, names, lambda: images(DATA / "calibration"), lambda: collector.visit)
    return collector.scales("entropy")


def pooled_iou(graph: Graph, scales: dict[str, float], masks: list[np.ndarray]) -> float:
    """Agreement of the masks with those of the FP32 graph, every layer quantised."""
    found = text_masks(qdq.insert(graph, scales, qdq.quantizable_layers(graph), half=False))
    both = sum(int((a & b).sum()) for a, b in zip(masks, found))
    return both / sum(int((a | b).sum()) for a, b in zip(masks, found))


def text_masks(graph: Graph) -> list[np.ndarray]:
    session = Session.from_graph(graph)
    return [next(iter(session.run(feed).values())) > MASK for feed in images(DATA / "test")]


def measure() -> dict:
    """tensors, median_difference, q90_difference, iou_ours, iou_tensorrt."""
    graph = detector()
    ours, theirs = entropy_scales(graph), calibration_cache.read(str(CACHE)).scales
    differences = [abs(scale / theirs[name] - 1) for name, scale in ours.items()]
    masks = text_masks(graph)
    return {
        "tensors": len(differences),
        "median_difference": float(np.median(differences)),
        "q90_difference": float(np.quantile(differences, 0.9)),
        "iou_ours": pooled_iou(graph, ours, masks),
        "iou_tensorrt": pooled_iou(graph, theirs, masks),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE", help="write the figures as JSON")
    args = parser.parse_args()
    found = measure()
    if args.json:
        Path(args.json).write_text(json.dumps(found, indent=2) + "\n")
    print(f"inputs of convolutions with a scale  {found['tensors']}")
    print(f"relative difference, median          {found['median_difference']:.2%}")
    print(f"relative difference, 90 % quantile   {found['q90_difference']:.2%}")
    print(f"pooled mask IoU, our scales          {found['iou_ours']:.4f}")
    print(f"pooled mask IoU, TensorRT's scales   {found['iou_tensorrt']:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
