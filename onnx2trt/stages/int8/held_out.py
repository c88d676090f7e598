"""How near a way to INT8 comes to the model on samples that it was not made from; for the comparison with a simpler way."""

from __future__ import annotations

import numpy as np

from onnx2trt.conversion.comparing import ByPart, Reference
from onnx2trt.conversion.int8 import Fitted
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.data.feeds import batches_to_compare, inferences
from onnx2trt.data.reader import Batch
from onnx2trt.model.session import Session, is_large
from onnx2trt.quant.candidates import sqnr_db

HELD_OUT_SAMPLES = 24


def signal_to_noise(job: Job, fitted: Fitted, run: Run, way: str) -> dict[str, list[float]]:
    """Output -> dB of each sample, with all layers in INT8; channels were equalized, and weights fitted, without these samples.

    Labels and places say nothing where there are values, too: how far apart two of them are in number means nothing.

    Args:
        fitted: with a split.
        way: what is special about it, in words.
    """
    split = fitted.split
    dataset = split.to_judge(HELD_OUT_SAMPLES)
    reference = Reference(lambda: Session.from_graph(fitted.graph), fitted.exact)
    fits = fitted.trials[: len(split.judged)] or (fitted.fit,)  # those of the first trials are the only ones asked for
    graphs = [fit.apply(fitted.graph, fitted.layers) for fit in fits]
    candidate, simulated = ByPart(split, graphs), fitted.simulated
    simulated.begin(graphs)
    found: dict[str, list[float]] = {name: [] for name in fitted.graph.output_names}
    labels = set()
    with run.stage("choose", f"trying {job.number_format.label} {way} on held-out samples"):
        if is_large(fitted.graph):
            reference.remember(batches_to_compare(job.data, split.cuts(dataset)))
        batches, expects = batches_to_compare(job.data, split.cuts(dataset)), reference.one_pass()
        for batch in run.console.track(batches, inferences(job.data.reader, dataset), "held-out samples"):
            expected, outputs = expects(batch), candidate(batch)
            for name, values in outputs.items():
                simulated.outputs.add(batch.samples, name, values)
            for name, dbs in found.items():
                dbs += [sqnr_db([pair]) for pair in _samples(batch, expected[name], outputs[name])]
                labels |= {name} if expected[name].dtype.kind != "f" else set()
    return {name: dbs for name, dbs in found.items() if name not in labels} or found


def _samples(batch: Batch, expected: np.ndarray, output: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Row by row, where the first axis counts samples."""
    if expected.shape != output.shape or not expected.ndim or not batch.rows or len(expected) != batch.rows:
        return [(expected, output)]
    return list(zip(expected, output))[: batch.real_rows]
