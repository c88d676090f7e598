"""Which INT8 layers an engine computes more slowly than the FP16 engine of the same model does."""

from __future__ import annotations

from core.arrays import synthetic_arrays
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


def slower_in_int8(int8: Timed, fp16: Timed) -> dict[str, str]:
    """INT8 nodes that should rather be FP16, with the reason; empty where that would gain less than WORTH_IT."""
    return choose_slow(parts_of(int8, fp16), inspector.nodes_in(int8[0], "int8"))


def choose_slow(parts: list[Part], int8_nodes: set[str]) -> dict[str, str]:
    """Of parts that both engines compute, the INT8 nodes of those that are clearly slower in INT8."""
    total = sum(part.first_ms for part in parts)
    slow = [part for part in parts if part.nodes & int8_nodes and part.first_ms > CLEARLY * part.second_ms]
    if sum(part.first_ms - part.second_ms for part in slow) < WORTH_IT * total:
        return {}
    return {
        node: f"slower in INT8 here: {part.first_ms:.4f} ms against {part.second_ms:.4f} ms in FP16"
        for part in slow
        for node in sorted(part.nodes & int8_nodes)
    }
