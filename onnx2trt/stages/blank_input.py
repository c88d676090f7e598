"""Stage 'ranges', its second part: nodes that stay in FP32 because an input in which nothing is would become NaN or infinite."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx2trt.base.errors import ConversionError
from onnx2trt.conversion.blank import blank_inputs, lost
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.data.reader import Arrays
from onnx2trt.model.graph import Graph
from onnx2trt.model.half_types import BY_NAME
from onnx2trt.model.nodes import reads
from onnx2trt.model.observe import GROUP_BYTES, in_groups, static_shapes
from onnx2trt.model.segments import tensor_bytes
from onnx2trt.model.session import Session
from onnx2trt.plan.precision_arguments import EIGHT_BIT
from onnx2trt.quant.fp16_segments import bound_to_half, unconvertible
from onnx2trt.rewrite.fp16 import convert, forget_halves
from onnx2trt.rewrite.simulate import simulated

ROUNDS = 20  # each keeps at least one node more
OFF = 0.5  # relative error from which on a value counts as lost
REASON = "an input of zeros, where the model is finite, would become NaN or infinite in "  # before the type


def kept_for_blank(job: Job, graph: Graph, kept_fp32: dict[str, str], run: Run) -> dict[str, str]:
    """The nodes that stay in FP32: those kept already, and more while FP16 or BF16 makes NaN or infinity of an input of zeros.

    Args:
        graph: FP32.
        kept_fp32: node -> reason, by range and by layer precision overrides.
    """
    plan = job.plan
    guarded = plan.precision in (*BY_NAME, *EIGHT_BIT) and plan.keep_layers and plan.validation.enabled and not plan.build.plugins
    if not guarded or job.info.quantized:
        return kept_fp32
    with run.stage("ranges", "trying an input of zeros"):
        try:
            return _Search(job, graph, kept_fp32).run()
        except ConversionError as error:  # the guard of FP16 says that nothing can be simulated here
            run.console.debug(f"an input of zeros could not be tried: {error.message}")
            return kept_fp32
        finally:
            forget_halves()


@dataclass(frozen=True)
class _Differences:
    """What FP16 or BF16 has made of the tensors of a graph."""

    lost: frozenset[str]  # NaN or infinite where they were finite
    off: frozenset[str]  # far from what they were, as those that have become zero


class _Search:
    def __init__(self, job: Job, graph: Graph, kept_fp32: dict[str, str]):
        self._job, self._graph, self._kept = job, graph, dict(kept_fp32)
        self._others = unconvertible(graph)
        self._bound = bound_to_half(graph, job.plan.layer_precisions)
        self._producers = graph.producers()

    def run(self) -> dict[str, str]:
        # to optimize a graph takes longer than one inference; this one is let go before others are loaded
        tried = list(blank_inputs(self._job, Session.from_graph(self._graph, optimize=False).run))
        for batch, expected in tried:
            for _ in range(ROUNDS):
                half, names = simulated(convert(self._graph, {**self._others, **self._kept}, half=self._job.half))
                found = Session.from_graph(half, optimize=False).run(batch.arrays)
                if not lost(expected, found) or not self._keep_more(half, names, batch.arrays):
                    break
        return self._kept

    def _keep_more(self, half: Graph, names: dict[str, str], arrays: Arrays) -> bool:
        """Whether nodes were found that can be kept, too: where values are lost first, and what brings them values that are far off."""
        found, before = self._differences(half, names, arrays), len(self._kept)
        for node in self._graph.nodes:
            if found.lost.intersection(node.output) and not found.lost.intersection(reads(node)):
                self._keep(node.name)
                self._keep_sources(node, found.off)
        return len(self._kept) > before

    def _keep_sources(self, node, off: frozenset[str]) -> None:
        todo = [node]
        while todo:
            for name in reads(todo.pop()):
                above = self._producers.get(name)
                if above is not None and name in off:
                    self._keep(above.name)
                    todo.append(above)

    def _keep(self, name: str) -> None:
        if name not in self._bound:
            self._kept.setdefault(name, REASON + self._job.half.label)

    def _differences(self, half: Graph, names: dict[str, str], arrays: Arrays) -> _Differences:
        """Of all tensors, in groups that fit into memory."""
        made = {name for node in half.nodes for name in node.output}
        of_half = {name: names.get(name, name) for name in self._graph.float_tensors() if name in self._producers}
        wanted = [name for name, other in of_half.items() if other in made]
        shapes = static_shapes(self._graph, self._job.profiles)
        lost_ones, off = set(), set()
        for group in in_groups(wanted, lambda name: 2 * tensor_bytes(name, shapes), GROUP_BYTES):
            others = tuple(dict.fromkeys(of_half[name] for name in group))
            expected = Session.from_graph(self._graph, tuple(group)).run(arrays, tuple(group))
            found = Session.from_graph(half, others).run(arrays, others)
            for name in group:
                a, b = expected[name], found[of_half[name]]
                finite = np.isfinite(a)
                if not np.isfinite(b[finite]).all():
                    lost_ones.add(name)
                with np.errstate(invalid="ignore"):
                    if (np.abs(b - a)[finite] > OFF * np.abs(a[finite])).any():
                        off.add(name)
        return _Differences(frozenset(lost_ones), frozenset(off))
