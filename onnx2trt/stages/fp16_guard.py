"""Stage 'choose' of FP16 and BF16: the layers that keep FP32 because the outputs would differ by more than was allowed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.compare.outputs import OtherShape
from onnx2trt.conversion.comparing import Reference, as_declared, worst_output
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.data.feeds import batches_to_compare, inferences
from onnx2trt.data.samples import Dataset
from onnx2trt.model.graph import Graph
from onnx2trt.model.half_types import BY_NAME, FP16, HalfType
from onnx2trt.model.nodes import subgraphs
from onnx2trt.model.session import AT_ONCE, Session
from onnx2trt.plan.plan import LEAST_FP16_SHARE
from onnx2trt.quant.fp16_segments import Part, Tried, bound_to_half, lowered, segment_errors, segments, unconvertible, working
from onnx2trt.quant.sensitivity import climb, left
from onnx2trt.report.result import Precision
from onnx2trt.rewrite.fp16 import convert
from onnx2trt.rewrite.shares import macs_of
from onnx2trt.rewrite.simulate import simulation

FIRST_LOOK = 20  # samples; nearly all models pass, and shall not wait for it
MOST_MEASURED = 100  # samples for each of several choices
RANKED_BY = 4  # samples that single segments are measured on
ROUNDS = 2  # all segments; then those that had to be kept, cut up once more
NOTHING_AGREES = 100.0  # percent


@dataclass(frozen=True)
class Fp16Choice:
    """What the guard of FP16 or BF16 has decided."""

    kept_fp32: dict[str, str]  # node -> reason
    tried: tuple[Tried, ...] | None = None  # what was measured, in order; None where it was good as it is, or nothing was measured

    def rows(self) -> list[dict] | None:
        """For the result."""
        keys = ("fp16_share", "drop_percent", "standard_error", "passed")
        return None if self.tried is None else [{key: getattr(rung, key) for key in keys} for rung in self.tried]


def choose_fp16(job: Job, graph: Graph, kept_fp32: dict[str, str], run: Run) -> Fp16Choice:
    """The nodes that stay in FP32: those kept already, and more while FP16 or BF16 costs more than --max-accuracy-drop.

    Args:
        graph: FP32.
        kept_fp32: node -> reason, by range and by layer precision overrides.

    Raises:
        ConversionError: VALIDATION, where the limit cannot be met; the message holds what was tried.
    """
    plan, as_they_are = job.plan, Fp16Choice(kept_fp32)
    guarded = plan.precision in BY_NAME and plan.keep_layers and plan.validation.enabled and not plan.build.plugins
    if not guarded or job.info.quantized:  # a model's own Q/DQ are kept as they are
        return as_they_are
    in_fp32 = {**unconvertible(graph), **kept_fp32}
    if not job.strong:  # TensorRT's flags do not lower what is in a body
        in_fp32 |= {node.name: "control flow" for node in graph.nodes if subgraphs(node)}
    bound = bound_to_half(graph, plan.layer_precisions)
    free = tuple(node for node in lowered(graph, in_fp32) if node not in bound)
    if not free:
        return as_they_are
    with run.stage("choose", f"choosing the {job.half.label} layers"):
        try:
            trials = _Trials(job, graph, in_fp32, run)
            if trials.share(set()) < LEAST_FP16_SHARE:  # stages/read_back.py will say so
                return as_they_are
            first = _first_look(trials, job.data.to_compare()[0])
            run.console.debug(_line(first, job.half))
            if first.passed:
                return as_they_are
            more, tried = _search(trials, free, first)
            return Fp16Choice({**kept_fp32, **more}, tuple(tried))
        except ConversionError as error:
            if error.code is not ExitCode.MODEL:
                raise
            run.console.warn(f"{job.half.label} cannot be simulated here, so no layer is kept in FP32 for its accuracy: {error.message}")
            return as_they_are


class _Trials:
    """Measures choices of FP32 layers one after the other."""

    def __init__(self, job: Job, graph: Graph, in_fp32: dict[str, str], run: Run):
        self.job, self.graph, self.in_fp32, self.run = job, graph, in_fp32, run
        self.working = working(graph)
        self._macs = macs_of(graph, job.profiles) or dict.fromkeys(self.working, 1)
        self._session = Session.from_graph(graph)

    def use(self, dataset: Dataset) -> None:
        """Measure on this from now on."""
        self.dataset, self._reference = dataset, Reference(lambda: self._session)
        self.comparison = self.job.comparison()  # what it learns of the reference holds for all choices on this data

    def share(self, nodes: set[str]) -> float:
        """Of the work in 16 bits, with these kept in FP32 as well; of the layers where there are no convolutions and matrix products."""
        lowered_work = sum(count for name, count in self._macs.items() if name not in nodes and name not in self.in_fp32)
        return lowered_work / max(sum(self._macs.values()), 1)

    def allowed(self, order: list[Part]) -> list[Part]:
        """The segments without those that would leave too little to count as delivered, together with what stands before them."""
        kept: set[str] = set()
        found = []
        for part in order:
            if self.share(kept.union(part)) >= LEAST_FP16_SHARE:
                kept.update(part)
                found.append(part)
        return found

    def measure(self, kept: list[Part]) -> Tried:
        """The drop of the outputs with these segments kept in FP32 as well; it passes by the rule of the final check."""
        job, dataset = self.job, self.dataset
        nodes = {node for segment in kept for node in segment}
        share = round(self.share(nodes), 6)
        half = convert(self.graph, {**self.in_fp32, **dict.fromkeys(nodes, "")}, job.fp16_io, job.half)
        batches = batches_to_compare(job.data, [dataset])
        try:
            label = f"measuring with {share:.0%} in {job.half.label}"
            tracked = self.run.console.track(batches, inferences(job.data.reader, dataset), label)
            session = Session.from_graph(simulation(half), in_turn=inferences(job.data.reader, dataset) < AT_ONCE)
            candidate = as_declared(job, session.run)
            rows = self.comparison.compare(self._reference.one_pass(), candidate, tracked, dataset.origin, at_once=session.at_once)
        except OtherShape as error:
            return Tried(len(kept), share, NOTHING_AGREES, 0.0, False, error.message)
        limit = job.plan.validation.max_drop_percent
        worst, passed = worst_output(rows, limit)
        drop, error = round(worst.drop_percent, 6), round(worst.standard_error or 0.0, 6)
        invalid = ", with values that are NaN or infinite" if worst.nonfinite else ""
        decided_by = f"output {worst.output!r} on {worst.inputs} ({worst.metric}{invalid})"
        return Tried(len(kept), share, drop, error, passed, decided_by, any(row.few(limit) for row in rows))


def _first_look(trials: _Trials, dataset: Dataset) -> Tried:
    """With nothing more kept, on a few samples; where that does not pass, or tells too little, on all that the final check will use.

    Of a few samples one may tip over by chance, which is much where classes are counted. No layer is kept in FP32 for that, and nothing
    passes for it: the final check would refuse it, and no layer would have been tried.
    """
    trials.use(dataset.at_most(FIRST_LOOK))
    first = trials.measure([])
    if (first.few or not first.passed) and len(dataset.samples) > FIRST_LOOK:
        trials.use(dataset)
        first = trials.measure([])
        if len(dataset.samples) > MOST_MEASURED:
            trials.use(dataset.at_most(MOST_MEASURED))
    return first


def _search(trials: _Trials, free: Part, first: Tried) -> tuple[dict[str, str], list[Tried]]:
    """The segments to keep in FP32, most harmful first, as few as the limit allows: (node -> reason, what was tried).

    Args:
        free: nodes that may be kept.
        first: what was measured with none of them kept.
    """
    tried, best, errors = [first], None, {}
    parts = segments(free)
    for _ in range(ROUNDS):
        errors |= _errors(trials, parts)
        order = trials.allowed(sorted(parts, key=errors.get, reverse=True))
        layers = {part: len(trials.working.intersection(part)) for part in parts}
        total = max(sum(layers.values()), 1)
        shares = [count / total for count in left(order, layers)]
        found = climb(shares, 0.0, first, lambda kept, order=order: trials.measure(order[:kept]))
        tried += found[1:]
        kept = min((rung.kept for rung in found if rung.passed), default=None)
        if kept is None:
            break
        best = order[:kept]
        if all(len(part) == 1 for part in best):
            break
        chosen = {node for part in best for node in part}
        parts = segments([node for node in free if node in chosen])
    for rung in tried:
        trials.run.console.debug(_line(rung, trials.job.half))
    if best is None:
        raise _out_of_reach(trials, tried)
    return {node: _reason(part, errors[part], trials.job.half) for part in best for node in part}, tried


def _errors(trials: _Trials, parts: list[Part]) -> dict[Part, float]:
    """Part -> change of the outputs with it alone in 16 bits."""
    console = trials.run.console
    few = [batch.feed for batch in batches_to_compare(trials.job.data, [trials.dataset.at_most(RANKED_BY)])]
    measured = segment_errors(trials.graph, trials.job.profiles, parts, few, trials.comparison.change, trials.job.half)
    found = console.track(measured, len(parts), f"measuring what {trials.job.half.label} costs in each part")
    errors = {}
    for part, error in found:
        console.debug(f"{part[0]}{f' to {part[-1]}' if len(part) > 1 else ''}: {error:.3%}")
        errors[part] = error
    return errors


def _reason(part: Part, error: float, half: HalfType) -> str:
    where = "here" if len(part) == 1 else f"in this part of {len(part)} nodes"
    if math.isinf(error):
        return f"{half.label} {where} alone makes the outputs NaN, infinite or of another shape"
    return f"{half.label} {where} alone changes the outputs by {100 * error:.3g} %"


def _out_of_reach(trials: _Trials, tried: list[Tried]) -> ConversionError:
    limit = trials.job.plan.validation.max_drop_percent
    half = trials.job.half
    bound = f" or fewer --layer-precisions in {half.name}," if trials.job.plan.layer_precisions else ""
    other = "bf16 or fp32" if half is FP16 and trials.job.plan.bf16 else "fp32"
    lines = "\n".join(f"  {_line(rung, half)}" for rung in tried)
    error = ConversionError(
        f"{tried[0].decided_by}: {half.label} does not reach --max-accuracy-drop {limit:g} % "
        f"with at least {LEAST_FP16_SHARE:.0%} of the work in {half.label}. What was tried:\n{lines}",
        hint=f"Use --precision {other},{bound} or a larger --max-accuracy-drop.",
        code=ExitCode.VALIDATION,
    )
    error.found["precision"] = Precision(half.name, tried=Fp16Choice({}, tuple(tried)).rows())
    return error


def _line(rung: Tried, half: HalfType) -> str:
    return f"{rung.fp16_share:4.0%} {half.label}: drop {rung.drop_percent:7.3g} +- {rung.standard_error:.2g} %"
