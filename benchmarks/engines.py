"""How fast the engines are: ours against what a script over TensorRT's own API builds, on the GPU of this machine (TensorRT 8.6 to 10).

    python benchmarks/engines.py [--networks resnet50 vit_b_16 ...] [--models NAME=MODEL.onnx:DATA ...] [--ways ...] [--folder DIR]
                                 [--json FILE] [--markdown FILE] [--layers]
    python benchmarks/engines.py --merge FILE.json ... --markdown FILE      # one table of several runs

Networks: resnet50 (batch 32) and unet (batch 16, 256x320) of benchmarks/networks.py; with torch and torchvision, mobilenet_v3_large (32),
deeplabv3_resnet50 (4, 512x512), vit_b_16 (32), swin_t (16), convnext_tiny (32), yolo (8, 640x640) and bert (16 x 128), all of these with
random weights; ppocr (PP-OCRv4 detection, 640x640); example1 and example16 (the example network, with its mean IoU on the 40 test
images). --models takes any other: a folder of images, or of .npz / .npy files, and :BATCH or :1x3x224x224 behind it where the model
leaves the shape of an image free. Each as
    raw fp16          the FP16 flag on the FP32 ONNX: what everything is compared with
    raw int8          the INT8 and FP16 flags with TensorRT's entropy calibrator
    fp32, fp16, int8  ours: --precision fp32, fp16, int8; int8 is the fastest of several structures, which it measures itself
    fp8, bf16         ours, where they are named with --ways
    int8 qdq, int8 calibrator      ours, with --quantization qdq and calibrator
    best              ours: --precision best
All engines of a network are then timed in turn, inputs on the device, with CUDA events: as CUDA graphs, and by plain launches. SQNR is
against ONNX Runtime in FP32 on the first batch of the data. The raw engines are built without kernel timings of other builds unless
--raw-timing-cache is given; ours share theirs, in the network's folder. A way that fails, or takes longer than --limit, is a row with its
error. Everything stays in --folder: engines that are there are only timed, and kernel timings, scales and figures are used again.
Random weights have nothing to lose, so they get --metric noise --max-accuracy-drop 100, and are calibrated on one batch.
The exit code is 1 where something that is asked for was missed (benchmarks/race/table.py).
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if not __package__:  # run as a file: our package stands one folder up
    sys.path[0] = str(ROOT)

from benchmarks.race import process, sources, table  # noqa: E402
from benchmarks.race.sources import Source  # noqa: E402

WAYS = {
    "raw fp16": None,
    "raw int8": None,
    "fp32": ("--precision", "fp32"),
    "fp16": ("--precision", "fp16"),
    "int8": ("--precision", "int8"),
    "int8 qdq": ("--precision", "int8", "--quantization", "qdq"),
    "int8 calibrator": ("--precision", "int8", "--quantization", "calibrator"),
    "fp8": ("--precision", "fp8"),
    "bf16": ("--precision", "bf16"),
    "best": ("--precision", "best"),
}
DEFAULT = tuple(way for way in WAYS if way not in ("fp32", "fp8", "bf16"))
CALIBRATED = ("int8", "int8 qdq", "int8 calibrator", "fp8", "best")  # that are ours
LEAST = 20.0  # seconds without which nothing is begun
CLOCK = 90.0  # seconds of the time of a network that are kept for timing its engines
RECORDS = 40  # lines of --layers and of a failure that are shown


def file_of(way: str) -> str:
    return way.replace(" ", "_") + ".engine"


def command_of(source: Source, way: str, folder: Path, args) -> list:
    """That builds one engine; run in `folder`, which sources.prepare has filled.

    Args:
        args: level, effort, calibration_samples, raw_timing_cache.
    """
    engine, flags = file_of(way), WAYS[way]
    if flags is None:
        job = {"do": "raw", "folder": str(folder), "engine": engine, "int8": "int8" in way, "level": args.level}
        return _worker({**job, "timings": args.raw_timing_cache})
    about = json.loads((folder / "about.json").read_text())
    command = [sys.executable, ROOT / "onnx2trt.py", "--onnx", about["model"], *flags, "-o", engine, "--json", f"{engine}.r.json"]
    command += ["--timing-cache", "ours.timings", "--builder-optimization-level", args.level]
    if about["free"]:
        shapes = [f"{name}:{'x'.join(map(str, shape))}" for name, shape in about["free"].items()]
        command += [part for bound in ("min", "opt", "max") for part in (f"--{bound}-shapes", *shapes)]
    command += ["--metric", "noise", "--max-accuracy-drop", "100"] if source.made_up else []
    if way not in CALIBRATED:
        return [*command, "--validation-dir", about["data"]]
    scales = "fp8.cache" if way == "fp8" else "scales.cache"  # scales are those of one format
    command += ["--calibration-dir", about["data"], "--calibration-cache", scales, "--quantization-effort", args.effort]
    samples = args.calibration_samples or (about["rows"] if source.made_up else None)
    return [*command, *(["--calibration-samples", samples] if samples else [])]


def _worker(job: dict) -> list:
    return [sys.executable, Path(__file__).resolve(), "--worker", json.dumps(job)]


def work(job: dict) -> None:
    """What has to be done in a process of its own: it may crash, and takes memory that only its end gives back."""
    folder = Path(job["folder"])
    if job["do"] == "prepare":
        end_children()
        sources.prepare(Source(**{**job["source"], "shape": tuple(job["source"]["shape"])}), folder, job["limit"])
    elif job["do"] == "raw":
        from benchmarks.race import raw

        raw.build(folder, job["engine"], job["int8"], job["level"], job["timings"])
    else:
        from benchmarks.race import clock

        clock.measure(folder, job["ways"], job["options"])


def build(source: Source, way: str, folder: Path, args, limit: float) -> dict:
    """The row of one engine: build_s, timings_known, for ours what its result says; or its error.

    Args:
        limit: seconds.
    """
    name = file_of(way)
    timings = (folder / ("ours.timings" if WAYS[way] else "raw.timings")).exists() and bool(WAYS[way] or args.raw_timing_cache)
    command, environment = command_of(source, way, folder, args), {"XDG_CACHE_HOME": str(folder / "cache")}
    error, seconds = process.run(command, folder, folder / f"{name}.log", limit, environment)
    row: dict = {"build_s": seconds, "timings_known": timings}
    result = _read(folder / f"{name}.r.json")
    if result:
        row.update(table.of_result(result))
        error = error and (result.get("error") or {}).get("message", error)
    if error:
        row["error"] = error[-1000:]
    elif way == "fp16" and args.again:
        _, row["again_s"] = process.run(command, folder, folder / f"{name}.log", limit, environment)
        row["tensorrt_again_s"] = (_read(folder / f"{name}.r.json").get("timings_s") or {}).get("build")
    return row


def _read(path: Path) -> dict:
    """{} where a command has left no JSON."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}


