"""What came of the engines of a network: ratios, the verdict, and both as Markdown."""

from __future__ import annotations

WITHIN = 1.02  # of the fastest
NOISE = 1.01  # by which two engines that are as fast may differ
SEARCH = 3.0  # times the raw FP16 build and the raw INT8 build, for --precision int8 with the FP16 engine that it is held against
INT8_PEERS = ("raw int8", "int8 qdq", "int8 calibrator")
BEST_PEERS = (*INT8_PEERS, "raw fp16")
TARGETS = {  # of --precision int8, of raw FP16
    "mobilenet_v3_large": 0.86,
    "deeplabv3_resnet50": 0.62,
    "resnet50": 0.69,
    "unet": 0.70,
    "vit_b_16": 0.87,
    "ppocr": 0.95,
}
TIMES = {"with CUDA graphs": "graph_p50_ms", "with plain launches": "p50_ms"}
OF_BUILT = ("p50_ms", "status", "drop_percent", "sqnr_db", "off_simulation_db", "build_s", "error")
SUMMARY = ("raw int8", "fp16", "int8", "int8 qdq", "int8 calibrator", "best")


def label(row: dict) -> str:
    """One of the rows "variants" of our result, in words."""
    return " ".join(filter(None, (row.get("precision"), row.get("structure"))))


def chosen(result: dict) -> str:
    """Which of the engines that were built our command handed on, by its result."""
    rows = result.get("variants") or []
    p50 = (result.get("latency") or {}).get("p50_ms")
    found = [row for row in rows if row.get("chosen")] or [row for row in rows if p50 is not None and row.get("p50_ms") == p50]
    return label(found[0]) if found else (result.get("precision") or {}).get("delivered") or ""


def _built(result: dict) -> list[dict]:
    """Of all engines, with each structure of INT8 where several were measured."""
    structures = result.get("structures") or []
    return [row for row in result.get("variants") or [] if row["precision"] != "int8" or not structures] + structures


def of_result(result: dict) -> dict:
    """What a row keeps of our result."""
    precision, timings = result.get("precision") or {}, result.get("timings_s") or {}
    return {
        "chosen": chosen(result),
        "own_p50_ms": (result.get("latency") or {}).get("p50_ms"),
        "int8_mac_share": precision.get("int8_mac_share"),
        "stages_s": timings,
        "variants": [{"engine": label(row), **{key: row.get(key) for key in OF_BUILT}} for row in _built(result)],
    }


def add_ratios(rows: dict[str, dict]) -> None:
    """To raw fp16: ratio, and graph_ratio."""
    base = rows.get("raw fp16", {})
    for row in rows.values():
        for ratio, time in (("ratio", "p50_ms"), ("graph_ratio", "graph_p50_ms")):
            if row.get(time) and base.get(time):
                row[ratio] = row[time] / base[time]


def verdict(name: str, rows: dict[str, dict], time: str = "graph_p50_ms") -> dict[str, dict]:
    """What was asked for -> value, limit, reached, and against which engine; what cannot be told is left out.

    Args:
        time: of TIMES' values.
    """
    found = {}
    for way, peers, allowed in (("int8", INT8_PEERS, WITHIN), ("best", BEST_PEERS, WITHIN), ("fp16", ("raw fp16",), NOISE)):
        timed = {peer: rows[peer][time] for peer in peers if rows.get(peer, {}).get(time)}
        if way not in rows or not timed:
            continue
        fastest, own = min(timed, key=timed.get), rows[way].get(time)
        value = own / timed[fastest] if own else None
        found[way] = {"value": value, "limit": allowed, "reached": value is not None and value <= allowed, "against": fastest}
    base, own = (rows.get(way, {}).get(time) for way in ("raw fp16", "int8"))
    if name in TARGETS and base and own:
        found["int8 of raw fp16"] = {"value": own / base, "limit": TARGETS[name], "reached": own / base <= TARGETS[name]}
    raw, ours = (rows.get(way, {}) for way in ("raw int8", "int8"))
    if raw.get("sqnr_db") is not None and ours.get("sqnr_db") is not None and raw.get("layers", {}).get("int8"):
        found["SQNR of int8"] = {"value": ours["sqnr_db"], "limit": raw["sqnr_db"], "reached": ours["sqnr_db"] >= raw["sqnr_db"]}
    builds = [rows.get(way, {}) for way in ("raw fp16", "raw int8", "fp16", "int8")]
    seconds = [row.get("build_s") for row in builds]
    failed, warm = any(row.get("error") for row in builds), any(row.get("timings_known") for row in builds[:3])
    if all(seconds) and not failed and not warm:
        value = sum(seconds[2:]) / sum(seconds[:2])  # the second of ours uses the kernel timings of the first
        found["builds"] = {"value": value, "limit": SEARCH, "reached": value <= SEARCH}
    return found


