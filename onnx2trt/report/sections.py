"""What the page says in words and numbers: the result turned into rows. Every part of a result may be missing: runs fail early."""

from __future__ import annotations

import os

from onnx2trt.compare.accuracy import Accuracy
from onnx2trt.compare.metrics import SQNR_LIMIT_DB
from onnx2trt.report.result import WORK_SHARES, mega

PRECISIONS = ("int8", "fp16", "bf16", "fp32")
VERDICTS = {  # status -> level (its colour), icon, words, what they mean
    "validated": ("good", "check", "Validated on the GPU", "The engine was executed here and agrees with the ONNX model."),
    "simulated": (
        "good",
        "check",
        "Simulated on the CPU",
        "The engine was not executed here. The model prepared for it, rounded as the engine rounds, agrees with the ONNX model.",
    ),
    "not_validated": ("warn", "bang", "Not validated", "The engine was built, but its outputs were not judged."),
    "planned": ("info", "dots", "Planned", "Nothing was built (--dry-run)."),
    "failed": ("bad", "cross", "Failed", ""),
}
OF_ONNX = {  # the same for a candidate that is an ONNX model
    "simulated": (
        *VERDICTS["simulated"][:3],
        "The candidate, with FP16 by rounding, agrees with the ONNX model. It is no engine, and nothing was executed on a GPU.",
    ),
    "not_validated": ("warn", "bang", "Not validated", "The candidate was not judged."),
}
METRICS = {
    "values": "error energy / variance of the output over the data, of the worst slice",
    "top1": "share of samples whose best class changed; near ties do not count",
    "argmax": "share of positions whose class changed; near ties do not count",
    "equal": "share of entries that differ",
    "rows": "share of the rows that are not found again, or the error of the worst column",
    "cosine": "1 - cosine of the angle between both outputs",
    "noise": "error energy / output energy; 1 % is an SQNR of 20 dB",
}
VARIANT_COLUMNS = (  # key, head, how its values are written
    ("precision", "asked for", str),
    ("structure", "INT8 by", str),
    ("delivered", "delivered", str),
    ("status", "status", lambda value: value.replace("_", " ")),
    ("int8_mac_share", "work in INT8", lambda value: f"{value:.1%}"),
    ("engine_bytes", "engine", lambda value: mega(value)),
    ("moved_bytes", "moved (estimate)", lambda value: mega(value)),
    ("p50_ms", "p50", lambda value: f"{value:.3f} ms"),
    ("p99_ms", "p99", lambda value: f"{value:.3f} ms"),
    ("throughput_per_s", "per second", lambda value: f"{value:.0f}"),
    ("drop_percent", "drop", lambda value: percent(value)),
    ("metric", "metric", str),
    ("sqnr_db", "SQNR", lambda value: decibels(value)),
    ("build_s", "build", lambda value: seconds(value)),
    ("measured_on", "measured by an earlier run", str),
    ("other_data", "on this run's data", lambda value: "no: its drop and SQNR are of other data" if value else "yes"),
    ("error", "error", lambda value: value["message"] if isinstance(value, dict) else str(value)),
)


# ---- numbers in words


def percent(value: float, digits: int = 2) -> str:
    """Of a number that is in percent already; small ones do not become 0.00."""
    if value and abs(value) < 0.5 * 10**-digits:
        return f"{value:.1e} %"
    return f"{value:.{digits}f} %"


def decibels(value: float) -> str:
    return "identical" if value >= SQNR_LIMIT_DB else f"{value:.1f} dB"


def number(value: float) -> str:
    return f"{value:.4g}"


def seconds(value: float) -> str:
    return f"{value / 60:.1f} min" if value >= 120 else f"{value:.1f} s"


# ---- the summary


def title(result: dict) -> list[str]:
    """The model's file, and that of the engine or candidate where there is one."""
    paths = [part["path"] for part in (result["model"], result["engine"] or result["candidate"]) if part]
    return [os.path.basename(path) for path in paths] or ["onnx2trt"]


def of_onnx(result: dict) -> bool:
    """Whether it is about a candidate that is an ONNX model."""
    return result["candidate"] is not None and result["candidate"]["kind"] == "onnx"


