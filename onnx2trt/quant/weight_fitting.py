"""Fit the INT8 (or FP8) weights of all layers to data, once to all samples and once without each part that accuracy is measured on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from zlib import crc32

import numpy as np

from onnx2trt.base.cores import usable_cores
from onnx2trt.base.memory import return_freed
from onnx2trt.base.model_info import Profile
from onnx2trt.model.graph import Graph
from onnx2trt.model.observe import Visit, in_groups, observe_parallel
from onnx2trt.quant.columns import Columns, supports
from onnx2trt.quant.weight_solver import Inputs, Sums, learn, rows_wanted, solve
from onnx2trt.rewrite.qdq import Layer, Rounded, takes_bias, weight_layout

Feed = dict[str, np.ndarray]
SUMS_BYTES = 3 * 2**27  # sums kept at a time; the layers beyond take another pass over the data
AT_ONCE_BYTES = 2**23  # of sums or weights that are fitted together; beyond, nothing is gained by it
MOST_THREADS = 8  # each takes about as much memory as the sums of one part of the data, a few times


@dataclass(frozen=True)
class Samples:
    """The data that weights are fitted to, any number of times."""

    feeds: Callable[[], Iterable[Feed]]  # makes a fresh iterator over the data
    count: int  # of the feeds
    trials: int = 0  # how many more times to fit without a part of the data
    trial: Callable[[], int] = lambda: -1  # number of the trial that leaves the present feed out; -1 for none
    counted: Callable[[Iterable, int], Iterable] = lambda fits, total: fits  # shows how far the fitting is


@dataclass(frozen=True, eq=False)
class Shared:
    """The layers that read one weight in the same way; they are fitted together, so that it stays one."""

    layers: tuple[Layer, ...]
    columns: tuple[Columns, ...]  # of each
    weight: np.ndarray
    units: tuple[float, ...]  # scale of each layer's inputs
    biased: bool  # all of them can take a bias

    @property
    def means(self) -> bool:
        """Whether the weights alone have to get the means right."""
        return not (self.biased and self.columns[0].single)

    @property
    def inputs(self) -> tuple:
        """Equal for weights whose layers read the same columns of the same tensors."""
        return tuple((layer.activation, columns.reading) for layer, columns in zip(self.layers, self.columns))

    def fit(self, known: list[Inputs]) -> list[list[Rounded]]:
        """For each of these, each layer's."""
        return solve(self.columns[0], self.weight, known, self.units, self.biased)


