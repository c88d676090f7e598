"""Stage 'ranges', before anything is measured: masks of attention that FP16 does not hold are clipped where that changes no output."""

from __future__ import annotations

import numpy as np

from onnx2trt.base.errors import ConversionError
from onnx2trt.base.words import listed
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.data.feeds import range_feeds
from onnx2trt.model.graph import Graph
from onnx2trt.model.half_types import FP16
from onnx2trt.model.session import Session
from onnx2trt.rewrite.masks import CLIPPED, clip_masks

SAME = 1e-5  # of an output's largest value: what the order of FP32 sums may change
NAMED = 3


def with_clipped_masks(job: Job, graph: Graph, run: Run) -> Graph:
    """`graph` itself where there is nothing to clip, or where the outputs would be others.

    Args:
        graph: FP32, to become FP16.
    """
    if job.half is not FP16 or not job.plan.keep_layers or job.plan.build.plugins:
        return graph
    clipped, names = clip_masks(graph)
    if not names:
        return graph
    try:
        with run.stage("ranges", "clipping masks of attention"):
            same = _same_outputs(job, graph, clipped, run)
    except ConversionError as error:
        run.console.debug(f"masks cannot be tried: {error.message}")
        return graph
    if same:
        run.console.info(f"masks in front of a Softmax are clipped to {CLIPPED:g}, which FP16 holds: {listed(names, NAMED)}")
    return clipped if same else graph


def _same_outputs(job: Job, graph: Graph, clipped: Graph, run: Run) -> bool:
    first, second = Session.from_graph(graph), Session.from_graph(clipped)
    for feed in range_feeds(job.data, run.console)():
        expected, found = first.run(feed), second.run(feed)
        for name, array in expected.items():
            if array.dtype.kind != "f":
                if not np.array_equal(array, found[name]):
                    return False
                continue
            scale = float(np.abs(array[np.isfinite(array)]).max(initial=0.0))
            if not np.allclose(found[name], array, rtol=0, atol=SAME * scale, equal_nan=True):
                return False
    return True
