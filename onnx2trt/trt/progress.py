"""How far TensorRT has come with a build, by its own count of steps; TensorRT 8.6 does not tell."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType


def watch(trt: ModuleType, config, step: Callable[[int, int], None]):
    """Have TensorRT say how many steps of the build are done.

    Args:
        config: IBuilderConfig.
        step: called with (steps done, of how many), of the outermost phase; must not raise (TensorRT prints and swallows what it raises).

    Returns:
        What has to live as long as the build; None where this TensorRT has nothing of the kind.
    """
    if not hasattr(trt, "IProgressMonitor") or not hasattr(config, "progress_monitor"):
        return None
    totals: dict[str, int] = {}  # steps of outermost phases

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)  # without it: TypeError

        def phase_start(self, phase, parent, steps) -> None:
            if parent is None:
                totals[phase] = steps
                step(0, steps)

        def step_complete(self, phase, number) -> bool:
            if phase in totals:
                step(min(number + 1, totals[phase]), totals[phase])
            return True  # go on

        def phase_finish(self, phase) -> None:
            totals.pop(phase, None)

    config.progress_monitor = monitor = Monitor()
    return monitor