@dataclass(frozen=True)
class Family:
    """Weights whose layers read the same inputs: what is known of these serves all of them."""

    members: list[Shared] = field(default_factory=list)

    @property
    def first(self) -> Shared:
        return self.members[0]

    @property
    def bytes(self) -> int:
        """Of the sums of one part of the data, for each of the layers that read a weight."""
        return 8 * self.first.columns[0].groups * self.first.columns[0].count ** 2

    def fit(self, parts: dict[int, Sums], trials: int) -> list[dict[str, Rounded]]:
        """See fit_weights.

        Args:
            parts: trial -> sums of what it leaves out.
        """
        fits: list[dict[str, Rounded]] = [{} for _ in range(trials + 1)]
        seen = {number: [part for key, part in parts.items() if key != number] for number in range(trials + 1)}  # the last is no part's
        numbers = [number for number, others in seen.items() if others]
        for start in range(0, len(numbers), self._at_once):
            some = numbers[start : start + self._at_once]
            sums = [Sums.of(seen[number]) for number in some]
            known = {means: [learn(one, means) for one in sums] for means in {shared.means for shared in self.members}}
            for shared in self.members:
                for number, found in zip(some, shared.fit(known[shared.means])):
                    fits[number].update(zip((layer.node for layer in shared.layers), found))
        return fits

    @property
    def _at_once(self) -> int:
        """Fits for which there is room together."""
        return max(1, AT_ONCE_BYTES // max(self.bytes, *(4 * shared.weight.size for shared in self.members)))


def fit_weights(
    graph: Graph, profiles: tuple[Profile, ...], layers: tuple[Layer, ...], scales: dict[str, float], samples: Samples
) -> list[dict[str, Rounded]]:
    """See quant.weight_solver for what is fitted.

    Args:
        graph: FP32.
        layers: those without a scale, and those that quant.columns does not support, are left out.
        scales: activation tensor -> scale.

    Returns:
        Node -> fitted weights: one for each trial, and last for all samples.
    """
    fits: list[dict[str, Rounded]] = [{} for _ in range(samples.trials + 1)]
    families = _families(_by_weight(graph, layers, scales))
    with ThreadPoolExecutor(min(usable_cores(), MOST_THREADS), thread_name_prefix="fit") as pool:
        for group in in_groups(families, lambda family: family.bytes * len(family.first.layers) * (samples.trials + 1), SUMS_BYTES):
            sums = _collect(graph, profiles, group, samples)
            for found in samples.counted(pool.map(Family.fit, group, sums, [samples.trials] * len(group)), len(group)):
                for fitted, own in zip(fits, found):
                    fitted.update(own)
                return_freed()  # what the solver had stands between weights that are kept
            del sums  # before those of the next group are added up
    return fits


def _by_weight(graph: Graph, layers: tuple[Layer, ...], scales: dict[str, float]) -> list[Shared]:
    nodes = {node.name: node for node in graph.nodes}
    readers: dict[tuple, list[Layer]] = {}
    for layer in (layer for layer in layers if layer.plain):
        node = nodes[layer.node]
        if layer.activation in scales and supports(node, graph.weights[node.input[1]]):
            readers.setdefault((*weight_layout(node), takes_bias(graph, node)), []).append(layer)
    found = []
    for (name, *_, biased), members in readers.items():
        weight, units = graph.weights[name], tuple(scales[layer.activation] for layer in members)
        columns = tuple(Columns(nodes[layer.node], weight) for layer in members)
        found.append(Shared(tuple(members), columns, weight, units, biased))
    return found


def _families(weights: list[Shared]) -> list[Family]:
    found: dict[tuple, Family] = {}
    for shared in weights:
        found.setdefault(shared.inputs, Family()).members.append(shared)
    return list(found.values())


def _collect(graph: Graph, profiles: tuple[Profile, ...], group: list[Family], samples: Samples) -> list[dict[int, Sums]]:
    """Of each family, trial -> sums of the samples that it leaves out.

    Several threads look at tensors, so each layer adds up sums of its own, of places that its tensor alone draws: the result does not hang
    on who comes first.
    """
    readers: dict[str, list[_Reader]] = {}
    for family in group:
        for number, layer in enumerate(family.first.layers):
            readers.setdefault(layer.activation, []).append(_Reader(family.first, number))

    def visitor() -> Visit:
        trial = samples.trial()

        def visit(name: str, values: np.ndarray) -> None:
            for reader in readers[name]:
                reader.add(values, trial, max(samples.count, 1))

        return visit

    observe_parallel(graph, profiles, list(readers), samples.feeds, visitor)
    sums: dict[int, dict[int, list[Sums]]] = {id(family.first): {} for family in group}
    for reader in (reader for found in readers.values() for reader in found):
        for trial, own in reader.sums.items():
            sums[id(reader.shared)].setdefault(trial, []).append(own)
    return [{trial: Sums.of(own) if len(own) > 1 else own[0] for trial, own in sums[id(family.first)].items()} for family in group]


class _Reader:
    """One layer of a family, and what it has seen."""

    def __init__(self, shared: Shared, number: int):
        self.shared, self._number = shared, number
        self.sums: dict[int, Sums] = {}  # by trial
        self._random = np.random.default_rng(crc32(shared.layers[number].activation.encode()))

    def add(self, values: np.ndarray, trial: int, inferences: int) -> None:
        """Take in the layer's inputs in one of so many inferences."""
        shared, columns = self.shared, self.shared.columns[self._number]
        if trial not in self.sums:
            number_format = shared.layers[self._number].number_format
            self.sums[trial] = Sums(columns.groups, columns.count, len(shared.layers), number_format)
        sample = columns.sample(values, -(-rows_wanted(columns) // inferences), self._random)
        self.sums[trial].add(sample, shared.units[self._number], self._number)
