"""Which INT8 layers an engine computes more slowly than the FP16 engine of the same model does."""

from __future__ import annotations

from collections.abc import Callable

from core.arrays import synthetic_arrays
from graph import qdq
from graph.observe import static_shapes
from stages.job import Job
from stages.reading import loaded_engine
from stages.run import Run
from trt import inspector
from trt.constraints import labels
from trt.profile import Part, Timed, parts_of

WORTH_IT = 0.01  # of the whole engine's time: less is not worth another build
CLEARLY = 1.05  # times slower; single layers are timed less exactly than engines
RUNS = 50


def time_layers(job: Job, made, run: Run) -> Timed:
    """The layers of an engine and their times.

    Args:
        made: variants.Made.
    """
    with loaded_engine(job.library, job.plan, made.built.data, run, job.plan.build.version_compatible) as engine:
        engine.load(synthetic_arrays(job.info.inputs, job.profiles))
        nodes = ((node.name, tuple(node.output)) for node in made.prepared.graph.nodes)
        return inspector.parse_layers(engine.inspect(), labels(nodes)), engine.layer_ms(RUNS)


def slower_in_int8(job: Job, made, int8: Timed, fp16: Timed) -> dict[str, str]:
    """INT8 nodes that should rather be FP16, with the reason; empty where that would gain less than WORTH_IT.

    As many stay in INT8 as --min-int8-share asks for, those that lose least.

    Args:
        made: variants.Made of the INT8 engine.
    """
    graph = made.prepared.graph
    macs = qdq.count_macs(graph, static_shapes(graph, job.profiles))
    least = job.plan.min_int8_share * sum(macs.values())
    return choose_slow(parts_of(int8, fp16), inspector.nodes_in(int8[0], "int8"), macs, least)


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
    orders = (lost, lambda part: lost(part) / max(work_of(part.nodes), 1))  # the usual two guesses at a knapsack
    tried = [_fill(sorted(slow, key=order, reverse=True), work_of, work_of(int8_nodes) - least) for order in orders]
    back = max(tried, key=lambda found: sum(map(lost, found)))
    if sum(map(lost, back)) < WORTH_IT * total:
        return {}
    return {
        node: f"slower in INT8 here: {part.first_ms:.4f} ms against {part.second_ms:.4f} ms in FP16"
        for part in back
        for node in sorted(part.nodes & int8_nodes)
    }


def _fill(parts: list[Part], work_of: Callable[[frozenset[str]], int], room: float) -> list[Part]:
    """Those parts, the first first, whose work has room together."""
    taken = []
    for part in parts:
        if work_of(part.nodes) <= room:
            room -= work_of(part.nodes)
            taken.append(part)
    return taken
