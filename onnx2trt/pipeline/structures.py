"""INT8 in the structure that is fastest: a few are built of one choice of layers, scales and weights, and timed.

No rule knows which one it is. Measured against the FP16 flag on an H200 with TensorRT 10.6: MobileNetV3-L 0.84 with everything in INT8 by
the calibrator and 1.72 with its depthwise layers in FP16; ResNet-50 0.69 with bound layers and 0.86 without; ViT-B 0.86 by Q/DQ and 1.39 by
the calibrator.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace

from onnx2trt.base.errors import AccuracyError, ConversionError, ExitCode, in_words
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.model.graph import Graph
from onnx2trt.pipeline.attempt import Attempt, loaded, time_in_turn
from onnx2trt.pipeline.engine import Made, build_and_check, choose
from onnx2trt.pipeline.int8 import Int8Choice
from onnx2trt.plan.structures import FREE, Structure
from onnx2trt.report.built import VariantRow
from onnx2trt.report.result import Result
from onnx2trt.rewrite.prepare import Prepared
from onnx2trt.stages import fp16_baseline as baseline
from onnx2trt.stages import structure_times
from onnx2trt.stages.faithful import SUSPECTED, grouped_convolutions, suspects
from onnx2trt.stages.fp16_baseline import Baseline
from onnx2trt.stages.slow_layers import slower_in_int8, time_layers
from onnx2trt.stages.structure_times import Fastest, Measured
from onnx2trt.trt import inspector
from onnx2trt.trt.inspector import EngineLayer
from onnx2trt.trt.profile import Timed

OF_THE_STRUCTURE = (ExitCode.VALIDATION, ExitCode.BUILD, ExitCode.MODEL)  # errors that another structure may not have


@dataclass
class Int8Engines:
    """The INT8 engines of one model, or its FP8 engines."""

    attempts: list[Attempt]
    builds: int  # that are left
    run: Run | None = None  # in which their layers were chosen; None: in that of the only attempt
    job: Job | None = None  # as it came, which what was measured is remembered by
    measured: Measured = field(default_factory=Measured)  # by an earlier run

    @property
    def chosen(self) -> Attempt:
        """The fastest that passed and computes what it should; where none does, the first that passed, or the first."""
        passed = [attempt for attempt in self.attempts if attempt.made]
        sound = [attempt for attempt in passed if not attempt.made.faithful.falls_short] or passed
        return min(sound, key=lambda attempt: attempt.p50_ms, default=self.attempts[0])

    def rows(self) -> list[VariantRow]:
        """One for each, those of an earlier run included; none where there is nothing to choose from."""
        now = [attempt.row() for attempt in self.attempts]
        names = {row.structure for row in now}
        return now + [row for row in self.measured.rows if row.structure not in names] if self.run else []

    def remember(self, run: Run, done: bool = True) -> None:
        """Keep what was measured, unless it is what was remembered.

        Args:
            done: nothing will be built any more, so the chosen one is the fastest.
        """
        if not self.run or done and not self.chosen.made:
            return
        chosen = self.chosen
        best = Fastest(chosen.structure, chosen.slow, sorted(chosen.own_weights)) if done else None
        if best is None or best != self.measured.fastest:
            structure_times.remember(self.job, Measured(tuple(self.rows()), best), run)


def build_int8(job: Job, common: Result, run: Run) -> Int8Engines:
    """An INT8 engine for each structure of the plan that may be the fastest, checked, and timed alone.

    Args:
        job: with --precision int8, and with structures.
        common: result of what all engines share.
    """
    first, builds = Attempt("int8", common.variant(), run.labelled("int8")), job.plan.calibration.effort.builds
    measured, given = structure_times.recall(job, run), job
    try:
        job, choice = choose(job, first.run)
        if not isinstance(choice, Int8Choice):  # TensorRT calibrates a model with plugins
            first.made = build_and_check(job, choice, choice.prepared(first.run), first.result, first.run)
            return Int8Engines([first], 0)
    except ConversionError as error:
        first.fail(error)
        return Int8Engines([first], 0)
    built = Int8Engines([], builds, first.run, given, measured)
    structures, unlikely = _in_order(job, choice)
    built.builds += sum(one.attention for one in structures)
    known = next((measured.fastest.of(one) for one in structures if measured.fastest and one.name == measured.fastest.structure), None)
    if known and _add(built, common, choice.in_structure(known), measured.fastest.slow).made:
        built.builds = 0
        return built
    wanted = measured.still_to_build(tuple(structure.name for structure in structures))
    choices = {one.name: choice.in_structure(one) for one in structures if one.name in wanted}
    for structure in structures:
        needless = "" if job.plan.calibration.effort.unlikely else _needless(structure, unlikely, built)
        if needless:
            run.console.info(f"INT8 by {structure.name} is not tried: {needless}; --quantization-effort best tries it")
        elif structure.name in choices:
            attempt = _add(built, common, choices[structure.name])
            if attempt.error and attempt.error.code not in OF_THE_STRUCTURE:
                break
            built.remember(run, done=False)
    if not any(attempt.made for attempt in built.attempts):
        _lower(built, common, choices)
    return built


def _in_order(job: Job, choice: Int8Choice) -> tuple[tuple[Structure, ...], tuple[Structure, ...]]:
    """(the structures to build, one after another; those of them that are built only where none before has passed)"""
    structures = tuple(one for one in job.plan.structures if choice.has_attention or not one.attention)
    likely = tuple(one for one in structures if one.for_transformers)
    if not likely or job.plan.calibration.effort.unlikely or not choice.is_transformer:
        return structures, ()
    unlikely = tuple(one for one in structures if one not in likely)
    return likely + unlikely, unlikely


def _needless(structure: Structure, unlikely: tuple[Structure, ...], built: Int8Engines) -> str:
    """Why a structure is not built after those that are; empty where it is."""
    if structure.bound and any(row.structure == FREE.name and not row.error and not row.falls_short for row in built.rows()):
        return "TensorRT's own choice between INT8 and FP16 was as fast or faster every time that it was right"
    if structure in unlikely and any(attempt.made for attempt in built.attempts):
        return "no transformer that was measured gained by it"
    return ""


def _add(built: Int8Engines, common: Result, choice: Int8Choice, slow: dict[str, str] | None = None) -> Attempt:
    """Build in the structure of a choice, without these layers in INT8; what has failed is an attempt, too."""
    structure, found = choice.structure, _with_what_was_found(built.run)
    attempt = Attempt("int8", common.variant(), found, structure=structure.name, slow=slow or {})
    attempt.result.take(plan={**common.plan, "quantization": "calibrator" if structure.calibrator else "qdq"})
    attempt.run.console.info(f"INT8 by {attempt.label}")
    built.attempts.append(attempt)
    built.builds -= 1
    try:
        _build(attempt, choice, choice.prepared(attempt.run, slow))
    except ConversionError as error:
        attempt.fail(error)
        attempt.run.console.info(f"no engine: {error.message}")
    return attempt


def _with_what_was_found(found: Run, precision: str = "int8") -> Run:
    """A run of one engine that knows what was found before it was built."""
    run = found.labelled(precision)
    run.evidence = copy.copy(found.evidence)
    run.console.warnings.extend(found.console.warnings)
    return run


def _build(attempt: Attempt, choice: Int8Choice, prepared: Prepared) -> None:
    attempt.made = build_and_check(choice.job, choice, prepared, attempt.result, attempt.run)
    attempt.run.console.info(f"{attempt.label or 'INT8'}: {_in_figures(attempt.row())}")
    if attempt.made.faithful.falls_short:
        attempt.run.console.info(f"not used where another engine is: {attempt.made.faithful.falls_short}")


def _in_figures(row: VariantRow) -> str:
    """What a run that is interrupted later has found out."""
    time = f"p50 {row.p50_ms:.3f} ms" if row.p50_ms else "not timed"
    share = f", {100 * row.int8_mac_share:.1f}% INT8" if row.int8_mac_share is not None else ""
    return time + share + (f", {row.sqnr_db:.1f} dB, drop {row.drop_percent:.2f} %" if row.sqnr_db is not None else "")


def _lower(built: Int8Engines, common: Result, choices: dict[str, Int8Choice]) -> None:
    """No structure meets the limit of the accuracy drop: fewer layers in INT8, in that which has missed it least."""
    missed = [one for one in built.attempts if isinstance(one.error, AccuracyError) and one.error.drop_percent is not None]
    if not missed:
        return
    nearest = min(missed, key=lambda attempt: attempt.error.drop_percent)
    again = Attempt("int8", common.variant(), _with_what_was_found(built.run), structure=nearest.structure)
    again.result.take(plan=nearest.result.plan)
    choice = choices[nearest.structure]
    try:
        _build(again, choice, choice.lower(nearest.error, again.run))
    except ConversionError as error:
        again.fail(error)
    built.attempts.remove(nearest)
    built.attempts.insert(0, again)
    built.builds -= 1


def give_slow_layers_back(job: Job, built: Int8Engines, fp16: Attempt | Baseline | None, run: Run) -> None:
    """INT8 (or FP8) once more without the layers that FP16 computes faster, from the fastest structures, as long as builds are left, unless
    TensorRT has chosen between the two; and without what may be why an engine computes something else than it should.

    Args:
        fp16: the FP16 engine, or what an earlier run has measured of it.
    """
    made = sorted((one for one in built.attempts if one.made), key=_promise)
    if not made or fp16 is None or isinstance(fp16, Attempt) and not fp16.made:
        return
    try:
        with run.stage("profile", "timing the layers"):
            timed = _timed_layers(job, fp16.made, run) if isinstance(fp16, Attempt) else fp16.timed
        for first in made:
            if built.builds > 0 and isinstance(first.made.choice, Int8Choice):
                slow = _to_give_back(job, first.made, timed, run)
                if slow:
                    _try_without(job, first, slow, built, fp16, run)
    except Exception as error:  # of whatever kind: the engines are good
        run.console.warn(f"the layers were not timed, so none goes back to FP16 for being slow: {in_words(error)}")
        return
    if isinstance(fp16, Attempt):  # after the last time that it was timed
        baseline.remember(job, fp16.row(), timed, run)


def _promise(attempt: Attempt) -> tuple[bool, float]:
    """What is small for engines that are fast and sound, or may become sound."""
    falls_short = bool(attempt.made.faithful.falls_short)
    return falls_short and not grouped_convolutions(attempt.made.prepared.graph), attempt.p50_ms


def _to_give_back(job: Job, made: Made, fp16: Timed, run: Run) -> dict[str, str]:
    """Layers of 8 bits of an engine that FP16 computes faster, and those that may be why it computes something else -> reason."""
    graph, chooses = made.prepared.graph, made.choice.structure.takes_fp16
    if chooses and not made.faithful.falls_short:
        return {}
    with run.stage("profile", "timing the layers"):
        timed = _timed_layers(job, made, run)
        slow = {} if chooses else slower_in_int8(job, graph, timed, fp16)
    wrong = suspects(graph, timed[0]) if made.faithful.falls_short else ()
    return slow | dict.fromkeys(wrong, SUSPECTED)


def _timed_layers(job: Job, made: Made, run: Run) -> Timed:
    with loaded(job, made, run) as engine:
        return time_layers(job, made.prepared.graph, engine)


def _try_without(job: Job, first: Attempt, slow: dict[str, str], built: Int8Engines, fp16: Attempt | Baseline, run: Run) -> None:
    """An engine without these layers in INT8, timed beside that with them."""
    choice = first.made.choice
    label = first.made.job.number_format.label
    wrong = list(slow.values()).count(SUSPECTED)
    counts = ((len(slow) - wrong, "are slower than in FP16"), (wrong, "may be computed wrongly"))
    why = ", ".join(f"{count} {label} layers {what}" for count, what in counts if count)
    run.console.info(f"{why}: built once more without them")
    for node, reason in slow.items():
        run.console.debug(f"{node}: {reason}")
    second = _once_more(first, built, slow)
    built.builds -= 1
    try:
        _build(second, choice, choice.prepared(second.run, slow))
    except Exception as error:  # TensorRT takes FP16 for more of them, say: then the first stays
        second.run.console.info(f"no engine: {in_words(error)}")
        return
    others = {} if built.chosen is first else {"best": built.chosen}
    time_in_turn(job, {**others, "first": first, "second": second}, fp16, run)
    kept = "second" if second.p50_ms < first.p50_ms else "first"
    run.console.info(f"p50 {first.p50_ms:.3f} ms with them, {second.p50_ms:.3f} ms without: the {kept} is faster")
    built.attempts.append(second)


def _once_more(first: Attempt, built: Int8Engines, slow: dict[str, str]) -> Attempt:
    """Another engine in the same structure, without these layers in 8 bits."""
    run = _with_what_was_found(built.run or first.run, first.precision)
    return Attempt(first.precision, first.result.variant(), run, structure=first.structure, slow=slow)


def build_with_own_weights(job: Job, built: Int8Engines, fp16: Attempt | Baseline | None, run: Run) -> None:
    """The chosen engine once more, with the model's own weights in INT8 layers that TensorRT computes in FP16 or FP32, if a build is left.

    All had been given weights that INT8 can hold, and biases that make up for what INT8 loses, and in these layers nothing is lost. The
    new engine takes the place of the other where it runs by the same kernels and is nearer to the model.
    """
    first = built.chosen
    if built.builds < 1 or not first.made or first.made.faithful.falls_short or not isinstance(first.made.choice, Int8Choice):
        return
    if not first.made.choice.structure.takes_fp16:
        return
    try:
        layers = _layers(job, first.made, run)
        choice = _with_own_weights(first.made, layers)
        second = _once_more(first, built, first.slow)
        prepared = choice.prepared(second.run, first.slow)
        count = len(_weights(first.made.prepared.graph) - _weights(prepared.graph))
        if not count:
            return
        run.console.info(f"TensorRT computes {count} INT8 layers in FP16 or FP32: built once more with their own weights")
        built.builds -= 1
        _build(second, choice, prepared)
        same = _kernels(_layers(job, second.made, run)) == _kernels(layers)
    except Exception as error:  # of whatever kind: the engine is good
        run.console.info(f"it stays as it was: {in_words(error)}")
        return
    if same and not second.made.faithful.falls_short and _nearness(second) > _nearness(first):
        time_in_turn(job, {first.precision: second}, fp16, run)
        built.attempts[built.attempts.index(first)] = second
    else:
        run.console.info(f"it stays as it was: by these weights it {'is no nearer to the model' if same else 'has other kernels'}")


def _with_own_weights(made: Made, layers: tuple[EngineLayer, ...]) -> Int8Choice:
    """The same choice, where what these layers compute in FP16 or FP32 has the model's own weights."""
    structure = replace(made.choice.structure, own_weights=frozenset(inspector.nodes_in_float(layers)))
    return made.choice.in_structure(structure)


def _layers(job: Job, made: Made, run: Run) -> tuple[EngineLayer, ...]:
    with loaded(job, made, run) as engine:
        return inspector.layers_of(engine.inspect(), made.prepared.graph.nodes)


def _weights(graph: Graph) -> set[tuple[str, str]]:
    """(node, its second input) of all that have one."""
    return {(node.name, node.input[1]) for node in graph.nodes if len(node.input) > 1}


def _kernels(layers: tuple[EngineLayer, ...]) -> list[tuple[str, str | None, str]]:
    return [(layer.kind, layer.precision, layer.tactic) for layer in layers]


def _nearness(attempt: Attempt) -> tuple[float, float]:
    """To the model, by the output that is furthest from it."""
    row = attempt.row()
    return row.sqnr_db or 0.0, -(row.drop_percent or 0.0)
