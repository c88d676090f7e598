"""What INT8 calibration costs on PP-OCRv4 text detection (1x3x640x640): three targets, each process measured on its own.

    python benchmarks/calibration.py [--threads 2] [--json FILE] [--modelopt PYTHON]

1. Ours (entropy) against ONNX Runtime's quantize_static with entropy, the same images: at least 5 times faster.
2. Ours against bare ONNX Runtime inference over the same images (median of alternating pairs): at most 1.6 times.
3. Peak memory (ru_maxrss) of a process that only calibrates: at most 700 MB, the same within 5 % for ten times the images.

--modelopt adds NVIDIA ModelOpt with entropy on the CPU, by the Python of an environment of its own (pip install nvidia-modelopt[onnx]
opencv-python-headless).

The seconds are those of the work alone: imports stand before, loading the model and making the session inside. The inference
reads and prepares the images, too, one after another, as calibration has to.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if not __package__:  # run as a file: our package stands one folder up
    sys.path[0] = str(ROOT)

from benchmarks import workers  # noqa: E402

DATA = ROOT / "tests" / "data" / "ppocr_det"
SHAPE = (1, 3, 640, 640)
TIMES_FASTER, TIMES_INFERENCE, MEMORY_MB, MEMORY_GROWTH = 5.0, 1.6, 700.0, 0.05  # the targets


# ---- the workers: one job each, in a process of its own


def calibrate_ours(folder: str) -> None:
    """As `--calibration-method entropy` does it, without what comes after."""
    from benchmarks import entropy_scales as detector
    from onnx2trt.model.observe import observe_parallel
    from onnx2trt.quant.histograms import Collector
    from onnx2trt.rewrite import qdq

    yield
    graph = detector.detector()
    names = dict.fromkeys(layer.activation for layer in qdq.quantizable_layers(graph))
    collector = Collector()
    observe_parallel(graph, detector.PROFILES, names, lambda: detector.images(folder), lambda: collector.visit)
    assert len(collector.scales("entropy")) == len(names)


def infer(folder: str) -> None:
    """ONNX Runtime as anybody would call it: the model from its file, one image after another."""
    import onnxruntime

    from benchmarks import entropy_scales as detector
    from tests.real_models import ppocr

    yield
    session = onnxruntime.InferenceSession(str(ppocr("det")), providers=["CPUExecutionProvider"])
    for feed in detector.images(folder):
        session.run(None, feed)


def quantize_static(folder: str) -> None:
    """ONNX Runtime's own calibration; it writes a model, too, which takes a fraction of the time."""
    import logging

    import onnxruntime.quantization as quantization

    from tests.real_models import ppocr

    logging.disable(logging.WARNING)
    reader = _reader(folder)
    yield
    with tempfile.TemporaryDirectory() as target:
        quantization.quantize_static(
            str(ppocr("det")),
            os.path.join(target, "quantized.onnx"),
            reader,
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            op_types_to_quantize=["Conv", "ConvTranspose"],
            calibrate_method=quantization.CalibrationMethod.Entropy,
        )


def modelopt(folder: str) -> None:
    """NVIDIA ModelOpt's calibration, the same images and operators; it writes a model, too."""
    from modelopt.onnx.quantization import quantize

    from tests.real_models import ppocr

    reader = _reader(folder)
    yield
    with tempfile.TemporaryDirectory() as target:
        quantize(
            shutil.copy(ppocr("det"), target),  # ModelOpt 0.47 overwrites it
            quantize_mode="int8",
            calibration_method="entropy",
            calibration_data_reader=reader,
            calibration_eps=["cpu"],
            op_types_to_quantize=["Conv", "ConvTranspose"],
            override_shapes="x:" + "x".join(map(str, SHAPE)),
            output_path=os.path.join(target, "quantized.onnx"),
            log_level="ERROR",
        )


def _reader(folder: str):
    """The images as ONNX Runtime's calibration takes them."""
    from onnxruntime.quantization import CalibrationDataReader

    from benchmarks import entropy_scales as detector

    class Images(CalibrationDataReader):
        feeds = detector.images(folder)

        def get_next(self):
            return next(self.feeds, None)

    return Images()


WORKERS = {"ours": calibrate_ours, "inference": infer, "quantize_static": quantize_static, "modelopt": modelopt}


def measured(name: str, folder: Path, threads: int, python: str = sys.executable) -> dict[str, float]:
    return workers.measured(__file__, [name, str(folder)], threads, python)


# ---- the figures


