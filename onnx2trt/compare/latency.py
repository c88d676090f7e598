"""How long single inferences take."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain

import numpy as np

FEWEST_RUNS, MOST_RUNS = 20, 2000
WARM_UP_MS = 200.0  # clocks and caches settle
MEASURED_MS = 1000.0
ROUNDS, MOST_ROUNDS = 5, 20  # in which several engines take turns
QUIET = 1.05  # times the fastest round: in others the GPU had other work, or lower clocks
ENOUGH = 3  # quiet rounds


def measure_in_turn(
    timers: dict[str, Callable[[int], list[float]]],
    keep: dict[str, list[float]] | None = None,
    warn: Callable[[str], None] = lambda text: None,
) -> dict[str, dict[str, float]]:
    """Percentiles of single inferences, after a warm-up.

    Several engines take turns, so that what slows the GPU down slows all of them down; and of each the quiet rounds count, at least three:
    other work on the GPU only adds to a time, and what is faster must not hang on whom it met. (Measured on an H200 while engines of other
    networks were checked on it: by all rounds FP16 took 1.84 ms and BF16 1.48, alone 1.39 and 1.46.)

    Args:
        timers: engine -> what runs n inferences one after another and gives the milliseconds of each.
        keep: takes the milliseconds of each inference that counts.
        warn: takes a sentence where an engine has too few quiet rounds; then its three fastest count.

    Returns:
        Engine -> mean_ms, p50_ms, p90_ms, p99_ms and runs.
    """
    runs = {}
    for name, time_ms in timers.items():
        first = max(float(np.median(time_ms(5))), 1e-3)
        time_ms(int(min(max(WARM_UP_MS / first, 5), MOST_RUNS)))
        runs[name] = int(min(max(MEASURED_MS / first, FEWEST_RUNS), MOST_RUNS))
    if len(timers) == 1:
        times = {name: time_ms(runs[name]) for name, time_ms in timers.items()}
    else:
        times = _in_rounds({name: (time_ms, -(-runs[name] // ROUNDS)) for name, time_ms in timers.items()}, warn)
    if keep is not None:
        keep.update(times)
    return {name: _percentiles(np.array(found)) for name, found in times.items()}


def _in_rounds(timers: dict[str, tuple[Callable[[int], list[float]], int]], warn: Callable[[str], None]) -> dict[str, list[float]]:
    """Engine -> milliseconds of its quiet rounds; there are more rounds until each has enough of them.

    Args:
        timers: engine -> (as for measure_in_turn, inferences in a round).
    """
    rounds: dict[str, list[list[float]]] = {name: [] for name in timers}
    quiet: dict[str, list[list[float]]] = {}
    for number in range(1, MOST_ROUNDS + 1):
        for name, (time_ms, runs) in timers.items():
            rounds[name].append(time_ms(runs))
        quiet = {name: _quiet(found) for name, found in rounds.items()}
        if number >= ROUNDS and all(len(found) >= ENOUGH for found in quiet.values()):
            break
    disturbed = [name for name, found in quiet.items() if len(found) < ENOUGH]
    if disturbed:
        medians = [np.median(rounds[name], axis=1) for name in disturbed]
        spread = 100 * max(found.max() / found.min() - 1 for found in medians)
        warn(
            f"the GPU seems to have other work: {MOST_ROUNDS} rounds in which the engines were timed differ by up to {spread:.0f} %, "
            "so which of them is faster is not certain"
        )
    return {name: list(chain.from_iterable(quiet[name] if name not in disturbed else _fastest(rounds[name]))) for name in timers}


def _quiet(rounds: list[list[float]]) -> list[list[float]]:
    """Those that took hardly longer than the fastest, by their medians."""
    medians = np.median(rounds, axis=1)
    return [found for found, median in zip(rounds, medians) if median <= QUIET * medians.min()]


def _fastest(rounds: list[list[float]]) -> list[list[float]]:
    return sorted(rounds, key=lambda found: float(np.median(found)))[:ENOUGH]


def _percentiles(times: np.ndarray) -> dict[str, float]:
    p50, p90, p99 = (float(value) for value in np.percentile(times, (50, 90, 99)))
    return {
        "mean_ms": round(float(times.mean()), 6),
        "p50_ms": round(p50, 6),
        "p90_ms": round(p90, 6),
        "p99_ms": round(p99, 6),
        "runs": len(times),
    }
