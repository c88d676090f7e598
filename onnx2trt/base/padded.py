"""Arrays of one inference of which the last rows are no data."""

from __future__ import annotations

import numpy as np


class Padded(dict):
    """Input -> array, whose first `real` of `rows` entries along the first axis are samples; the others only fill the batch.

    Nothing is to be counted of the rows that fill it; see model/padding.py for what an inference makes of them.
    """

    def __init__(self, arrays: dict[str, np.ndarray], rows: int, real: int):
        super().__init__(arrays)
        self.rows, self.real = rows, real

    def filled_otherwise(self) -> dict[str, np.ndarray]:
        """The same samples with other values in the rows that fill the batch."""
        return {name: np.concatenate([array[: self.real], _other(array[self.real :])]) for name, array in self.items()}

    def filled_by_samples(self) -> dict[str, np.ndarray]:
        """The same samples, again and again up to the size of the batch."""
        return {name: np.resize(array[: self.real], array.shape) for name, array in self.items()}


def _other(rows: np.ndarray) -> np.ndarray:
    """Zeros, which are valid as indices, too; in the place of zeros, ones."""
    return np.zeros_like(rows) if rows.any() else np.ones_like(rows)
