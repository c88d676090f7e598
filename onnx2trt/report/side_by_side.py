"""The engines of --compare, and the INT8 structures that were built, side by side: as a table, as bars, and in a sentence."""

from __future__ import annotations

from onnx2trt.report.result import mega
from onnx2trt.report.sections import decibels, percent, seconds

COLUMNS = (  # key, head, how its values are written
    ("precision", "asked for", str),
    ("structure", "INT8 by", str),
    ("delivered", "delivered", str),
    ("status", "status", lambda value: value.replace("_", " ")),
    ("int8_mac_share", "work in INT8", lambda value: f"{value:.1%}"),
    ("fp8_mac_share", "work in FP8", lambda value: f"{value:.1%}"),
    ("engine_bytes", "engine", mega),
    ("moved_bytes", "moved (estimate)", mega),
    ("p50_ms", "p50", lambda value: f"{value:.3f} ms"),
    ("p99_ms", "p99", lambda value: f"{value:.3f} ms"),
    ("throughput_per_s", "per second", lambda value: f"{value:.0f}"),
    ("drop_percent", "drop", percent),
    ("metric", "metric", str),
    ("sqnr_db", "SQNR", decibels),
    ("build_s", "build", seconds),
    ("measured_on", "measured by an earlier run", str),
    ("other_data", "on this run's data", lambda value: "no: its drop and SQNR are of other data" if value else "yes"),
    ("error", "error", lambda value: value["message"] if isinstance(value, dict) else str(value)),
)
BARS = (("p50_ms", "Latency (p50)"), ("engine_bytes", "Size of the engine"), ("moved_bytes", "Moved (estimate)"), ("drop_percent", "Drop"))
GOOD = ("validated", "simulated")


def variants(result: dict) -> dict | None:
    """The table without columns that hold nothing, with all INT8 engines where several were built; bars; and the sentence."""
    rows = [row for row in result["variants"] if row["precision"] != "int8" or len(result["structures"]) < 2]
    rows += result["structures"] if len(result["structures"]) > 1 else []
    columns = [column for column in COLUMNS if any(row.get(column[0]) is not None for row in rows)]
    if not rows or not columns:
        return None
    written = _written(result, rows)
    return {
        "heads": [head for _, head, _ in columns],
        "rows": [[None if row.get(key) is None else write(row[key]) for key, _, write in columns] for row in rows],
        "written": [row is written for row in rows],
        "bars": [bars for key, head in BARS if (bars := _bars(key, head, rows, written))],
        "conclusion": conclusion(result, rows),
    }


def name(row: dict) -> str:
    """Of an engine, for people."""
    return row["precision"].upper() + (f" ({row['structure']})" if row.get("structure") else "")


def _written(result: dict, rows: list[dict]) -> dict | None:
    """The row of the engine that has got its name."""
    engine, precision = result["engine"], result["precision"] or {}
    if engine is None:
        return None
    same = [row for row in rows if row.get("engine_bytes") == engine["bytes"] and row.get("delivered") == precision.get("delivered")]
    latency = (result["latency"] or {}).get("p50_ms")
    return next((row for row in same if row.get("p50_ms") == latency), same[0] if same else None)


def _bars(key: str, head: str, rows: list[dict], written: dict | None) -> dict | None:
    known = [row for row in rows if row.get(key) is not None]
    if len(known) < 2:
        return None
    most, write = max(row[key] for row in known), next(write for column, _, write in COLUMNS if column == key)
    bars = [
        {"name": name(row), "text": write(row[key]), "part": row[key] / most if most else 0.0, "written": row is written} for row in known
    ]
    return {"head": head, "rows": bars}


def conclusion(result: dict, rows: list[dict]) -> str:
    """What the comparison comes to, in a sentence or two; empty where there is nothing to compare."""
    good = [row for row in rows if row.get("status") in GOOD and not row.get("error")]
    timed = sorted((row for row in good if row.get("p50_ms")), key=lambda row: row["p50_ms"])
    if len(timed) > 1:
        first, others = timed[0], [row for row in timed[1:] if row["precision"] != timed[0]["precision"]] or timed[1:]
        other = others[0]
        factor = other["p50_ms"] / first["p50_ms"]
        text = f"{name(first)} is the fastest of those that keep to the limit: {factor:.2f} times as fast as {name(other)}"
        text += "" if first.get("drop_percent") is None else f", with a drop of {percent(first['drop_percent'])}"
        return text + ("; a difference this small is hardly worth the risk." if factor < WORTH_IT else ".")
    by_name = {row["precision"]: row for row in good}
    int8, fp16 = by_name.get("int8"), by_name.get("fp16")
    if not int8 or not fp16:
        failed = [name(row) for row in rows if row.get("status") == "failed" or row.get("error")]
        return f"There is no {' and no '.join(failed)} engine." if failed else ""
    found = [f"{part} {int8[key] / fp16[key]:.2f} times the {what}" for key, part, what in SHARES if int8.get(key) and fp16.get(key)]
    text = f"INT8 {' and '.join(found)} of FP16" if found else "INT8 and FP16 both keep to the limit"
    drop = "" if int8.get("drop_percent") is None else f", with a drop of {percent(int8['drop_percent'])}"
    return f"{text}{drop}. Which one is faster was not measured: no engine was executed here."


WORTH_IT = 1.05  # times as fast, below which INT8 is not worth what it may cost on other data
SHARES = (("engine_bytes", "has", "size"), ("moved_bytes", "moves", "bytes"))
