"""What --quantization-effort stands for."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """What is done for the accuracy of INT8, and at what cost in time (--quantization-effort)."""

    equalize: bool  # shift and scale channels (quant.equalize.apply)
    fit: bool  # fit weights and biases to data (quant.weight_solver)
    samples: int  # at most, on which the cost of each layer is measured
    passes: float  # of the data through the model, that it may take in all
    second_looks: int  # measurements of layers that were given up, in INT8 once more
    builds: int  # of INT8 engines, where they can be timed against each other
    unlikely: bool = False  # structures are built, too, that have never been the fastest of a network of this kind


EFFORTS = {
    "fast": Effort(False, False, 4, 8, 0, 1),
    "default": Effort(True, True, 6, 8, 8, 4),
    "best": Effort(True, True, 20, math.inf, 24, 7, True),
}