def measure(folder: Path, rows: dict[str, dict], args, until: float) -> dict:
    """Time what is there, and put the figures into the rows; an engine that fails is left out, and the others begin once more.

    Returns:
        gpu and tensorrt; {} where nothing could be timed.
    """
    ways = {way: file_of(way) for way in rows if (folder / file_of(way)).exists() and "error" not in rows[way]}
    options = {"rounds": args.rounds, "runs": args.runs, "layers": args.layers}
    for name in ("clock.json", "at"):
        (folder / name).unlink(missing_ok=True)
    while ways:
        command = _worker({"do": "clock", "folder": str(folder), "ways": ways, "options": options})
        error, _ = process.run(command, folder, folder / "clock.log", max(until - time.monotonic(), 3 * CLOCK))
        found = _read(folder / "clock.json")
        if found:
            for way, figures in found.pop("engines").items():
                rows[way].update(figures)
            if args.layers:
                say((folder / "clock.log").read_text(errors="replace"))
            return found
        at = (folder / "at").read_text() if (folder / "at").exists() else ""
        say(f"{folder.name}: not timed, at {at or 'the start'}: {error}")
        for way in (at,) if at in ways else tuple(ways):
            rows[way]["error"] = f"not timed: {error}"
            del ways[way]
    return {}


