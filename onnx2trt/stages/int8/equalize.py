"""Stage 'equalize': make the channels of activations alike before INT8 gives each tensor one scale; see quant/equalize."""

from __future__ import annotations

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from onnx2trt.base.cores import usable_cores
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.data.feeds import Feeds, inferences
from onnx2trt.data.holdout import choose_split
from onnx2trt.model.graph import Graph
from onnx2trt.model.observe import MOST_THREADS, observe_parallel, static_shapes
from onnx2trt.model.segments import tensor_bytes
from onnx2trt.quant.equalize.choice import believed, choose_scales, choose_shifts
from onnx2trt.quant.equalize.equalization import Equalization
from onnx2trt.quant.equalize.groups import scale_groups, shift_groups
from onnx2trt.quant.equalize.ranges import POSITIONS, ChannelRanges
from onnx2trt.quant.equalize.relations import Group
from onnx2trt.quant.equalize.strength import Reach, choose_strength, reads
from onnx2trt.rewrite.gelu import behind_gelus
from onnx2trt.rewrite.keep_fp32 import KEPT_FP32_ABOVE

SAMPLES = 16  # of which the channels' ranges are taken; more where a sample is a few vectors
# Values of a channel below which a group is left as it is. On fewer, equalizing may lose more than it gains, however it looks on as few
# held-out samples: each channel fills the range of INT8 by what was seen, so that of a sample a little larger all channels are cut off.
# Of 98 random networks of vectors and short sequences, with at most 160 values, 16 lost 1 to 12 dB by it, and the mean gained 0.1 dB.
FEWEST_VALUES = 500
KEPT_BYTES = 2**26  # of values that are looked at twice; of tensors beyond, the second look takes another pass over the data
LARGEST = KEPT_FP32_ABOVE / 2  # that scaling may make a tensor: where it nears what is kept in FP32, the gain would be lost with the layer


def equalize(job: Job, graph: Graph, tensors: tuple[str, ...], maxima: Mapping[str, float], run: Run) -> Equalization:
    """Shifts and scales for the channels of these tensors, as far as the network's constants can take them in.

    What GELU gives is left as it is where TensorRT would compute it, and the product before it, more slowly with factors of channels; for
    TensorRT-RTX they are there (3 dB in a trained ViT-S), which has the same kernels and moves the same bytes with them.

    Args:
        graph: FP32, folded; not changed.
        tensors: that INT8 layers read.
        maxima: tensor -> max |x| over the data, of all tensors; those that are not there may have any factor.
    """
    shapes = static_shapes(graph, job.profiles)
    shifts, groups = shift_groups(graph, shapes), scale_groups(graph, shapes)
    ranges = _channel_ranges(job, graph, shapes, (*shifts, *groups), tensors, run)
    largest = {name: channels.symmetric() for name, channels in ranges.items()}
    middles = {name: np.zeros(len(reach)) for name, reach in largest.items()}
    shifted = {name for group in shifts for name in group.places}
    intervals = {name: channels.interval() for name, channels in ranges.items() if name in shifted}
    low, high = ({name: interval[i] for name, interval in intervals.items()} for i in (0, 1))
    vectors = [choose_shifts(-group.largest({name: -values for name, values in low.items()}), group.largest(high)) for group in shifts]
    vectors = [vector if _told(group, ranges) else np.zeros(group.size) for group, vector in zip(shifts, vectors)]
    for group, vector in zip(shifts, vectors):
        for name in group.places.keys() & intervals.keys():
            middles[name] = group.expand(name, vector, 0.0)
            largest[name] = np.maximum(high[name] - middles[name], middles[name] - low[name])
    reaches = {}
    for name, channels in ranges.items():
        spread = channels.spread(middles[name])
        reaches[name] = Reach(believed(largest[name], spread, channels.seen), spread)
    scales = []
    fused = set() if job.plan.backend == "tensorrt-rtx" else behind_gelus(graph)
    for group in groups:
        reach = group.relative({name: reach.largest for name, reach in reaches.items()})
        vector = choose_scales(group.largest(reach), group.anchor(reach))
        free = _told(group, ranges) and not fused & group.places.keys()
        vector = vector ** (choose_strength(vector, reads(graph, group, reaches)) if free else 0.0)
        scales.append(np.maximum(vector, _least_scale(group, maxima)))
    if not any(_told(group, ranges) for group in (*shifts, *groups)):
        return Equalization(graph)
    return Equalization(graph, tuple(zip(shifts, vectors)), tuple(zip(groups, scales)))


def _least_scale(group: Group, maxima: Mapping[str, float]) -> float:
    """Below it, a tensor of the group could leave what is FP16: what a Relu lets nothing through of may be large in front of it."""
    return min(max((maxima.get(name, 0.0) for name in group.places), default=0.0) / LARGEST, 1.0)


def _told(group: Group, ranges: dict[str, ChannelRanges]) -> bool:
    """Whether enough values were seen of its channels, in that of its tensors that has most."""
    return any(ranges[name].values >= FEWEST_VALUES for name in group.places.keys() & ranges.keys())


def _channel_ranges(
    job: Job, graph: Graph, shapes: dict[str, tuple[int, ...]], groups: tuple[Group, ...], tensors: tuple[str, ...], run: Run
) -> dict[str, ChannelRanges]:
    axes = {name: place.axis for group in groups for name, place in group.places.items() if name in tensors}
    ranges = {name: ChannelRanges(axis) for name, axis in axes.items()}
    sizes = [math.prod(shapes[name][1:]) // shapes[name][axis] for name, axis in axes.items() if name in shapes and axis]
    most = max(SAMPLES, -(-FEWEST_VALUES // max(*sizes, 1, 1)))
    dataset = choose_split(job.data).to_decide(most)  # whether it pays is judged by others
    feeds = Feeds(job.data.reader, dataset, run.console, "equalizing channels")
    room = KEPT_BYTES // inferences(job.data.reader, dataset)
    kept: dict[str, list[np.ndarray]] = {
        name: [] for name in _deepest(graph, {name: _row_bytes(name, axes[name], shapes) for name in axes}, room)
    }

    def measure(name: str, values: np.ndarray) -> None:
        ranges[name].measure(values)
        if name in kept:
            kept[name].append(ranges[name].rows(values).copy())

    def count(name: str) -> None:
        for rows in kept.pop(name):
            ranges[name].count(rows)

    observe_parallel(graph, job.profiles, list(axes), feeds, lambda: measure)
    again = axes.keys() - kept.keys()
    with ThreadPoolExecutor(min(usable_cores(), MOST_THREADS), thread_name_prefix="equalize") as pool:
        list(pool.map(count, list(kept)))
    if again:
        observe_parallel(graph, job.profiles, again, feeds, lambda: lambda name, values: ranges[name].count(ranges[name].rows(values)))
    return ranges


def _row_bytes(name: str, axis: int, shapes: dict[str, tuple[int, ...]]) -> int:
    """Of what is counted of one inference, at most."""
    whole = tensor_bytes(name, shapes)
    return min(whole, 4 * shapes[name][axis] * 2 * POSITIONS) if name in shapes else whole


def _deepest(graph: Graph, sizes: Mapping[str, int], room: int) -> list[str]:
    """As many of the tensors as there is room for, from the last one made: what is left ends early in the graph, and so does its pass."""
    made = {name: index for index, node in enumerate(graph.nodes) for name in node.output}
    chosen = []
    for name in sorted(sizes, key=lambda name: made.get(name, -1), reverse=True):
        room -= sizes[name]
        if room < 0:
            break
        chosen.append(name)
    return chosen
