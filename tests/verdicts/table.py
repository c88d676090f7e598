"""The verdict table: every kind of output with its harmless and harmful candidates, and what is found of them.

PYTHONPATH=.:tests python -m verdicts.table prints it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from onnx2trt.compare.accuracy import Accuracy, worst_of
from onnx2trt.compare.outputs import Comparison
from onnx2trt.data.reader import Batch
from verdicts import (
    any_numbers,
    class_maps,
    classes,
    detectors,
    lists,
    maps,
    more_detectors,
    more_maps,
    more_sequences,
    more_vectors,
    states,
    values,
)
from verdicts.base import KINDS, Kind, Stateful

TABLES = {  # the second and the third were made without looking at what the verdict makes of them
    "first": (classes, values, maps, class_maps, detectors, lists, states),
    "second": (more_detectors, more_maps, more_sequences, more_vectors),
    "third": (any_numbers,),
}
LIMIT = 1.0  # percent, the default
VIEWS = {"mask": {"image": (32, 32)}, "image_with_channels_last": {"channels_last": True}}


def kinds_of(table: str) -> list[str]:
    """The names of its kinds."""
    return [name for name, make in KINDS.items() if make.__module__ in {module.__name__ for module in TABLES[table]}]


def made(name: str, seed: int, n: int) -> Kind | Stateful:
    """One kind's samples and candidates, the same for the same seed."""
    return KINDS[name](np.random.default_rng([seed, n, *name.encode()]), n)


def candidates(found: Kind | Stateful) -> Iterator[tuple[bool, str, object]]:
    """(harmless, what it is, the candidate)

    Of a single sample some harm is none: the same answer for every sample, for one.
    """
    yield from ((True, what, candidate) for what, candidate in found.harmless.items())
    yield from ((False, what, candidate) for what, candidate in found.harmful.items() if not _same(found.reference, candidate))


def _same(reference, candidate) -> bool:
    if not isinstance(reference, list):
        return False
    return all(np.array_equal(a[name], b[name]) for a, b in zip(reference, candidate) for name in a)


def compared(name: str, found: Kind | Stateful, candidate, batch: int = 1, learned: dict | None = None) -> tuple[Accuracy, ...]:
    """The rows of the verdict on one candidate.

    Args:
        batch: samples of one inference; lists of any length come one by one.
        learned: what is known of the reference from another candidate.
    """
    if isinstance(found, Stateful):
        return _compared_with_state(found, candidate)
    outputs, size = tuple(found.reference[0]), batch if found.batched else 1
    places = range(0, len(found.reference), size)

    def run(samples):
        def runner(given: Batch):
            rows = [samples[min(given.arrays["at"] + row, len(samples) - 1)] for row in range(size)]
            return rows[0] if not found.batched else {output: np.stack([row[output] for row in rows]) for output in outputs}

        return runner

    def batches():
        for at in places:
            real = min(size, len(found.reference) - at)
            yield Batch({"at": at}, size, real, tuple(f"{index}.npz" for index in range(at, at + real)))

    unbatched = frozenset() if found.batched else frozenset(outputs)
    comparison = Comparison(outputs, unbatched=unbatched, learned={} if learned is None else learned, **VIEWS.get(name, {}))
    return comparison.compare(run(found.reference), run(candidate), batches(), "data")


def _compared_with_state(found: Stateful, candidate) -> tuple[Accuracy, ...]:
    def run(step):
        def runner(given: Batch):
            output, state = step(given.arrays["x"], given.arrays["h_in"])
            return {"y": output, "h_out": state}

        return runner

    batches = [Batch({"x": x[None], "h_in": found.state[None]}, 1, 1, (f"{index}.npz",)) for index, x in enumerate(found.inputs)]
    comparison = Comparison(("y", "h_out"), states={"h_out": "h_in"})
    return comparison.compare(run(found.reference), run(candidate), batches, "data")


@dataclass
class Line:
    """One kind in the table."""

    name: str
    kinds: set[str] = field(default_factory=set)
    good: list[tuple[float, float]] = field(default_factory=list)  # (drop in percent, excess) of harmless candidates
    bad: list[tuple[float, float]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def judged(name: str, seeds, counts, batch: int = 1) -> Line:
    """All candidates of one kind, for several seeds and numbers of samples."""
    line = Line(name)
    for n in counts:
        for seed in seeds:
            found, learned = made(name, seed, n), {}
            for harmless, what, candidate in candidates(found):
                rows = compared(name, found, candidate, batch, learned)
                worst = worst_of(rows, LIMIT)
                line.kinds |= {row.kind for row in rows}
                (line.good if harmless else line.bad).append((worst.drop_percent, worst.excess(LIMIT)))
                if (worst.excess(LIMIT) <= 1) != harmless:
                    error = "false alarm" if harmless else "miss"
                    line.wrong.append(f"{error}: {name}, {n} samples, seed {seed}, {what}: {_told(worst)}")
    return line


def _told(row: Accuracy) -> str:
    """What counts of a row, in short."""
    told = {
        key: getattr(row, key) for key in ("output", "kind", "metric", "drop_percent", "shown_percent", "signal_percent", "noise_percent")
    }
    told |= {key: getattr(row, key) for key in ("sqnr_db", "count", "worst_slice")}
    return ", ".join(
        f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in told.items() if value is not None
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="The verdict table: kinds of outputs, harmless and harmful candidates.")
    parser.add_argument("kinds", nargs="*")
    parser.add_argument("--table", choices=TABLES, default="first")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samples", type=int, nargs="+", default=[3, 20, 200])
    parser.add_argument("--batch", type=int, default=1)
    args = parser.parse_args()
    print("| output | taken for | harmless: drop up to | of the limit | harmful: of the limit, from | candidates |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    wrong = total = 0
    for name in args.kinds or kinds_of(args.table):
        line = judged(name, range(args.seeds), args.samples, args.batch)
        good, bad = np.array(line.good), np.array(line.bad)
        cells = (f"{good[:, 0].max():.2f} %", f"{good[:, 1].max():.2f}", f"{bad[:, 1].min():.3g}", f"{len(good)} + {len(bad)}")
        print(f"| {name.replace('_', ' ')} | {', '.join(sorted(line.kinds))} | {' | '.join(cells)} |", flush=True)
        wrong, total = wrong + len(line.wrong), total + len(good) + len(bad)
        for text in line.wrong:
            print(text, flush=True)
    print(f"{wrong} of {total} judged wrongly")


if __name__ == "__main__":
    main()
