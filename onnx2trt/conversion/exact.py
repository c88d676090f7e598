"""What a graph gives, kept where it was computed on the way to something else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Protocol

import numpy as np

from onnx2trt.data.reader import Arrays
from onnx2trt.model.graph import Graph
from onnx2trt.quant.simulations import equal_graphs

KEPT_BYTES = 2**25  # of outputs; those of the inferences beyond are computed where they are asked for


class Exact:
    """Outputs of a graph, by the samples of an inference, as a pass over the data has shown them; as far as there is room.

    Calibration runs the graph over all of its data, and so do the comparisons behind it: of methods, of ways to INT8, of layers.
    """

    def __init__(self, names: tuple[str, ...]):
        """
        Args:
            names: of the outputs.
        """
        self.names = names
        self._known: dict[tuple[str, ...], Arrays] = {}
        self._bytes = 0
        self._lock = Lock()

    def add(self, samples: tuple[str, ...], name: str, values: np.ndarray) -> None:
        """Take in one output of an inference; from any thread.

        Args:
            samples: of the inference.
            values: copied, since who shows them may use their memory again.
        """
        with self._lock:
            if self._bytes + values.nbytes > KEPT_BYTES:
                return
            self._bytes += values.nbytes
        self._known.setdefault(samples, {})[name] = values.copy()

    def of(self, samples: tuple[str, ...]) -> Arrays | None:
        """All outputs of the inference of these samples; None where one is not there."""
        found = self._known.get(samples, {})
        return {name: found[name] for name in self.names} if found.keys() >= set(self.names) else None

    def forget(self) -> None:
        """Give the memory back."""
        self._known.clear()
        self._bytes = 0


class FirstTime:
    """What is known of the inferences of one pass; of samples that come again, nothing: then they carry a state."""

    def __init__(self, known: Exact):
        self._known = known
        self._given: set[tuple[str, ...]] = set()

    def of(self, samples: tuple[str, ...]) -> Arrays | None:
        """As Exact.of."""
        found = None if samples in self._given else self._known.of(samples)
        self._given.add(samples)
        return found


class Known(Protocol):
    """What graphs by the trials of a split gave."""

    def of(self, trial: int, graph: Graph) -> Exact:
        """By the graph of a trial, of the samples that this one leaves out."""


@dataclass
class Simulated:
    """Graphs by the trials of a split, and what they gave: who makes the same graphs once more need not run them there."""

    graphs: Sequence[Graph] = ()
    outputs: Exact = field(default_factory=lambda: Exact(()))

    def begin(self, graphs: Sequence[Graph]) -> None:
        """Forget others."""
        self.graphs, self.outputs = graphs, Exact(tuple(graphs[0].output_names) if graphs else ())

    def of(self, trial: int, graph: Graph) -> Exact:
        """What is known of the graph of a trial: of the samples that this one leaves out; nothing of another graph."""
        same = trial < len(self.graphs) and equal_graphs(graph, self.graphs[trial])
        return self.outputs if same else Exact(())
