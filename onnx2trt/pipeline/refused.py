"""What TensorRT lacks, found out before anything long begins, and which nodes it takes in FP32 only."""

from __future__ import annotations

from collections.abc import Callable

from onnx2trt.base.model_info import ModelInfo
from onnx2trt.base.words import listed
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.model.graph import Graph
from onnx2trt.rewrite.refused import Refused
from onnx2trt.stages.build import parse_ahead
from onnx2trt.trt.parser_errors import Refusal

ROUNDS = 12  # of parsing; each gives up at least one node, and later ones all of an operator
NAMED = 5  # nodes in one warning


def find_refused(job: Job, graph: Graph, make: Callable[[Refused], Graph] | None, run: Run) -> Refused:
    """Parse what will be built, with other values where these are not known yet.

    Args:
        graph: FP32, as all that `make` makes is made of it.
        make: the graph in the precision that is asked for, without what is refused. None: it is built as it is.

    Returns:
        The nodes that the parser takes in FP32 only.

    Raises:
        ConversionError: MODEL, where the parser does not take the FP32 graph either, or nothing is left to give up.
    """
    refused = Refused()
    if job.library is None:  # nothing is built
        return refused
    with run.stage("parse", "parsing the ONNX, for what TensorRT lacks"):
        if make is None:
            parse_ahead(job, graph, _as_it_is(job), run)
            return refused
        for _ in range(ROUNDS):
            made = make(refused)
            try:
                parse_ahead(job, made, job.engine_io, run)
                break
            except Refusal as error:
                if not refused.rounds:
                    parse_ahead(job, graph, _as_it_is(job), run)
                refused = more_refused(job, refused, error, (graph, made))
        else:
            parse_ahead(job, make(refused), job.engine_io, run)
    say(refused, Refused(), run)
    return refused


def _as_it_is(job: Job) -> ModelInfo:
    """Inputs and outputs of the FP32 graph: with strong typing, --io-types are written into what is made of it."""
    return job.info if job.strong else job.engine_io


def more_refused(job: Job, refused: Refused, error: Refusal, graphs: tuple[Graph, Graph]) -> Refused:
    """
    Args:
        graphs: (FP32, what was made of it and refused).

    Raises:
        Refusal: `error`, where nothing is left to give up.
    """
    more = refused.more(*graphs, error.nodes, job.quantizes, job.half.label if job.strong else "")
    if more is None:
        raise error
    return more


def say(refused: Refused, known: Refused, run: Run) -> None:
    """One warning for each reason.

    Args:
        known: what was said already.
    """
    for nodes, before, end in (
        (refused.in_fp32, known.in_fp32, "kept in FP32"),
        (refused.without_int8, known.without_int8, "not quantized"),
    ):
        reasons: dict[str, list[str]] = {}
        for node, reason in nodes.items():
            if node not in before:
                reasons.setdefault(reason, []).append(node)
        for reason, names in reasons.items():
            run.console.warn(f"{end}: {listed([repr(name) for name in names], NAMED)}: {reason}")