def verdict(result: dict) -> dict:
    level, icon, words, meaning = (OF_ONNX if of_onnx(result) else {}).get(result["status"]) or VERDICTS[result["status"]]
    if result["not_validated_because"]:
        because = result["not_validated_because"]
        meaning = f"{because[0].upper()}{because[1:]}."
    if result["error"]:
        words = f"{words}, exit code {result['exit_code']}"
    if result["skipped"]:
        meaning += " Nothing has changed since, so it was not built again: this is the former result, without its images."
    return {"level": level, "icon": icon, "words": words, "meaning": meaning, "error": result["error"]}


def cards(result: dict) -> list[dict]:
    """The numbers that people look for first."""
    found = [_precision_card(result), _share_card(result), _size_card(result), _accuracy_card(result), _latency_card(result)]
    total = result["timings_s"].get("total")
    if total is not None:
        found.append({"label": "Time", "value": seconds(total), "note": "in total"})
    return [{"level": "", "bar": None, **card} for card in found if card]


def _precision_card(result: dict) -> dict | None:
    precision, plan = result["precision"] or {}, result["plan"]
    asked = precision.get("requested") or (plan and result["status"] != "validated" and plan["precision"])
    delivered = precision.get("delivered")
    if not asked and not delivered:
        return None
    note = f"{asked.upper()} asked for" if asked else "of the engine as it was given"
    less = delivered and asked in PRECISIONS and PRECISIONS.index(delivered) > PRECISIONS.index(asked)
    level = "bad" if less else ""
    return {"label": "Precision", "value": (delivered or asked).upper(), "note": note if delivered else "asked for", "level": level}


def _share_card(result: dict) -> dict | None:
    precision = result["precision"] or {}
    for name in WORK_SHARES:
        share = precision.get(f"{name}_mac_share")
        if share is not None:
            return {"label": f"{name.upper()} share", "value": f"{share:.1%}", "note": "of the multiply-accumulates", "bar": share}
    return None


def _size_card(result: dict) -> dict | None:
    engine, model = result["engine"] or result["candidate"], result["model"]
    if engine is None:
        return {"label": "Model", "value": mega(model["bytes"]), "note": "no engine was written"} if model else None
    note = f"{engine['bytes'] / model['bytes']:.2f} × the model's {mega(model['bytes'])}" if model else ""
    return {"label": "Candidate size" if of_onnx(result) else "Engine size", "value": mega(engine["bytes"]), "note": note}


def deciding(result: dict) -> dict | None:
    """The row of the accuracy that decides: the worst output on the first data set."""
    rows = [row for row in result["accuracy"] if row["inputs"] == result["accuracy"][0]["inputs"]]
    limit = result["plan"]["max_accuracy_drop"] if result["plan"] else 1.0
    return max(rows, key=lambda row: (Accuracy(**row).excess(limit), row["drop_percent"]), default=None)


def _accuracy_card(result: dict) -> dict | None:
    row = deciding(result)
    if row is None:
        return {"label": "Accuracy drop", "value": "–", "note": "not measured"} if result["status"] == "not_validated" else None
    limit = result["plan"]["max_accuracy_drop"]
    excess = Accuracy(**row).excess(limit)
    between = "{} to {}, ".format(*map(percent, row["interval_percent"])) if row.get("interval_percent") else ""
    note = f"{between}limit {limit:g} %, {row['metric']}, " + ("on the GPU" if row["executed_on"] == "gpu" else "simulated")
    if row.get("seen_in_calibration"):
        note += "; " + Accuracy(**row).seen()
    drop = row["drop_percent"]
    card = {"label": "Accuracy drop", "value": "< 0.01 %" if 0 < drop < 0.005 else percent(drop), "note": note}
    if row["nonfinite"]:
        return {**card, "value": "NaN", "note": f"{row['nonfinite']} values are NaN or infinite", "level": "bad"}
    if row["inputs"] == "synthetic" and result["status"] == "not_validated":
        return {**card, "note": "on synthetic inputs: not judged", "level": "warn"}
    if result["status"] == "not_validated":
        return {**card, "note": "of the rewritten graph alone", "level": "warn"}
    return {**card, "bar": min(excess, 1.0), "level": "bad" if excess > 1 else "good"}


def why_no_latency(result: dict) -> str:
    """The sentence that stands in place of times; empty where there is nothing to explain."""
    if result["latency_not_measured_because"]:
        return f"Not measured: {result['latency_not_measured_because']}."
    if result["latency"] or result["status"] == "planned" or of_onnx(result):
        return ""
    if result["status"] == "failed":
        return "Not measured: the run ended before." if result["accuracy"] else ""
    if result["environment"]["gpu"] is None:
        return "Not measured: no GPU answers on this machine, so the engine was not executed."
    if result["status"] == "simulated":
        return f"Not measured: the engine is for another GPU than the {result['environment']['gpu']} of this machine."
    return "Not measured: the engine was not executed."


