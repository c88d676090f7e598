"""All engines of one network, timed in turn, with CUDA graphs and with plain launches, and compared with ONNX Runtime."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path

import numpy as np

from onnx2trt.trt.engine import Engine

MOST_DB = 150.0  # of outputs that are the same: JSON has no infinity
WORST_PARTS = 12  # shown of each engine


def checked(answer: tuple):
    """The value of a call of cuda-python, which returns (status, *values).

    Raises:
        RuntimeError: the status is none of success.
    """
    status, *values = answer
    if int(status):
        raise RuntimeError(f"CUDA error {int(status)}: {getattr(status, 'name', status)}")
    return values[0] if values else None


class GraphEngine(Engine):
    """An engine whose work on the inputs that are loaded can be launched as one CUDA graph, as long as they stay loaded."""

    graph = None

    def capture(self) -> None:
        """Make the graph; the inputs are loaded, and the engine has run on them once, as TensorRT wants it.

        Raises:
            RuntimeError: CUDA cannot capture what TensorRT does.
        """
        from cuda.bindings import runtime

        checked(runtime.cudaStreamBeginCapture(self._stream, runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal))
        queued = self._context.execute_async_v3(self._stream)
        answer = runtime.cudaStreamEndCapture(self._stream)  # whatever happened: the stream is of no use before it
        if not queued or int(answer[0]):
            runtime.cudaGetLastError()  # or the next call would answer it once more
            raise RuntimeError("it cannot be captured: " + (" ".join(self._messages.take_errors()) or str(answer[0])))
        self.graph = checked(runtime.cudaGraphInstantiate(checked(answer), 0))

    def graph_ms(self, runs: int) -> list[float]:
        """As time_ms, each inference a launch of the graph."""
        from cuda.bindings import runtime

        events = [self._cuda.record(self._stream)]
        for _ in range(runs):
            checked(runtime.cudaGraphLaunch(self.graph, self._stream))
            events.append(self._cuda.record(self._stream))
        self._cuda.synchronize(self._stream)
        return [self._cuda.milliseconds(start, end) for start, end in zip(events, events[1:])]


def measure(folder: Path, ways: dict[str, str], options: dict) -> None:
    """Figures of each engine, in a process of its own; which of them was at work stands in folder/at, should it crash.

    Writes folder/clock.json: gpu and tensorrt, and engines: way -> p50_ms (plain launches), graph_p50_ms or graph_error, sqnr_db,
    mb, layers.

    Args:
        ways: way -> engine file in the folder.
        options: rounds; runs in each of them; layers: print where each of them loses time against raw fp16.

    Raises:
        ConversionError, RuntimeError: an engine does not load or run; it is the one in folder/at.
    """
    from onnx2trt.base.driver import probe_driver
    from onnx2trt.trt.library import load_library
    from onnx2trt.trt.memory import open_cuda

    library, cuda = load_library("tensorrt"), open_cuda("cuda-python")
    library.trt.init_libnvinfer_plugins(library.trt.Logger(library.trt.Logger.ERROR), "")
    feed, expected = (dict(np.load(folder / name)) for name in ("feeds/0.npz", "reference.npz"))
    found: dict[str, dict] = {}
    engines: dict[str, GraphEngine] = {}  # all stay alive to the end: their graphs use what is theirs
    try:
        for way, file in ways.items():
            (folder / "at").write_text(way)
            data = (folder / file).read_bytes()
            engines[way] = GraphEngine(library, data, cuda, lambda *_: None)
            found[way] = {"mb": len(data) / 1e6, **_look(engines[way], feed, expected)}
        for way, figures in take_turns(engines, options["rounds"], options["runs"], lambda way: (folder / "at").write_text(way)).items():
            found[way].update(figures)
        if options["layers"] and "raw fp16" in engines:
            print("\n".join(_layer_times(engines, options["runs"], folder)), flush=True)
        about = {"gpu": probe_driver().gpu, "tensorrt": library.version, "engines": found}
        (folder / "clock.json").write_text(json.dumps(about))
    finally:
        for engine in engines.values():
            engine.close()
        cuda.close()


def _look(engine: GraphEngine, feed: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> dict:
    """Run an engine for the first time, and capture it: sqnr_db, layers, perhaps graph_error."""
    from onnx2trt.trt import inspector

    row: dict = {"sqnr_db": sqnr_db(expected, engine.run(feed))}
    row["layers"] = inspector.count_layers(inspector.parse_layers(engine.inspect(), {}))
    try:
        engine.capture()
    except RuntimeError as error:
        row["graph_error"] = str(error)
    return row


def take_turns(engines: dict[str, GraphEngine], rounds: int, runs: int, at) -> dict[str, dict]:
    """Way -> p50_ms and, where there is a graph, graph_p50_ms: medians over the rounds of the median of each.

    Args:
        at: is told the way that is at work.
    """
    plain: dict[str, list[float]] = {way: [] for way in engines}
    graphs: dict[str, list[float]] = {way: [] for way, engine in engines.items() if engine.graph is not None}
    for _ in range(rounds):
        for way, engine in engines.items():
            at(way)
            for time, kept in ((engine.time_ms, plain), (engine.graph_ms, graphs)):
                if way in kept:
                    time(max(runs // 5, 1))  # to warm up
                    kept[way].append(statistics.median(time(runs)))
    found = {way: {"p50_ms": statistics.median(times), "rounds_ms": times} for way, times in plain.items()}
    for way, times in graphs.items():
        found[way].update(graph_p50_ms=statistics.median(times), graph_rounds_ms=times)
    return found


def sqnr_db(expected: dict[str, np.ndarray], given: dict[str, np.ndarray]) -> float | None:
    """Of the output that is worst, in dB; None where there is none of floating point, or what is given is no number."""
    found = []
    for name, array in expected.items():
        if array.dtype.kind != "f" or name not in given:
            continue
        signal, noise = array.astype(np.float64), given[name].astype(np.float64) - array
        power = float((noise**2).sum())
        if not math.isfinite(power):
            return None
        found.append(min(10 * math.log10(max(float((signal**2).sum()), 1e-300) / power), MOST_DB) if power else MOST_DB)
    return min(found, default=None)


def _layer_times(engines: dict[str, GraphEngine], runs: int, folder: Path) -> list[str]:
    """After everything else: TensorRT's profiler cannot be taken off a context, so each of them is given up for it."""
    import onnx

    from onnx2trt.trt import inspector
    from onnx2trt.trt.constraints import labels

    nodes = onnx.load(json.loads((folder / "about.json").read_text())["model"], load_external_data=False).graph.node
    known = labels((node.name, tuple(node.output)) for node in nodes)
    timed = {way: (inspector.parse_layers(engine.inspect(), known), engine.layer_ms(runs)) for way, engine in engines.items()}
    return [line for way, own in timed.items() if way != "raw fp16" for line in losses(way, own, timed["raw fp16"])]


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
