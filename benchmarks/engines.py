"""How fast the engines are: ours against what a script over TensorRT's own API builds, on the GPU of this machine (TensorRT 8.6 to 10).

    python benchmarks/engines.py [--networks resnet50 unet ppocr example1 example16] [--ways ...] [--folder DIR] [--json FILE] [--layers]

resnet50 (batch 32), unet (batch 16, 256x320), ppocr (PP-OCRv4 detection, 640x640), example1 and example16 (the example network at batch
1 and 16, with its mean IoU on the 40 test images), each as
    raw fp16   the FP16 flag on the FP32 ONNX: what everything is compared with
    raw int8   the INT8 and FP16 flags with TensorRT's entropy calibrator (not of the example)
    fp32, fp16, int8, int8 qdq   ours: --precision fp32, fp16, int8, and int8 with --quantization qdq
at one optimization level. int8 is what the command gives: held against FP16, and built once more without the layers that FP16 computes
faster. The raw engines are built without kernel timings of other builds, ours share theirs. fp16 is built a second time, with the
timings of the first: "again". Both int8 ways share one calibration. All engines of a network are then timed in turn: inputs on the
device, no CUDA graph, CUDA events. --layers says where each of them loses against raw fp16.
Built engines stay in --folder, and are only timed when it is named again. The made-up networks have nothing to lose, so they get
--max-accuracy-drop 100 --quantization-effort fast.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if not __package__:  # run as a file: our package stands one folder up
    sys.path[0] = str(ROOT)

NETWORKS = {"resnet50": 0.75, "unet": 0.75, "ppocr": 1.02, "example1": None, "example16": None}  # the ratio to raw fp16 for int8 to reach
EXAMPLE, BATCH = ROOT / "examples" / "ultralight_segmentation", {"example1": 1, "example16": 16}
MADE_UP = ("resnet50", "unet")
WAYS = {
    "raw fp16": None,
    "raw int8": None,
    "fp32": ("--precision", "fp32"),
    "fp16": ("--precision", "fp16"),
    "int8": ("--precision", "int8"),
    "int8 qdq": ("--precision", "int8", "--quantization", "qdq"),
}
ROUNDS, RUNS = 5, 100
WORST_PARTS = 12  # shown by --layers
SAMPLES = 2  # batches that the made-up networks are calibrated with


def write_network(name: str, folder: Path) -> None:
    """model.onnx and calibration data."""
    import numpy as np
    import onnx

    if (folder / "calibration").exists():
        return
    if name in BATCH:
        for part in ("model.onnx", "calibration"):
            (folder / part).symlink_to(EXAMPLE / part)
        return
    if name == "ppocr":
        from benchmarks.entropy_scales import DATA, SHAPE
        from tests.real_models import ppocr

        model = onnx.load(ppocr("det"))
        for dim, size in zip(model.graph.input[0].type.tensor_type.shape.dim, SHAPE):
            dim.dim_value = size
        onnx.save(model, folder / "model.onnx")
        (folder / "calibration").symlink_to(DATA / "calibration")
        return
    from benchmarks import networks

    model = getattr(networks, name)()
    onnx.save(model, folder / "model.onnx")
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    random = np.random.default_rng(1)
    (folder / "calibration").mkdir()
    for index in range(SAMPLES):
        coarse = random.random([*shape[:2], shape[2] // 16, shape[3] // 16], np.float32)  # patches, as images have
        np.savez(folder / "calibration" / f"{index}.npz", x=coarse.repeat(16, axis=2).repeat(16, axis=3))


def build_raw(folder: Path, engine: str, int8: bool, level: int) -> None:
    """What one has to write at least; run in a process of its own."""
    import numpy as np
    import tensorrt as trt

    from onnx2trt.trt.memory import open_cuda

    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    explicit = getattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)
    network = builder.create_network(1 << int(explicit) if explicit is not None else 0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(folder / "model.onnx")):
        sys.exit("cannot parse")
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    config.builder_optimization_level = level
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.set_flag(trt.BuilderFlag.FP16)
    data = network.get_input(0)
    if data.shape[0] == -1:
        profile = builder.create_optimization_profile()
        profile.set_shape(data.name, *[(BATCH[folder.name], *tuple(data.shape)[1:])] * 3)
        config.add_optimization_profile(profile)
    cuda = open_cuda()
    if int8:
        config.set_flag(trt.BuilderFlag.INT8)
        batches = list(_batches(folder, tuple(network.get_input(0).shape)))
        address = cuda.allocate(batches[0].nbytes)

        class Calibrator(trt.IInt8EntropyCalibrator2):
            def __init__(self) -> None:
                trt.IInt8EntropyCalibrator2.__init__(self)

            def get_batch_size(self):
                return batches[0].shape[0] if batches else 1

            def get_batch(self, names):
                if not batches:
                    return None
                cuda.upload(address, np.ascontiguousarray(batches.pop(0)), 0)
                return [address]

            def read_calibration_cache(self):
                return None

            def write_calibration_cache(self, cache):
                pass

        config.int8_calibrator = Calibrator()
    (folder / engine).write_bytes(builder.build_serialized_network(network, config))
    cuda.close()


def _batches(folder: Path, shape: tuple[int, ...]):
    import numpy as np

    paths = sorted((folder / "calibration").iterdir())
    if paths[0].suffix == ".npz":
        yield from (np.load(path)["x"] for path in paths)
        return
    from benchmarks.entropy_scales import images

    yield from (next(iter(feed.values())) for feed in images(folder / "calibration"))


def file_of(way: str) -> str:
    return way.replace(" ", "_") + ".engine"


def build(name: str, way: str, folder: Path, level: int) -> dict:
    """One engine; {} where it is there already."""
    engine = file_of(way)
    if (folder / engine).exists():
        return {}
    command = command_of(name, way, folder, engine, level)
    row = {}
    for key in ("build_s", "again_s") if way == "fp16" else ("build_s",):
        started = time.monotonic()
        done = subprocess.run([sys.executable, *map(str, command)], cwd=folder, capture_output=True, text=True)
        if done.returncode:
            return {"error": done.stderr[-600:]}
        row[key] = time.monotonic() - started
        if WAYS[way]:  # TensorRT's own part of it
            row[f"tensorrt_{key}"] = json.loads((folder / f"{engine}.r.json").read_text())["timings_s"]["build"]
    return row


def command_of(name: str, way: str, folder: Path, engine: str, level: int) -> list:
    """Of one engine, run in `folder`."""
    flags = WAYS[way]
    if flags is None:
        return [Path(__file__).resolve(), "--raw", folder, engine, "int8" if "int8" in way else "fp16", level]
    command = [ROOT / "onnx2trt.py", "--onnx", "model.onnx", *flags, "-o", engine, "--json", f"{engine}.r.json"]
    command += ["--timing-cache", "ours.timings", "--builder-optimization-level", level]
    command += ["--calibration-dir", "calibration", "--calibration-cache", "scales.cache"] if "int8" in way else []
    command += ["--max-accuracy-drop", "100", "--quantization-effort", "fast"] if name in MADE_UP else []
    return [*command, "--max-batch-size", BATCH[name]] if name in BATCH else command


def mean_iou(path: Path) -> float:
    """Of an engine of the example, by its own script."""
    done = subprocess.run([sys.executable, str(EXAMPLE / "evaluate.py"), str(path), "--json"], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["miou"]


def measure(folder: Path, ways: list[str], layers: bool) -> dict[str, dict]:
    """p50 of each engine in ms, alternated, with the counts of its layers.

    Args:
        layers: print where each of them loses time.
    """
    import numpy as np
    import onnx

    from onnx2trt.trt import inspector
    from onnx2trt.trt.constraints import labels
    from onnx2trt.trt.engine import Engine
    from onnx2trt.trt.library import load_library
    from onnx2trt.trt.memory import open_cuda

    library, cuda, engines = load_library("tensorrt"), open_cuda(), {}
    try:
        for way in ways:
            path = folder / file_of(way)
            if path.exists():
                engines[way] = Engine(library, path.read_bytes(), cuda, lambda text: None)
        random = np.random.default_rng(2)
        for engine in engines.values():
            engine.load({t.name: random.random(t.profile.opt, np.float32) for t in engine.tensors if t.is_input})
            engine.time_ms(RUNS)  # to warm up
        times: dict[str, list[float]] = {way: [] for way in engines}
        for _ in range(ROUNDS):
            for way, engine in engines.items():
                engine.time_ms(RUNS // 5)
                times[way].append(statistics.median(engine.time_ms(RUNS)))
        if layers and "raw fp16" in engines:
            known = labels((node.name, tuple(node.output)) for node in onnx.load(folder / "model.onnx").graph.node)
            timed = {way: (inspector.parse_layers(engine.inspect(), known), engine.layer_ms(RUNS)) for way, engine in engines.items()}
            for way, own in timed.items():
                if way != "raw fp16":
                    print("\n".join(losses(way, own, timed["raw fp16"])))
        return {
            way: {
                "p50_ms": statistics.median(times[way]),
                "mb": (folder / file_of(way)).stat().st_size / 1e6,
                "layers": inspector.count_layers(inspector.parse_layers(engine.inspect(), {})),
            }
            for way, engine in engines.items()
        }
    finally:
        for engine in engines.values():
            engine.close()
        cuda.close()


def losses(way: str, own, base) -> list[str]:
    """Lines on the time of conversions between formats, and on the parts that lose most.

    Args:
        own, base: trt.profile.Timed of the engine and of raw fp16.
    """
    from onnx2trt.trt.profile import parts_of

    def conversions(timed) -> str:
        times = [ms for name, ms in timed[1].items() if "Reformat" in name]
        return f"{len(times)} conversions, {sum(times):.3f} of {sum(timed[1].values()):.3f} ms in {len(timed[1])} layers"

    lines = [f"{way}: {conversions(own)}; raw fp16: {conversions(base)}"]
    for part in sorted(parts_of(own, base), key=lambda part: part.second_ms - part.first_ms)[:WORST_PARTS]:
        lines.append(f"  {1000 * part.first_ms:7.1f} us against {1000 * part.second_ms:7.1f}: {', '.join(sorted(part.nodes))[:100]}")
    return lines


def compare(name: str, ways: list[str], folder: Path, level: int, layers: bool) -> dict[str, dict]:
    """Build and time all engines of a network."""
    folder.mkdir(parents=True, exist_ok=True)
    write_network(name, folder)
    rows: dict[str, dict] = {}
    ways = [way for way in ways if way != "raw int8" or name not in BATCH]
    for way in ways:
        rows[way] = build(name, way, folder, level)
        print(f"{name}, {way}: {rows[way].get('error') or 'built'}", file=sys.stderr, flush=True)
    for way, found in measure(folder, ways, layers).items():
        rows[way].update(found)
    base = rows["raw fp16"].get("p50_ms")
    for way, row in rows.items():
        if base and "p50_ms" in row:
            row["ratio"] = row["p50_ms"] / base
            if way == "int8" and NETWORKS[name]:
                row["reached"] = row["ratio"] <= NETWORKS[name]
        if name in BATCH and "p50_ms" in row:
            row["miou"] = mean_iou(folder / file_of(way))
    return rows


def show(name: str, rows: dict[str, dict]) -> None:
    for way, row in rows.items():
        if "p50_ms" not in row:
            print(f"{name:9} {way:9} failed: {row.get('error', 'no engine')}")
            continue
        verdict = "" if "reached" not in row else "  reached" if row["reached"] else f"  MISSED {NETWORKS[name]}"
        verdict += f"  mIoU {row['miou']:.4f}" if "miou" in row else ""
        counts = ", ".join(f"{count} {kind}" for kind, count in row["layers"].items() if count)
        seconds = f"{row['build_s']:7.1f}" if "build_s" in row else "       "
        print(f"{name:9} {way:9} {row['p50_ms']:8.4f} ms {row.get('ratio', 0):6.3f} {row['mb']:6.1f} MB {seconds} s  {counts}{verdict}")
        if "again_s" in row:
            parts = [row[f"tensorrt_{key}"] for key in ("build_s", "again_s")]
            print(f"{name:9} {way:9} again in {row['again_s']:.1f} s; TensorRT's part of it {parts[0]:.1f} and {parts[1]:.1f} s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="raw fp16 is always among them")
    parser.add_argument("--level", type=int, default=3, help="builder optimization level (default: 3, TensorRT's own)")
    parser.add_argument("--layers", action="store_true", help="print the parts of each network that lose most against raw fp16")
    parser.add_argument("--folder", type=Path, help="keep models and engines there")
    parser.add_argument("--json", metavar="FILE", help="write the figures as JSON")
    parser.add_argument("--raw", nargs=4, metavar=("FOLDER", "ENGINE", "PRECISION", "LEVEL"), help="be the bare script")
    args = parser.parse_args()
    if args.raw:
        build_raw(Path(args.raw[0]), args.raw[1], args.raw[2] == "int8", int(args.raw[3]))
        return 0
    ways = [way for way in WAYS if way == "raw fp16" or way in args.ways]
    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name in args.networks:
            found[name] = compare(name, ways, (args.folder or Path(temporary)).resolve() / name, args.level, args.layers)
            show(name, found[name])
            if args.json:
                Path(args.json).write_text(json.dumps(found, indent=2) + "\n")
    return 0 if all(row.get("reached", True) for rows in found.values() for row in rows.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