def _latency_card(result: dict) -> dict | None:
    latency = result["latency"]
    if latency:
        return {"label": "Latency p50", "value": f"{latency['p50_ms']:.3f} ms", "note": f"p99 {latency['p99_ms']:.3f} ms"}
    why = why_no_latency(result)
    return {"label": "Latency p50", "value": "–", "note": why.removeprefix("Not measured: ").rstrip(".")} if why else None


# ---- layers, what was tried, variants, times


def layers(result: dict) -> dict | None:
    """Layers by precision; those kept higher, by reason; constraints that TensorRT ignored."""
    precision = result["precision"]
    if not precision or precision.get("layers") is None:
        return None
    total = sum(precision["layers"].values())
    bars = [
        {"precision": name, "count": precision["layers"].get(name, 0), "share": precision["layers"].get(name, 0) / max(total, 1)}
        for name in PRECISIONS
    ]
    work = [(name, precision.get(f"{name}_mac_share")) for name in WORK_SHARES]
    groups: dict[tuple[str, str], list[str]] = {}
    for entry in precision["fallback"]:
        groups.setdefault((entry["precision"], _general(entry["reason"])), []).append(_named(entry))
    return {
        "bars": [bar for bar in bars if bar["count"]],
        "total": total,
        "work": [{"precision": name, "share": share} for name, share in work if share],
        "source": precision["layers_source"],
        "kept": [{"precision": kept, "reason": reason, "names": names} for (kept, reason), names in groups.items()],
        "kept_count": len(precision["fallback"]),
        "ignored": precision["ignored_constraints"],
    }


MEASURED = "INT8 here alone changes the outputs by "  # stages/int8/guard.py ends it with a number for each layer


def _general(reason: str) -> str:
    return "INT8 there costs most accuracy for the work it speeds up" if reason.startswith(MEASURED) else reason


def _named(entry: dict) -> str:
    own = entry["reason"].removeprefix(MEASURED)
    return entry["name"] if own == entry["reason"] else f"{entry['name']} ({own})"


def tried(result: dict) -> dict | None:
    """Choices of layers that were measured, and the share of the work that each left in the asked precision."""
    for part, key, head in (("calibration", "int8_mac_share", "in INT8"), ("precision", "fp16_share", "work in 16 bits")):
        rows = (result[part] or {}).get("tried")
        if rows:
            most = max([row["drop_percent"] + row["standard_error"] for row in rows] + [1e-9])
            return {"head": head, "rows": [{**row, "share": row[key], "bar": row["drop_percent"] / most} for row in rows]}
    return None


def variants(result: dict) -> dict | None:
    """The table of --compare, with all INT8 engines where several were built, without columns that hold nothing."""
    rows = [row for row in result["variants"] if row["precision"] != "int8" or len(result["structures"]) < 2]
    rows += result["structures"] if len(result["structures"]) > 1 else []
    columns = [column for column in VARIANT_COLUMNS if any(row.get(column[0]) is not None for row in rows)]
    if not rows or not columns:
        return None
    cells = [[None if row.get(key) is None else write(row[key]) for key, _, write in columns] for row in rows]
    return {"heads": [head for _, head, _ in columns], "rows": cells}


def timings(result: dict) -> list[dict]:
    """Seconds of each stage, with their share of the longest."""
    stages = {name: value for name, value in result["timings_s"].items() if name != "total"}
    longest = max([*stages.values(), 1e-9])
    return [{"name": name, "seconds": value, "bar": value / longest} for name, value in stages.items()]


def seen(row: dict) -> str:
    """That a row was measured on samples that the scales were chosen on; empty where it was not."""
    return Accuracy(**row).seen()


def metrics(result: dict) -> list[tuple[str, str]]:
    """(metric of an output, what its drop is)"""
    names = dict.fromkeys(row["metric"] for row in result["accuracy"])
    return [(name, f"1 - overlap (IoU) of what is above {name[5:]}" if name.startswith("mask:") else METRICS[name]) for name in names]


def readable(result: dict) -> str:
    """The file with the same result for programs; it stands beside an engine that this run has built."""
    there = result["skipped"] or "build" in result["timings_s"]
    built = result["status"] in ("validated", "simulated", "not_validated") and there
    return f"{result['engine']['path']}.json" if built and result["engine"] else ""