def measure(folder: Path, threads: int, pairs: int, copies: int, modelopt_python: str | None = None) -> dict:
    """All figures.

    Args:
        folder: the images.
        pairs: alternating measurements of ours and of bare inference.
        copies: how many times the images are repeated for the second memory figure.
        modelopt_python: of an environment with ModelOpt; None: it is left out.
    """
    ours, inference = [], []
    for index in range(pairs):
        for name, into in (("ours", ours), ("inference", inference))[:: 1 if index % 2 else -1]:
            into.append(measured(name, folder, threads))
    static = measured("quantize_static", folder, threads)
    peer = {"modelopt": measured("modelopt", folder, threads, modelopt_python)} if modelopt_python else {}
    with tempfile.TemporaryDirectory() as many:
        for number in range(copies):
            for path in sorted(folder.iterdir()):
                os.symlink(path.resolve(), Path(many) / f"{number}_{path.name}")
        repeated = measured("ours", Path(many), threads)
    seconds = statistics.median(run["seconds"] for run in ours)
    peak = statistics.median(run["peak_mb"] for run in ours)
    return {
        "images": len(list(folder.iterdir())),
        "threads": threads,
        "ours": ours,
        "inference": inference,
        "quantize_static": static,
        **peer,
        "repeated": {**repeated, "copies": copies},
        "times_faster_than_quantize_static": static["seconds"] / seconds,
        "times_bare_inference": statistics.median(a["seconds"] / b["seconds"] for a, b in zip(ours, inference)),
        "peak_mb": peak,
        "peak_mb_repeated": repeated["peak_mb"],
        "peak_growth": repeated["peak_mb"] / peak - 1,
    }


def targets(found: dict) -> list[tuple[str, str, str, bool]]:
    """(what, measured, target, reached)"""
    faster, times = found["times_faster_than_quantize_static"], found["times_bare_inference"]
    peak, growth = max(found["peak_mb"], found["peak_mb_repeated"]), found["peak_growth"]
    return [
        ("faster than quantize_static, entropy", f"{faster:.1f} x", f">= {TIMES_FASTER:g} x", faster >= TIMES_FASTER),
        ("time over that of bare inference", f"{times:.2f} x", f"<= {TIMES_INFERENCE:g} x", times <= TIMES_INFERENCE),
        ("peak memory", f"{peak:.0f} MB", f"<= {MEMORY_MB:g} MB", peak <= MEMORY_MB),
        (
            f"peak memory for {found['repeated']['copies']} times the images",
            f"{growth:+.1%}",
            f"within {MEMORY_GROWTH:.0%}",
            abs(growth) <= MEMORY_GROWTH,
        ),
    ]


def table(found: dict) -> str:
    """The figures as text."""
    lines = [f"PP-OCRv4 text detection, {found['images']} images, {found['threads']} threads", ""]
    for name in ("ours", "inference"):
        runs = found[name]
        seconds = ", ".join(f"{run['seconds']:.2f}" for run in runs)
        lines.append(f"{name:<18}{seconds} s   {max(run['peak_mb'] for run in runs):.0f} MB")
    seconds = statistics.median(run["seconds"] for run in found["ours"])
    for name in ("quantize_static", "modelopt", "repeated"):
        if name in found:
            times = "" if name == "repeated" else f"   {found[name]['seconds'] / seconds:.1f} times ours"
            lines.append(f"{name:<18}{found[name]['seconds']:.2f} s   {found[name]['peak_mb']:.0f} MB{times}")
    lines.append("")
    for what, got, target, reached in targets(found):
        lines.append(f"{what:<42}{got:>10}   {target:<12}{'reached' if reached else 'MISSED'}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", metavar="DIR", type=Path, default=DATA / "calibration", help="default: the 20 of the tests")
    parser.add_argument("--threads", metavar="N", type=int, default=2)
    parser.add_argument("--pairs", metavar="N", type=int, default=5, help="measurements of ours and of bare inference (default: 5)")
    parser.add_argument("--copies", metavar="N", type=int, default=10, help="repetitions of the images for memory (default: 10)")
    parser.add_argument("--modelopt", metavar="PYTHON", help="measure NVIDIA ModelOpt, too, with this interpreter")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures as JSON")
    parser.add_argument("--worker", nargs=2, metavar=("NAME", "DIR"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        name, folder = args.worker
        workers.run(WORKERS[name](folder))
        return 0
    found = measure(args.images, args.threads, args.pairs, args.copies, args.modelopt)
    print(table(found))
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0 if all(reached for *_, reached in targets(found)) else 1


if __name__ == "__main__":
    sys.exit(main())
