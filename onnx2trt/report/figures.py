"""What the page shows: images and plots, made of what the run has kept."""

from __future__ import annotations

import numpy as np

from onnx2trt.compare.evidence import Drops, Evidence, Output, Sample
from onnx2trt.report import images, plots, sections
from onnx2trt.report.drawn_boxes import boxes

LONGEST_SIDE, LONGEST_OF_MANY = 640, 400  # pixels of an image on the page; of each where there are more than FEW outputs
FEW, MOST_OUTPUTS = 2, 12
TOP = 5  # classes shown of an output of scores
WORST_NAMED = 5
LARGEST = {"fp8": 448}  # that a scale is multiplied by; else that of INT8
LARGEST_INT8 = 127


def engine_word(result: dict) -> str:
    """What the outputs that are compared with the model's come from."""
    if sections.of_onnx(result):
        return "candidate"
    on_gpu = any(row["executed_on"] == "gpu" for row in result["accuracy"])
    return "engine" if on_gpu else "simulated engine"


def looks(result: dict, evidence: Evidence) -> dict | None:
    """The sample that is looked at, and each output of it."""
    sample = evidence.sample
    if sample is None:
        return None
    word = engine_word(result)
    synthetic = sample.origin == "synthetic"
    longest = LONGEST_SIDE if len(sample.outputs) <= FEW else LONGEST_OF_MANY
    shown = [_look(output, sample, word, longest, with_input=number == 0) for number, output in enumerate(sample.outputs[:MOST_OUTPUTS])]
    worst = [_other(one, word, longest) for one in evidence.worst[: MOST_OUTPUTS // 2] if one.path != sample.path]
    named = {(one["path"], one["name"]) for one in worst}
    examples = [_other(one, word, longest) for one in evidence.examples if (one.path, one.outputs[0].name) not in named]
    return {
        "path": sample.path,
        "synthetic": synthetic,
        "arrays": sample.image is None and not synthetic,
        "outputs": shown,
        "more": len(sample.outputs) - len(shown),
        "worst": worst,
        "examples": examples,
    }


def _other(sample: Sample, word: str, longest: int) -> dict:
    """One output of another sample than the first."""
    return {**_look(sample.outputs[0], sample, word, longest, with_input=True), "path": sample.path}


def _look(output: Output, sample: Sample, word: str, longest: int, with_input: bool) -> dict:
    """
    Args:
        longest: side of an image in pixels.
        with_input: show what the model was given, too.
    """
    image = sample.image
    found = {"name": output.name, "kind": output.kind, "shape": " x ".join(map(str, output.shape)) or "scalar"}
    found["input"] = images.plain(image, longest) if with_input and image is not None else None
    found |= {"differing": 100 * output.differing_share, "threshold": output.threshold}
    if output.kind == "classes":
        return {**found, **images.classes(output, image, longest)}
    if output.kind == "mask":
        return {**found, **images.masks(output, image, longest)}
    if output.kind == "map":
        return {**found, **images.maps(output, longest), "errors": _errors(output)}
    if output.kind == "scores":
        return {**found, **_scores(output)}
    if output.kind == "boxes":
        return {**found, "input": images.plain(image, LONGEST_SIDE) if image is not None else None, **boxes(output, word)}
    same = np.array_equal(output.reference, output.candidate, equal_nan=True)
    values = plots.values(output.reference, output.candidate, word)
    line = None if output.series is None else plots.line(*output.series, word)
    return {
        **found,
        "line": line,
        "values": values,
        "errors": None if same else _errors(output),
        "same": same,
        "count": output.reference.size,
    }


def _errors(output: Output) -> str:
    return plots.errors(np.ravel(output.reference), np.ravel(output.candidate))


def _scores(output: Output) -> dict:
    """The best classes of both, each with both shares; of values that are no shares, their softmax."""
    both = [np.nan_to_num(values, nan=-np.inf, posinf=1e30) for values in (output.reference, output.candidate)]
    shares = all(values.min() >= 0 and abs(values.sum() - 1) < 0.01 for values in both)
    weights = both if shares else [_softmax(values) for values in both]
    best = [np.argsort(-values, kind="stable")[:TOP].tolist() for values in both]
    shown = best[0] + [index for index in best[1] if index not in best[0]]
    rows = [
        {
            "name": f"class {index}",
            "model": float(weights[0][index]),
            "engine": float(weights[1][index]),
            "values": None if shares else tuple(map(sections.number, (output.reference[index], output.candidate[index]))),
            "best": tuple(which for which, first in (("model", best[0][0]), ("engine", best[1][0])) if first == index),
        }
        for index in shown
    ]
    return {"rows": rows, "softmax": not shares, "agree": best[0][0] == best[1][0], "classes": output.reference.size}


def _softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max())
    return powers / powers.sum()


def drops(result: dict, evidence: Evidence) -> list[dict]:
    """The drop of each sample of the data sets that have several, and the worst by name."""
    pooled = {(row["inputs"], row["output"]): row["drop_percent"] for row in result["accuracy"]}
    limit = result["plan"]["max_accuracy_drop"] if result["plan"] else None
    return [_drops(one, pooled.get((one.origin, one.output), 0.0), limit) for one in evidence.drops if len(one.percent) > 1]


def _drops(one: Drops, pooled: float, limit: float | None) -> dict:
    order = np.argsort(-np.asarray(one.percent), kind="stable")[:WORST_NAMED]
    changed = sum(value > 0 for value in one.percent)
    return {
        "origin": one.origin,
        "output": one.output,
        "samples": len(one.percent),
        "changed": changed,
        "plot": None if one.metric == "top1" or not changed else plots.drops(one.percent, pooled, limit),
        "worst": [(one.paths[index], one.percent[index]) for index in order if one.percent[index] > 0],
        "metric": one.metric,
    }


def latency(result: dict, evidence: Evidence) -> dict:
    """Times, or the sentence why there are none."""
    found = result["latency"]
    if not found:
        return {"why": sections.why_no_latency(result), "plot": None, "rows": []}
    rows = [(name, found[f"{name}_ms"]) for name in ("p50", "p90", "p99", "mean")]
    plot = plots.latency(evidence.latency_ms, dict(rows[:3])) if len(evidence.latency_ms) > 1 else None
    return {"why": "", "plot": plot, "rows": rows, "runs": found["runs"], "covers": found["covers"], "fp16": found["fp16_p50_ms"]}


def ranges(result: dict, evidence: Evidence) -> dict | None:
    """The largest value that INT8 holds in each tensor, and where the scales come from."""
    scales = {name: scale for name, scale in evidence.scales.items() if scale > 0}
    if not scales:
        return None
    chosen = evidence.quantized or frozenset(scales)
    largest = LARGEST.get((result["precision"] or {}).get("requested"), LARGEST_INT8)
    rows = [{"name": name, "largest": largest * scale, "int8": name in chosen} for name, scale in scales.items()]
    calibration = result["calibration"] or {}
    source = calibration.get("method", "")
    if calibration.get("samples_used") is None:
        source = f"the calibration cache {calibration.get('cache')}" if calibration.get("cache") else source
    else:
        source = f"calibration by {source} on {calibration['samples_used']} samples"
    return {
        "plot": plots.ranges([row["largest"] for row in rows], [row["int8"] for row in rows]),
        "rows": rows,
        "source": source,
        "equalized": evidence.equalized,
    }
