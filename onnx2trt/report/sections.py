"""What the page says in words and numbers: the result turned into rows. Every part of a result may be missing: runs fail early."""

from __future__ import annotations

import os
import re

from onnx2trt.compare.accuracy import Accuracy
from onnx2trt.compare.metrics import SQNR_LIMIT_DB
from onnx2trt.report.result import WORK_SHARES, mega

PRECISIONS = ("int8", "fp8", "fp16", "bf16", "fp32")
VERDICTS = {  # status -> level (its colour), icon, words, what they mean
    "validated": ("good", "check", "Validated on the GPU", "The engine was executed here and agrees with the ONNX model."),
    "simulated": (
        "warn",
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


# ---- numbers in words


def percent(value: float, digits: int = 2) -> str:
    """Of a number that is in percent already; small ones do not become 0.00, but "< 0.01"."""
    least = 10**-digits
    if value and abs(value) < 0.5 * least:
        return f"{'< ' if value > 0 else '> -'}{least:.{digits}f} %"
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
    row = deciding(result)
    if row and result["status"] in ("validated", "simulated") and Accuracy(**row).all_seen:
        meaning += " Measured on the calibration data alone: on other data INT8 may differ more, which --validate shows."
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
    if left_open := Accuracy(**row).left_open(limit):
        note += f"; {left_open}"
    drop = row["drop_percent"]
    card = {"label": "Accuracy drop", "value": percent(drop), "note": note}
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
    """Layers by precision; those kept higher, what costs most first; constraints that TensorRT ignored."""
    precision = result["precision"]
    if not precision or precision.get("layers") is None:
        return None
    total = sum(precision["layers"].values())
    bars = [
        {"precision": name, "count": precision["layers"].get(name, 0), "share": precision["layers"].get(name, 0) / max(total, 1)}
        for name in PRECISIONS
    ]
    work = [(name, precision.get(f"{name}_mac_share")) for name in WORK_SHARES]
    kept = [{**entry, "reason": general(entry["reason"]), "effect": effect(entry)} for entry in precision["fallback"]]
    return {
        "bars": [bar for bar in bars if bar["count"]],
        "total": total,
        "work": [{"precision": name, "share": share} for name, share in work if share],
        "source": precision["layers_source"],
        "kept": sorted(kept, key=lambda entry: (-(entry["effect"] or 0.0), entry["reason"], entry["name"])),
        "ignored": precision["ignored_constraints"],
    }


# the guards of FP16 and INT8 write a number for each layer
MEASURED = re.compile(r"(\w+) \w[\w ]*? alone changes the outputs by (\d[\d.e+-]*) ?%")


def general(reason: str) -> str:
    """A reason without what it says of one layer only."""
    found = MEASURED.fullmatch(reason)
    return f"{found[1]} there costs most accuracy for the work it speeds up" if found else reason


def effect(entry: dict) -> float | None:
    """What was measured of a layer, in percent."""
    found = MEASURED.fullmatch(entry["reason"])
    return float(found[2]) if found else None


def named(entry: dict) -> str:
    """A layer that is kept in a higher precision, with what was measured of it."""
    found = MEASURED.fullmatch(entry["reason"])
    return f"{entry['name']} ({found[2]} %)" if found else entry["name"]


def tried(result: dict) -> dict | None:
    """Choices of layers that were measured, and the share of the work that each left in the asked precision."""
    shares = (
        ("calibration", "int8_mac_share", "in INT8"),
        ("calibration", "fp8_mac_share", "in FP8"),
        ("precision", "fp16_share", "work in 16 bits"),
    )
    for part, key, head in shares:
        rows = (result[part] or {}).get("tried")
        if rows and key in rows[0]:
            most = max([row["drop_percent"] + row["standard_error"] for row in rows] + [1e-9])
            return {"head": head, "rows": [{**row, "share": row[key], "bar": row["drop_percent"] / most} for row in rows]}
    return None


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