def markdown(found: dict) -> str:
    """Ratios of all networks, once for each kind of launch, what was missed, and all figures of each network."""
    about = [
        found.get("gpu"),
        found.get("tensorrt") and f"TensorRT {found['tensorrt']}",
        f"optimization level {found['level']}",
        found["date"],
    ]
    lines = [f"{', '.join(filter(None, about))}; p50, timed in turn, inputs on the device. Ratios are of raw FP16.", ""]
    for title, time in TIMES.items():
        lines += [*_summary(found["networks"], title, time), ""]
    for name, network in found["networks"].items():
        lines += [*_details(name, network), ""]
    return "\n".join(lines)


def _summary(networks: dict[str, dict], title: str, time: str) -> list[str]:
    head = (
        "network",
        f"raw fp16, ms, {title}",
        *SUMMARY,
        "int8 chose",
        "best chose",
        f"int8 within {WITHIN} of",
        f"best within {WITHIN} of",
    )
    lines = _head(head)
    for name, network in networks.items():
        rows = network["rows"]
        base = rows.get("raw fp16", {}).get(time)
        cells = [name, f"{base:.4f}" if base else "failed"]
        for way in SUMMARY:
            own = rows.get(way, {}).get(time)
            cells.append(f"{own / base:.3f}" if own and base else f"{own:.4f} ms" if own else "failed" if way in rows else "")
        cells += [rows.get(way, {}).get("chosen") or "" for way in ("int8", "best")]
        judged = verdict(name, rows, time)
        lines.append(_line([*cells, *(_reached(judged.get(way)) for way in ("int8", "best"))]))
    return lines


def _details(name: str, network: dict) -> list[str]:
    lines = [f"**{name}**" + (f": {network['error']}" if network.get("error") else ""), ""]
    head = ("", "ms, graph", "of raw fp16", "ms, launches", "of raw fp16", "SQNR dB", "MB", "layers", "seconds", "chosen")
    lines += _head(head)
    for way, row in network["rows"].items():
        counts = ", ".join(f"{count} {kind}" for kind, count in row.get("layers", {}).items() if count)
        cells = [
            _number(row.get("graph_p50_ms"), 4),
            _number(row.get("graph_ratio"), 3),
            _number(row.get("p50_ms"), 4),
            _number(row.get("ratio"), 3),
        ]
        cells += [_number(row.get("sqnr_db"), 1), _number(row.get("mb"), 1), counts, _seconds(row)]
        said = row.get("error") or row.get("graph_error") or row.get("chosen") or ""
        lines.append(_line([way, *cells, said]))
    lines.append("")
    for way in ("int8", "fp8", "best"):
        for variant in network["rows"].get(way, {}).get("variants", ()):
            figures = f"p50 {_number(variant['p50_ms'], 4)} ms, {_number(variant['sqnr_db'], 1)} dB, {_number(variant['build_s'], 0)} s"
            off = variant.get("off_simulation_db")  # in JSON of before there is none
            figures += "" if off is None else f", {off:+.2f} dB further from the model than its simulation"
            lines.append(f"- {way} built {variant['engine']}: {variant['error'] or figures}")
    for title, time in TIMES.items():
        for what, judged in verdict(name, network["rows"], time).items():
            if time == "graph_p50_ms" or what in ("int8", "best", "fp16"):
                lines.append(f"- {what}{f', {title}' if what in ('int8', 'best', 'fp16', 'int8 of raw fp16') else ''}: {_reached(judged)}")
    return lines


def _seconds(row: dict) -> str:
    return _number(row.get("build_s"), 0) + (" (timings known)" if row.get("timings_known") and row.get("build_s") else "")


def _reached(judged: dict | None) -> str:
    if judged is None:
        return ""
    against = f" of {judged['against']}" if "against" in judged else f" (limit {judged['limit']:.4g})"
    value = "failed, it" if judged["value"] is None else f"{judged['value']:.3f}{against}"
    return f"{value}: {'reached' if judged['reached'] else '**MISSED**'}"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _head(cells) -> list[str]:
    return [_line(cells), _line(["---"] * len(cells))]


def _line(cells) -> str:
    return "| " + " | ".join(str(cell).replace("|", "/").replace("\n", " ") for cell in cells) + " |"