def mean_iou(path: Path) -> float | None:
    """Of an engine of the example, by its own script."""
    done = subprocess.run([sys.executable, str(sources.EXAMPLE / "evaluate.py"), str(path), "--json"], capture_output=True, text=True)
    return json.loads(done.stdout)["miou"] if done.returncode == 0 else None


def compare(source: Source, folder: Path, args, until: float) -> dict:
    """Build and time all engines of a network: rows, verdict, gpu, tensorrt; error, where there is no network to build.

    Args:
        until: on the clock of time.monotonic, when its engines are to be timed at the latest.
    """
    folder.mkdir(parents=True, exist_ok=True)
    limit = min(args.limit, until - time.monotonic())
    error, seconds = process.run(
        _worker({"do": "prepare", "source": asdict(source), "folder": str(folder), "limit": limit}), folder, folder / "prepare.log", limit
    )
    if error:
        say(f"{source.name}: {error}")
        return {"rows": {}, "error": error}
    say(f"{source.name}: model, data and reference in {seconds:.0f} s")
    rows = {way: row for way, row in _read(folder / "rows.json").items() if (folder / file_of(way)).exists() and way in args.ways}
    for way in args.ways:
        if way not in rows:
            left = min(args.limit, until - time.monotonic() - CLOCK)
            rows[way] = build(source, way, folder, args, left) if left > LEAST else {"error": "no time was left for it"}
        (folder / "rows.json").write_text(json.dumps(rows))
        took = f"{rows[way]['build_s']:.0f} s" if "build_s" in rows[way] else "not built"
        say(f"{source.name}, {way}: {took} {rows[way].get('error') or rows[way].get('chosen') or ''}")
    found = measure(folder, rows, args, until)
    table.add_ratios(rows)
    for way, row in rows.items():
        if source.name in sources.BATCH and "p50_ms" in row:
            row["miou"] = mean_iou(folder / file_of(way))
    return {"rows": rows, "verdict": table.verdict(source.name, rows), **found}


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def end_children() -> None:
    """With this process, when it is told to end: process.run does it on the way out."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def show(name: str, network: dict) -> None:
    """Lines on each engine of a network, and what was missed."""
    for way, row in network["rows"].items():
        if "p50_ms" not in row:
            print(f"{name:18} {way:15} failed: {row.get('error', 'no engine')}", flush=True)
            continue
        graph = f"{row['graph_p50_ms']:8.4f} ms {row.get('graph_ratio', math.nan):6.3f}" if "graph_p50_ms" in row else f"{'no graph':>18}"
        sqnr = f"{row['sqnr_db']:5.1f} dB" if row.get("sqnr_db") is not None else "      dB"
        counts = ", ".join(f"{count} {kind}" for kind, count in row["layers"].items() if count)
        words = [row["chosen"]] if row.get("chosen") else []
        words += [f"mIoU {row['miou']:.4f}"] if row.get("miou") else []
        words += [f"again in {row['again_s']:.1f} s"] if "again_s" in row else []
        launches = f"launches {row['p50_ms']:8.4f} {row.get('ratio', math.nan):6.3f}"
        print(f"{name:18} {way:15} graph {graph}  {launches}  {sqnr}  {row['mb']:6.1f} MB  {counts}  {', '.join(words)}", flush=True)
    for what, judged in network.get("verdict", {}).items():
        value = "failed" if judged["value"] is None else f"{judged['value']:.3f}"
        against = f" of {judged['against']}" if "against" in judged else ""
        print(
            f"{name:18} {what}: {value}{against}, limit {judged['limit']:.4g}  {'reached' if judged['reached'] else 'MISSED'}", flush=True
        )


def write(found: dict, args) -> None:
    for path, text in ((args.json, json.dumps(found, indent=2) + "\n"), (args.markdown, table.markdown(found))):
        if path:
            Path(path).write_text(text)


def race(networks: list[Source], args) -> dict:
    """All networks, one after the other; what was found is written after each."""
    found: dict = {"date": time.strftime("%Y-%m-%d"), "level": args.level, "effort": args.effort, "networks": {}}
    end = time.monotonic() + args.total
    with tempfile.TemporaryDirectory() as temporary:
        for index, source in enumerate(networks):
            share = (end - time.monotonic()) / (len(networks) - index)
            folder = (args.folder or Path(temporary)).resolve() / source.name
            try:
                network = compare(source, folder, args, time.monotonic() + share)
            except Exception as error:  # of whatever kind: the other networks are to be measured
                network = {"rows": {}, "error": f"{type(error).__name__}: {error}"}
                say(f"{source.name}: {network['error']}")
            found.update({key: network.pop(key) for key in ("gpu", "tensorrt") if key in network})
            found["networks"][source.name] = network
            show(source.name, network)
            write(found, args)
    return found


def merged(paths: list[str]) -> dict:
    """The networks of several runs in one; of a network that is in two, the later file's."""
    runs = [json.loads(Path(path).read_text()) for path in paths]
    return {
        **{key: value for run in runs for key, value in run.items()},
        "networks": {k: v for run in runs for k, v in run["networks"].items()},
    }


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--networks", nargs="*", choices=sources.NAMES, metavar="NAME", help="default: all, or none where --models is given"
    )
    parser.add_argument("--models", nargs="*", default=[], type=sources.parse, metavar="NAME=MODEL:DATA", help="others, with their data")
    parser.add_argument(
        "--ways", nargs="+", choices=WAYS, default=list(DEFAULT), help="raw fp16 is always among them (default: all but fp32)"
    )
    parser.add_argument("--level", type=int, default=3, help="builder optimization level (default: 3, TensorRT's own)")
    parser.add_argument(
        "--effort", default="default", help="--quantization-effort of ours (default: default; fast builds one structure alone)"
    )
    parser.add_argument("--calibration-samples", type=int, metavar="N", help="of ours (default: one batch for random weights, else 500)")
    parser.add_argument("--raw-timing-cache", action="store_true", help="keep kernel timings of the raw builds, too, and use them")
    parser.add_argument("--again", action="store_true", help="build fp16 a second time, with the kernel timings of the first")
    parser.add_argument("--limit", type=float, default=1800.0, metavar="SECONDS", help="for each build (default: 1800)")
    parser.add_argument("--total", type=float, default=1e6, metavar="SECONDS", help="for everything; builds beyond it are left out")
    parser.add_argument("--rounds", type=int, default=7, help="in which the engines are timed in turn (default: 7)")
    parser.add_argument("--runs", type=int, default=100, help="of each engine in a round (default: 100)")
    parser.add_argument("--layers", action="store_true", help="print the parts of each network that lose most against raw fp16")
    parser.add_argument("--folder", type=Path, help="keep models, engines, timings and figures there")
    parser.add_argument("--json", metavar="FILE", help="write the figures as JSON, after every network")
    parser.add_argument("--markdown", metavar="FILE", help="write the tables as Markdown, after every network")
    parser.add_argument("--merge", nargs="+", metavar="FILE", help="measure nothing: one table of the JSON of several runs")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser


def main() -> int:
    args = arguments().parse_args()
    if args.worker:
        work(json.loads(args.worker))
        return 0
    end_children()
    args.ways = [way for way in WAYS if way == "raw fp16" or way in args.ways]
    if args.merge:
        found = merged(args.merge)
        for name, network in found["networks"].items():
            show(name, network)
        write(found, args)
    else:
        names = args.networks if args.networks is not None else () if args.models else sources.NAMES
        found = race([*map(Source, names), *args.models], args)
    good = all(judged["reached"] for network in found["networks"].values() for judged in network.get("verdict", {}).values())
    return 0 if good and not any(network.get("error") for network in found["networks"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
