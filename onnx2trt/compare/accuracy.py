"""One row of the verdict: an output compared over one data set. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Accuracy:
    """How far one output of what was built is from the ONNX model's, over one data set."""

    executed_on: str  # gpu | simulated
    inputs: str  # the folder or file, or "synthetic"
    output: str
    metric: str
    drop_percent: float
    standard_error: float | None
    sqnr_db: float
    max_abs_error: float
    nonfinite: int
    samples: int
    worst: str | None
    worst_drop_percent: float | None
    constant: bool  # the reference output never changes: no evidence of accuracy

    def rounded(self) -> Accuracy:
        """The same with as many digits as mean something."""
        return Accuracy(**{name: round(value, 6) if isinstance(value, float) else value for name, value in vars(self).items()})
