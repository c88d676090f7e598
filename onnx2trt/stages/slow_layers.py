"""Which INT8 (or FP8) layers an engine computes more slowly than the FP16 engine of the same model does; below, INT8 is said for both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from statistics import median

from onnx2trt.conversion.job import Job
from onnx2trt.data.arrays import synthetic_arrays
from onnx2trt.model.graph import Graph
from onnx2trt.model.operators import QUANTIZERS
from onnx2trt.rewrite.shares import macs_of
from onnx2trt.trt import inspector
from onnx2trt.trt.engine import Engine
from onnx2trt.trt.inspector import EngineLayer
from onnx2trt.trt.profile import Groups, Part, Timed, parts_of

WORTH_IT = 0.01  # of the whole engine's time: less is not worth another build
CLEARLY = 1.05  # times slower; single layers are timed less exactly than engines
ENOUGH_PARTS = 5  # whose times tell the pace
RUNS = 50


def time_layers(job: Job, graph: Graph, engine: Engine) -> Timed:
    """The layers of a loaded engine and their times.

    Args:
        graph: that it was built from.
    """
    engine.load(synthetic_arrays(job.info.inputs, job.profiles))
    layers = inspector.layers_of(engine.inspect(), graph.nodes)
    engine.time_ms(RUNS)  # to wake the GPU up
    return served_by(graph, layers), engine.layer_ms(RUNS)


def served_by(graph: Graph, layers: tuple[EngineLayer, ...]) -> tuple[EngineLayer, ...]:
    """The layers, with the nodes that read what a Q or DQ node makes in its place: it is there for them, and no FP16 engine has it.

    An INT8 layer that quantizes what it writes does so in passing, and answers for itself alone: else one that is slow could not be told
    from those before and behind it (the 1x1 convolution at the end of a UNet on an H200: 69 us in INT8, 38 in FP16).
    """
    read_by = _read_by(graph)
    instead = {node.name: read_by[node.name] for node in graph.nodes if node.op_type in QUANTIZERS}

    def served(layer: EngineLayer) -> tuple[str, ...]:
        own = tuple(node for node in layer.nodes if node not in instead)
        if own and layer.in_8_bits:
            return own
        return tuple(dict.fromkeys(name for node in layer.nodes for name in instead.get(node, (node,))))

    return tuple(replace(layer, nodes=served(layer)) for layer in layers)


def _read_by(graph: Graph) -> dict[str, tuple[str, ...]]:
    """Node -> the nodes that read its results, through Q and DQ."""
    readers = graph.consumers()
    found: dict[str, tuple[str, ...]] = {}
    for node in reversed(graph.nodes):
        direct = [reader for tensor in node.output for reader in readers.get(tensor, [])]
        names = [found[reader.name] if reader.op_type in QUANTIZERS else (reader.name,) for reader in direct]
        found[node.name] = tuple(dict.fromkeys(name for group in names for name in group))
    return found


def slower_in_int8(job: Job, graph: Graph, int8: Timed, fp16: Timed) -> dict[str, str]:
    """INT8 nodes that should rather be FP16, with the reason; empty where that would gain less than WORTH_IT.

    As many stay in INT8 as --min-int8-share asks for, those that lose least.

    Args:
        graph: that the INT8 engine was built from.
    """
    macs = macs_of(graph, job.profiles)
    least = job.plan.min_int8_share * sum(macs.values())
    int8_nodes = inspector.nodes_in_8_bits(int8[0])
    layers = int8_nodes & macs.keys()
    joined = slowed_down(graph, at_one_pace(parts_of(int8, fp16), int8_nodes), layers)
    parts = at_one_pace(parts_of(int8, fp16, joined), int8_nodes)
    slow = choose_slow(parts, layers, macs, least)
    room = sum(macs[node] for node in layers - slow.keys()) - least
    return slow | left_alone(graph, parts, int8_nodes, set(slow), macs, room)


def slowed_down(graph: Graph, parts: list[Part], layers: set[str]) -> list[tuple[str, ...]]:
    """Parts that are slower although nothing in them is INT8, each with the one INT8 layer that reads what they make.

    Equalized for that layer, their constants are one for each channel, which TensorRT's INT8 mode does not fuse.
    """
    read_by, found = _read_by(graph), []
    for part in parts:
        reading = layers.intersection(name for node in part.nodes for name in read_by.get(node, ()))
        if part.nodes.isdisjoint(layers) and part.first_ms > CLEARLY * part.second_ms and len(reading) == 1:
            found.append((*sorted(part.nodes), *reading))
    return found


def at_one_pace(parts: list[Part], int8_nodes: set[str]) -> list[Part]:
    """The parts as if the GPU had run both engines at the pace of the first, by those parts that both compute without INT8.

    The FP16 engine may have been timed before, with other clocks: measured 1.4 times slower on one machine, so that INT8 layers
    that lose time seemed not to.
    """
    others = [part for part in parts if not part.nodes & int8_nodes and part.first_ms > 0 and part.second_ms > 0]
    pace = median(part.first_ms / part.second_ms for part in others) if len(others) >= ENOUGH_PARTS else 1.0
    return [replace(part, second_ms=pace * part.second_ms) for part in parts]


def choose_slow(parts: list[Part], int8_nodes: set[str], work: dict[str, int], least: float) -> dict[str, str]:
    """Of parts that both engines compute, the INT8 nodes of those that are clearly slower in INT8.

    Args:
        work: node -> multiply-accumulates; others have none.
        least: of them that INT8 nodes must keep.
    """

    def work_of(nodes: set[str] | frozenset[str]) -> int:
        return sum(work.get(node, 0) for node in nodes & int8_nodes)

    def lost(part: Part) -> float:
        return part.first_ms - part.second_ms

    total = sum(part.first_ms for part in parts)
    slow = [part for part in parts if part.nodes & int8_nodes and part.first_ms > CLEARLY * part.second_ms]
    room = work_of(int8_nodes) - least
    # the usual two guesses at a knapsack; the first leaves few large layers in INT8, and what is measured of few is surer than of many
    by_work, by_time = (
        _fill(sorted(slow, key=order, reverse=True), work_of, room)
        for order in (lambda part: lost(part) / max(work_of(part.nodes), 1), lost)
    )
    gains = [sum(map(lost, found)) for found in (by_work, by_time)]
    back = by_time if gains[1] - gains[0] > WORTH_IT * total else by_work
    if max(gains) < WORTH_IT * total:
        return {}
    return {
        node: f"slower here: {part.first_ms:.4f} ms against {part.second_ms:.4f} ms in FP16"
        for part in back
        for node in sorted(part.nodes & int8_nodes)
    }


def left_alone(graph: Graph, parts: list[Part], int8_nodes: set[str], slow: set[str], work: dict[str, int], room: float) -> dict[str, str]:
    """INT8 layers that gain nothing themselves, and whose INT8 neighbours go back to FP16; with the reason.

    They were no slower because their neighbours wrote and read INT8. Alone, they pay for conversions that were not there to be timed
    (PP-OCRv4 det on 10.6, Conv.34: it had seemed no slower, and then took 25 us against 7).

    Args:
        slow: the INT8 layers that go back.
        work: node -> multiply-accumulates; others have none, and follow those that have.
        room: of them that may go back besides.
    """
    read_by, in_int8 = _read_by(graph), [part for part in parts if part.nodes & int8_nodes]
    found: dict[str, str] = {}
    for group in _touching(read_by, in_int8):
        staying = [part for part in group if not part.nodes & slow]
        for together in _touching(read_by, staying) if len(staying) < len(group) else ():
            layers = sorted(node for part in together for node in part.nodes & int8_nodes & work.keys())
            needed = sum(work[node] for node in layers)
            if needed <= room and not any(part.second_ms > CLEARLY * part.first_ms for part in together):
                room -= needed
                found |= dict.fromkeys(layers, "no faster than in FP16 here, and no layer of 8 bits is left beside it")
    return found


def _touching(read_by: dict[str, tuple[str, ...]], parts: list[Part]) -> list[list[Part]]:
    """The parts in groups: those that read what another of the group makes, or the same as another."""
    groups, known = Groups(), {node for part in parts for node in part.nodes}
    for part in parts:
        groups.join(tuple(part.nodes))
    for node, readers in read_by.items():
        groups.join(tuple(name for name in (node, *readers) if name in known))
    found: dict[str, list[Part]] = {}
    for part in parts:
        found.setdefault(groups.root(next(iter(part.nodes))), []).append(part)
    return list(found.values())


def _fill(parts: list[Part], work_of: Callable[[frozenset[str]], int], room: float) -> list[Part]:
    """Those parts, the first first, whose work has room together."""
    taken = []
    for part in parts:
        if work_of(part.nodes) <= room:
            room -= work_of(part.nodes)
            taken.append(part)
    return taken
