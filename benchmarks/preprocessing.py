"""From JPEG files to float32 3x640x640: how close preprocessing comes to merely decoding them, and what memory it takes.

    python benchmarks/preprocessing.py [--threads 2] [--json FILE]

Target: on 1920x1080 at least 0.9 times the throughput of bare cv2.imdecode on as many threads (median of alternating runs), and
the same peak memory for 100 images as for 1000. Compared, each run in a process of its own:

ours            Reader.batches: reading and checking the file, decoding, resizing, converting, batching
imdecode        cv2.imdecode alone, of bytes that are in memory already, on a thread pool; the images are dropped
imdecode_kept   the same, where the C library keeps the freed memory of an image for the next, as ours has it do
opencv          what one writes first: imread, resize, cvtColor, astype, transpose, image after image, OpenCV's own threads
pil             Pillow (where it is installed) on a thread pool: open, convert, resize (it smooths, too), to the same array

The JPEGs are made of the images of examples/ultralight_segmentation: enlarged with INTER_CUBIC, with Gaussian noise of the grain
of a small sensor (sigma 6, blurred by 0.8 pixels, doubled), quality 90 with 4:2:0 colour: about 1.35 bits per pixel, as photographs
have. DISTINCT of each size are made and used again and again. CPU time tells more than the clock where the machine is shared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if not __package__:  # run as a file: our package stands one folder up
    sys.path[0] = str(ROOT)

from benchmarks import workers  # noqa: E402

SOURCES = ROOT / "examples" / "ultralight_segmentation" / "calibration"
DISTINCT = 40
SIDE = 640  # of the tensors
RATIO, MEMORY_GROWTH = 0.9, 0.05  # the targets
MEASURED = "1920x1080"  # what they are for


def make_images(folder: Path, size: str, count: int) -> int:
    """Write `count` JPEGs, all but DISTINCT of them links.

    Returns:
        Bytes of one, on average.
    """
    import numpy as np

    from onnx2trt.base.opencv import opencv

    cv2 = opencv()
    width, height = map(int, size.split("x"))
    rng = np.random.default_rng(0)
    folder.mkdir()
    sources = sorted(SOURCES.iterdir())
    for index in range(count):
        target = folder / f"{index:05}.jpg"
        if index >= DISTINCT:
            target.symlink_to(folder / f"{index % DISTINCT:05}.jpg")
            continue
        image = cv2.imdecode(np.fromfile(sources[index % len(sources)], np.uint8), cv2.IMREAD_COLOR)
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float32)
        noise = cv2.GaussianBlur(rng.normal(0, 6, image.shape).astype(np.float32), (0, 0), 0.8) * 2
        noisy = np.clip(image + noise, 0, 255).astype(np.uint8)
        target.write_bytes(cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
    return sum(path.stat().st_size for path in folder.iterdir()) // count


# ---- the workers: one job each, in a process of its own; what stands before `yield` is not measured


def ours(folder: Path, threads: int, batch: int):
    from onnx2trt.base.errors import ExitCode
    from onnx2trt.base.model_info import ImageInput, Profile, TensorSpec
    from onnx2trt.base.opencv import opencv
    from onnx2trt.data.reader import Reader, make_preprocessing
    from onnx2trt.data.rows import Rows
    from onnx2trt.data.samples import find
    from onnx2trt.plan.parts import Preprocess

    opencv()
    shape = (batch, 3, SIDE, SIDE)
    preprocessing = make_preprocessing(Preprocess(None, "stretch", 1, (), ()), ImageInput("x", "NCHW", batch, *shape[1:], "float32"))
    reader = Reader((TensorSpec("x", shape, "float32"),), (Profile("x", shape, shape, shape),), preprocessing, Rows(1, batch, batch))
    data = find(str(folder), "--images", 10**6, ExitCode.CALIBRATION)
    yield
    assert sum(found.real_rows for found in reader.batches(data)) == len(data.samples)


def imdecode(folder: Path, threads: int, batch: int, kept: bool = False):
    import cv2
    import numpy as np

    from onnx2trt.base.opencv import LARGEST_KEPT

    cv2.setNumThreads(1)
    if kept:
        np.empty(LARGEST_KEPT, np.uint8)
    read: dict[Path, np.ndarray] = {}
    files = [path.resolve() for path in sorted(folder.iterdir())]
    for path in files:
        if path not in read:
            read[path] = np.fromfile(path, np.uint8)
    yield
    with ThreadPoolExecutor(threads) as pool:
        assert all(pool.map(lambda path: cv2.imdecode(read[path], cv2.IMREAD_COLOR) is not None, files))


def imdecode_kept(folder: Path, threads: int, batch: int):
    return imdecode(folder, threads, batch, kept=True)


def opencv_loop(folder: Path, threads: int, batch: int):
    import cv2
    import numpy as np

    yield
    for path in sorted(folder.iterdir()):
        image = cv2.resize(cv2.imread(str(path)), (SIDE, SIDE))
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.float32) / 255
        np.ascontiguousarray(image.transpose(2, 0, 1))


def pil(folder: Path, threads: int, batch: int):
    import numpy as np
    from PIL import Image

    def load(path: Path) -> int:
        with Image.open(path) as file:
            image = file.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        return np.ascontiguousarray((np.asarray(image, np.float32) / 255).transpose(2, 0, 1)).size

    yield
    with ThreadPoolExecutor(threads) as pool:
        assert all(pool.map(load, sorted(folder.iterdir())))


WORKERS = {"ours": ours, "imdecode": imdecode, "imdecode_kept": imdecode_kept, "opencv": opencv_loop, "pil": pil}


def measured(name: str, folder: Path, threads: int, batch: int) -> dict[str, float]:
    return workers.measured(__file__, [name, str(folder), "--threads", str(threads), "--batch", str(batch)], threads)


# ---- the figures


def available() -> list[str]:
    import importlib.util

    return [name for name in WORKERS if name != "pil" or importlib.util.find_spec("PIL")]


def compare(folder: Path, names: list[str], threads: int, batch: int, runs: int) -> dict:
    """Alternating runs of these workers over one folder: every other round in the opposite order."""
    found: dict[str, list[dict]] = {name: [] for name in names}
    for index in range(runs):
        for name in names[:: -1 if index % 2 else 1]:
            found[name].append(measured(name, folder, threads, batch))
    images = len(list(folder.iterdir()))
    ours = found["ours"]
    over = {
        unit: {name: statistics.median(run[unit] / our[unit] for run, our in zip(found[name], ours)) for name in names if name != "ours"}
        for unit in ("seconds", "cpu_seconds")
    }
    return {
        "images": images,
        "runs": found,
        "images_per_second": {name: images / statistics.median(run["seconds"] for run in found[name]) for name in names},
        "ours_over": over["seconds"],
        "ours_over_by_cpu_time": over["cpu_seconds"],
    }


def memory(folder: Path, runs: list[dict], threads: int, batch: int) -> dict:
    """Peak memory of ours over all images (of `runs`) and over the first tenth of them, measured as often."""
    paths = sorted(folder.iterdir())
    with tempfile.TemporaryDirectory() as few:
        for path in paths[: max(len(paths) // 10, 1)]:
            (Path(few) / path.name).symlink_to(path.resolve())
        count = len(list(Path(few).iterdir()))
        first = [measured("ours", Path(few), threads, batch) for _ in runs]
    peaks = [statistics.median(run["peak_mb"] for run in among) for among in (first, runs)]
    return {"images": [count, len(paths)], "peak_mb": peaks, "growth": peaks[1] / peaks[0] - 1}


def measure(sizes: list[str], names: list[str], count: int, others: int, threads: int, batch: int, runs: int) -> dict:
    """All figures.

    Args:
        sizes: WIDTHxHEIGHT of the images.
        names: of the workers to compare.
        count: images of the size that the targets are for; a tenth of them for the first memory figure.
        others: images of the other sizes.
    """
    found: dict = {"threads": threads, "batch": batch, "sizes": {}}
    with tempfile.TemporaryDirectory() as temporary:
        for size in sizes:
            folder = Path(temporary) / size
            size_bytes = make_images(folder, size, count if size == MEASURED else others)
            found["sizes"][size] = {"jpeg_bytes": size_bytes, **compare(folder, names, threads, batch, runs)}
            if size == MEASURED:
                found["memory"] = memory(folder, found["sizes"][size]["runs"]["ours"], threads, batch)
    return found


def targets(found: dict) -> list[tuple[str, str, str, bool]]:
    """(what, measured, target, reached)"""
    ratio, peaks = found["sizes"][MEASURED]["ours_over"]["imdecode"], found["memory"]
    (few, many), (few_mb, many_mb) = peaks["images"], peaks["peak_mb"]
    return [
        (f"throughput over that of imdecode, {MEASURED}", f"{ratio:.2f}", f">= {RATIO:g}", ratio >= RATIO),
        (
            f"peak memory, {few} to {many} images",
            f"{few_mb:.0f} to {many_mb:.0f} MB",
            f"<= {MEMORY_GROWTH:+.0%}",
            peaks["growth"] <= MEMORY_GROWTH,
        ),
    ]


def table(found: dict) -> str:
    """The figures as text."""
    lines = [f"JPEG files to float32 3x{SIDE}x{SIDE}, {found['threads']} threads, batches of {found['batch']}", ""]
    for size, figures in found["sizes"].items():
        lines.append(f"{size}, {figures['images']} images of {figures['jpeg_bytes'] / 1e3:.0f} kB")
        for name, speed in figures["images_per_second"].items():
            peak = max(run["peak_mb"] for run in figures["runs"][name])
            line = f"  {name:<14}{speed:8.1f} images/s {peak:6.0f} MB"
            if name in figures["ours_over"]:
                line += (
                    f"   ours {figures['ours_over'][name]:5.2f} times as fast, {figures['ours_over_by_cpu_time'][name]:5.2f} by CPU time"
                )
            lines.append(line)
    lines.append("")
    for what, got, target, reached in targets(found):
        lines.append(f"{what:<46}{got:>15}   {target:<12}{'reached' if reached else 'MISSED'}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sizes", metavar="WxH", nargs="+", default=["640x480", MEASURED, "3840x2160"], help=f"{MEASURED} is measured, too"
    )
    parser.add_argument("--images", metavar="N", type=int, default=1000, help=f"of {MEASURED} (default: 1000)")
    parser.add_argument("--others", metavar="N", type=int, default=100, help="of each other size (default: 100)")
    parser.add_argument("--against", metavar="NAME", nargs="+", choices=[*WORKERS][1:], default=available()[1:], help="default: all")
    parser.add_argument("--threads", metavar="N", type=int, default=2)
    parser.add_argument("--batch", metavar="N", type=int, default=8)
    parser.add_argument("--runs", metavar="N", type=int, default=5, help="alternating runs, of which the median counts (default: 5)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures as JSON")
    parser.add_argument("--worker", nargs=2, metavar=("NAME", "DIR"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        name, folder = args.worker
        workers.run(WORKERS[name](Path(folder), args.threads, args.batch))
        return 0
    sizes = list(dict.fromkeys([*args.sizes, MEASURED]))
    found = measure(
        sizes, list(dict.fromkeys(["ours", "imdecode", *args.against])), args.images, args.others, args.threads, args.batch, args.runs
    )
    print(table(found))
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0 if all(reached for *_, reached in targets(found)) else 1


if __name__ == "__main__":
    sys.exit(main())
