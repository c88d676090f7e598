"""Where ONNX Runtime has computed, for the result: what loads it writes here, so that who reads need not. Standard library only."""

from __future__ import annotations


class ComputedOn:
    """
    Attributes:
        used: "GPU" and "CPU", as sessions have computed there.
        remarks: sentences for the user that nobody has taken yet: why what could be on the GPU is not.
    """

    def __init__(self) -> None:
        self.used: set[str] = set()
        self.remarks: list[str] = []

    def said(self) -> str | None:
        """Where inferences of the model were computed; None where there were none."""
        return " and ".join(sorted(self.used, reverse=True)) or None


COMPUTED_ON = ComputedOn()  # the process's, whoever looks
