"""How long single inferences take."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

FEWEST_RUNS, MOST_RUNS = 20, 2000
WARM_UP_MS = 200.0  # clocks and caches settle


MEASURED_MS = 1000.0


ROUNDS = 5  # in which several engines take turns


def measure_in_turn(
    timers: dict[str, Callable[[int], list[float]]], keep: dict[str, list[float]] | None = None
) -> dict[str, dict[str, float]]:
    """Percentiles of single inferences, after a warm-up. Several engines take turns: what slows the GPU down slows all of them down.

    Args:
        timers: engine -> what runs n inferences one after another and gives the milliseconds of each.
        keep: takes the milliseconds of each inference that counts.

    Returns:
        Engine -> mean_ms, p50_ms, p90_ms, p99_ms and runs.
    """
    runs, times = {}, {name: [] for name in timers}
    for name, time_ms in timers.items():
        first = max(float(np.median(time_ms(5))), 1e-3)
        time_ms(int(min(max(WARM_UP_MS / first, 5), MOST_RUNS)))
        runs[name] = int(min(max(MEASURED_MS / first, FEWEST_RUNS), MOST_RUNS))
    rounds = ROUNDS if len(timers) > 1 else 1
    for _ in range(rounds):
        for name, time_ms in timers.items():
            times[name] += time_ms(-(-runs[name] // rounds))
    if keep is not None:
        keep.update(times)
    return {name: _percentiles(np.array(found)) for name, found in times.items()}


def _percentiles(times: np.ndarray) -> dict[str, float]:
    p50, p90, p99 = (float(value) for value in np.percentile(times, (50, 90, 99)))
    return {
        "mean_ms": round(float(times.mean()), 6),
        "p50_ms": round(p50, 6),
        "p90_ms": round(p90, 6),
        "p99_ms": round(p99, 6),
        "runs": len(times),
    }
