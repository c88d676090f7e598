"""TensorRT's messages: kept, counted, and shown through one function."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from types import ModuleType

from onnx2trt.trt.remarks import is_fault, kind

KEPT = 50  # errors, and kinds of warnings


class Messages:
    """What TensorRT said, by severity."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.warnings: Counter[str] = Counter()  # kind -> how often

    def take_errors(self) -> list[str]:
        """The errors since the last call."""
        errors, self.errors = self.errors, []
        return errors


def make_logger(trt: ModuleType, show: Callable[[str, bool], None]):
    """A TensorRT logger that keeps errors and warnings and passes every message to `show`.

    Warnings that say that the engine will not do what was asked for are kept among the errors.

    Args:
        show: called with "[TensorRT SEVERITY] text", and whether that is a warning or an error; must not raise (TensorRT prints and
            swallows what it raises).

    Returns:
        (logger, Messages)
    """
    messages = Messages()
    severity = trt.ILogger.Severity
    warnings = (severity.WARNING, severity.ERROR, severity.INTERNAL_ERROR)

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)  # without it: TypeError, or a crash in older versions

        def log(self, level, text: str) -> None:
            if level in (severity.ERROR, severity.INTERNAL_ERROR) or level == severity.WARNING and is_fault(text):
                if len(messages.errors) < KEPT:
                    messages.errors.append(text)
            elif level == severity.WARNING and (kind(text) in messages.warnings or len(messages.warnings) < KEPT):
                messages.warnings[kind(text)] += 1
            show(f"[TensorRT {level.name}] {text}", level in warnings)

    return Logger(), messages
