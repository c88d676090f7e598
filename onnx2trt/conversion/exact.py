"""What a graph gives in FP32, kept where it was computed on the way to something else."""

from __future__ import annotations

from threading import Lock

import numpy as np

from onnx2trt.data.reader import Arrays

KEPT_BYTES = 2**27  # of outputs; those of the inferences beyond are computed where they are asked for


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
