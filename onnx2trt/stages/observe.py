"""Stage 'shapes', its first part: the sizes of inner tensors at the opt shapes, seen in a run where onnx cannot infer them.

A free batch or sequence length makes exports compute their shapes (Shape, Gather, Concat, Reshape), which onnx can follow only so far:
behind the first such Reshape of a transformer, it knows the shape of nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from onnx2trt.base.errors import ConversionError
from onnx2trt.base.model_info import TensorSpec
from onnx2trt.conversion.candidate import OnnxCandidate
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.data.arrays import synthetic_arrays
from onnx2trt.data.feeds import batches_to_compare
from onnx2trt.data.reader import Arrays
from onnx2trt.model.graph import Graph
from onnx2trt.model.observed_shapes import observe_shapes, without_shape
from onnx2trt.rewrite.known_sizes import fixed_sizes


def observed(job: Job, run: Run) -> Job:
    """The job that knows the shapes of its model's tensors, and what the model makes of sizes, as far as they can be told."""
    if job.plan.build.plugins or set(job.plan.variants) == {"fp32"}:  # ONNX Runtime does not know them; or nobody asks
        return job
    job = replace(job, observed=_observe(job, job.graph(), job.info.inputs, run))
    try:
        return replace(job, sizes=fixed_sizes(job.graph(), job.profiles))
    except ConversionError as error:  # what onnx cannot follow stays as it is
        run.console.debug(f"fixed sizes are not put in as constants: {error.message}")
        return job


def observed_candidate(job: Job, candidate: OnnxCandidate, run: Run) -> OnnxCandidate:
    """The same of an ONNX that was prepared elsewhere."""
    graph = candidate.graph.copy()
    graph.observed = _observe(job, graph, candidate.info.inputs, run)
    return replace(candidate, graph=graph)


def _observe(job: Job, graph: Graph, inputs: tuple[TensorSpec, ...], run: Run) -> dict[str, tuple[int, ...]]:
    missing = without_shape(graph, job.profiles)
    if not missing:
        return {}
    with run.stage("shapes", "observing the shapes of inner tensors"):
        for arrays in _at_opt(job):
            try:
                return observe_shapes(graph, missing, {spec.name: arrays[spec.name].astype(spec.dtype, copy=False) for spec in inputs})
            except ConversionError as error:  # whatever else needs the model to run will say so
                run.console.debug(f"the shapes of inner tensors were not observed: {error.message}")
    return {}


def _at_opt(job: Job) -> Iterator[Arrays]:
    """A sample of the data, repeated or cut to the opt shapes, so that all values are such as the model knows; then a made-up one."""
    data = job.data.any()
    if data.kind != "synthetic":
        batch = next(batches_to_compare(job.data, [data.at_most(1)]), None)
        if batch:
            yield {profile.name: np.resize(batch.arrays[profile.name], profile.opt) for profile in job.profiles}
    yield synthetic_arrays(job.info.inputs, job.profiles)
