"""The table at the end of a run."""

from __future__ import annotations

import io
import math
import os

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from onnx2trt.base.words import listed, printable
from onnx2trt.compare.accuracy import Accuracy, slices_of
from onnx2trt.plan.precision_arguments import EIGHT_BIT
from onnx2trt.report import doors, inspection, sections
from onnx2trt.report.inputs import bound_inputs, profile_texts, shape_range
from onnx2trt.report.next_steps import next_steps
from onnx2trt.report.result import mega
from onnx2trt.report.traffic import NOT_TIMED, least_times, traffic

NAME_WIDTH = 11  # characters of the first column
REASONS_SHOWN, NAMES_SHOWN = 8, 3  # of the layers kept in higher precision; all stand in the JSON
STATUS_WORDS = {
    "validated": "validated on the GPU",
    "simulated": "simulated on the CPU, the engine was not executed here",
    "not_validated": "not validated",
    "planned": "planned: nothing was built (--dry-run)",
    "failed": "failed",
}
OF_ONNX = {  # the same for a candidate that is an ONNX model
    "simulated": "the candidate was computed on the CPU, what is FP16 or BF16 by rounding",
    "not_validated": "the candidate was not validated",
}


def render(result: dict, width: int, color: bool) -> str:
    """The result as text, the verdict first and the next step last.

    Args:
        width: columns of the terminal.
        color: with ANSI colours; else it is the same text.
    """
    stream = io.StringIO()
    plain = not color or bool(os.environ.get("NO_COLOR"))
    console = Console(file=stream, width=max(width, 60), force_terminal=color, no_color=plain, highlight=False)
    for part in parts(result, console.width):
        console.print(part, soft_wrap=isinstance(part, Text) and bool(part.no_wrap))
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def parts(result: dict, width: int = 0) -> list[Table | Text]:
    """All that the result has to say, from the top to the bottom, not yet laid out in lines: that takes most of the time.

    Args:
        width: of a line; a command that does not fit has one of its own, so that it can be copied.

    Raises:
        ValueError, KeyError, TypeError, AttributeError, IndexError, ArithmeticError: it is not as a conversion writes it.
    """
    table = _grid()
    for name, value, style in _rows(result):
        table.add_row(name, Text(printable(value, ""), style=style))
    found = [table]
    for rows, title in ((result["variants"], ""), (result["structures"], STRUCTURES)):
        if len(rows) > 1:
            rows = sorted(rows, key=lambda row: (ORDER.index(row["precision"]), row["p50_ms"] or math.inf))
            lines = filter(None, (title, _comparison(rows), *_remarks(rows)))
            found += [Text(), *(Text(printable(line)) if isinstance(line, str) else line for line in lines)]
    steps = _grid()
    for step in next_steps(result):
        whole = step.replace("\n", " ")
        words, _, command = (whole, "", "") if NAME_WIDTH + 2 + cell_len(whole) <= width else step.partition("\n")
        steps.add_row("next", Text(printable(words, "")))
        found += [steps, Text(printable(command, ""), no_wrap=True)] if command else []
        steps = _grid() if command else steps
    return [*found, steps] if steps.row_count else found


def _grid() -> Table:
    """Names, and what is said of them; without lines, so that a pipe gets what a terminal gets."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True, min_width=NAME_WIDTH)
    table.add_column(overflow="fold")
    return table


ORDER = ("fp32", "bf16", "fp16", "int8", "fp8")
STRUCTURES = "INT8 engines of the same layers; the fastest that is sound is delivered:"
COLUMNS = ("precision", "engine MB", "p50 ms", "p99 ms", "per s", "drop %", "SQNR dB", "build s")


def _comparison(variants: list[dict]) -> Table:
    """The engines side by side."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in COLUMNS:
        table.add_column(name, justify="left" if name == "precision" else "right")
    for row in variants:
        megabytes = None if row["engine_bytes"] is None else row["engine_bytes"] / 1e6
        numbers = (megabytes, row["p50_ms"], row["p99_ms"], row["throughput_per_s"], row["drop_percent"], row["sqnr_db"], row["build_s"])
        shown = ["-" if number is None else f"{number:.{digits}f}" for number, digits in zip(numbers, (1, 3, 3, 0, 2, 1, 1))]
        table.add_row((row.get("structure") or row["precision"]) + " *" * bool(row.get("measured_on")), *shown)
    return table


def _remarks(variants: list[dict]):
    """What the comparison has no column for."""
    for row in variants:
        name = row.get("structure") or row["precision"]
        if row["error"]:
            yield f"no {name} engine: {row['error']}"
        if row.get("falls_short"):
            yield f"{name}: {row['falls_short']}: TensorRT may compute wrong numbers there"
        if row.get("measured_on"):
            what = "; its data were others, so its drop and SQNR cannot be held against those above or below" * bool(row.get("other_data"))
            yield f"* {name} was measured by an earlier run, on {row['measured_on']}{what}"
    moved = {row["precision"]: row["moved_bytes"] for row in variants if row.get("moved_bytes")}
    if moved:
        listing = ", ".join(f"{name} {mega(count)}" for name, count in moved.items())
        yield f"moved through memory in one inference, by the engines' own plans (an estimate, not measured): {listing}"
    for name in EIGHT_BIT:
        if moved.get(name, 0) > moved.get("fp16", math.inf):
            ratio = moved[name] / moved["fp16"]
            yield f"{name.upper()} moves {ratio:.2f} times what FP16 moves: where memory is the limit, it cannot be faster"
    least = [f"  {row['precision']}: {least_times(row)}" for row in variants if row.get("least_ms")]
    yield from (f"one inference at best ({NOT_TIMED}):", *least) if least else ()
    if not any(row["p50_ms"] for row in variants):
        yield "no latencies: the engines were not executed here"


def _rows(result: dict):
    if result["status"] == "inspected":
        yield from inspection.rows(result)
        return
    if result["status"] in doors.ROWS:
        yield from doors.ROWS[result["status"]](result)
        return
    onnx = sections.of_onnx(result)
    yield "verdict", _verdict(result), "green" if result["status"] == "validated" else "yellow"
    model, environment, plan, engine = (result[key] for key in ("model", "environment", "plan", "engine"))
    yield "model", f"{model['path']}  {mega(model['bytes'])}, opset {model['opset']}, {model['nodes']} nodes", ""
    if engine:
        yield "engine", f"{engine['path']}  {mega(engine['bytes'])}{_weights(result)}", ""
    if engine and engine.get("moved_bytes"):
        yield "traffic", traffic(engine), ""
    if engine and engine.get("least_ms"):
        yield "at best", f"{least_times(engine)}; {NOT_TIMED}", ""
    if onnx:
        yield "candidate", f"{result['candidate']['path']}  {mega(result['candidate']['bytes'])}", ""
    else:
        yield "built with", _built_with(environment, plan, result), ""
    for profile in () if result["optimization_profiles"] else plan["profiles"]:
        yield "input", f"{profile['name']}  {shape_range(profile)}", ""
    yield from (("profile", text, "") for text in profile_texts(result))
    yield from (("input", text, "") for text in bound_inputs(model))
    yield from _precision_rows(result)
    yield from _calibration_rows(result)
    for row in result["accuracy"]:
        yield "accuracy", _accuracy(row, plan["max_accuracy_drop"]), "yellow" if row["constant"] or row["nonfinite"] else ""
    if result["status"] in ("validated", "simulated", "not_validated") and not onnx:
        yield "latency", _latency(result), ""
    seconds = ", ".join(f"{name} {value:.1f}" for name, value in result["timings_s"].items())
    yield "seconds", seconds, ""


def _verdict(result: dict) -> str:
    text = (OF_ONNX if sections.of_onnx(result) else STATUS_WORDS)[result["status"]]
    row = sections.deciding(result)
    if result["not_validated_because"]:
        text += f": {result['not_validated_because']}"
    elif row and result["plan"] and result["status"] in ("validated", "simulated"):
        text = f"{_agreement(row, result['plan']['max_accuracy_drop'])}: {text}"
    return text + ("; unchanged, so it was not built again" if result["skipped"] else "")


def _agreement(row: dict, limit: float) -> str:
    """Of the output that decides: what few samples leave open is no miss of the limit (Accuracy.excess), and no proof."""
    accuracy = Accuracy(**row)
    if row["drop_percent"] > limit:
        several = row["samples"] > 1
        measured = f"measured {row['drop_percent']:.2f} %, of which {'they show' if several else 'it shows'} {accuracy.shown:.2f} %"
        return f"{row['samples']} sample{'s do' if several else ' does'} not show a drop above {limit:g} % ({measured})"
    on = " on made-up inputs" * (row["inputs"] == "synthetic") or " on its calibration data" * accuracy.all_seen
    on += "" if accuracy.held_out_percent is None else f", {accuracy.held_out_percent:.2f} % where it was made without them"
    return f"agrees within {limit:g} %{on}"


def _weights(result: dict) -> str:
    """What an engine consists of: people expect INT8 to make every engine smaller."""
    weights, total = result["engine"].get("weights_bytes"), result["engine"]["bytes"]
    if weights is None or result["precision"] is None:
        return ""
    delivered = result["precision"]["delivered"]
    kernels = weights < total / 2 and delivered in EIGHT_BIT
    return f", {mega(weights)} of which are weights" + (
        f"; the code of the kernels gets no smaller by {delivered.upper()}" if kernels else ""
    )


def _built_with(environment: dict, plan: dict, result: dict) -> str:
    name = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}[environment["backend"]]
    target = ", ".join(plan["gpu_archs"])
    if environment["backend"] == "tensorrt-rtx":
        target = f"for compute capability {target}" if target else "portable (compute capability 8.0 and newer)"
    else:
        target = f"for {environment['gpu']}"
    return f"{name} {environment['tensorrt']}, {plan['route']}, {target}"


def _precision_rows(result: dict):
    precision = result["precision"]
    if not precision:
        yield "precision", f"{result['plan']['precision']} asked for", ""
        return
    text = precision["delivered"] or ("unknown" if any((precision["layers"] or {"": 1}).values()) else "no floating-point layers")
    if precision["requested"]:
        text += f" ({precision['requested']} asked for)"
    text += inspection.mac_share(precision)
    yield "precision", text, ""
    if any((precision["layers"] or {}).values()):
        counts = ", ".join(f"{count} {name.upper()}" for name, count in precision["layers"].items() if count)
        yield "layers", f"{counts} (counted in the {precision['layers_source']})", ""
    kept = precision["fallback"]
    if kept:
        yield f"kept ({len(kept)})", "\n".join(_kept_lines(kept)), ""


def _kept_lines(kept: list[dict]):
    """One line for each reason, with the first few layers that it holds for."""
    by_reason: dict[tuple[str, str], list[str]] = {}
    for entry in sorted(kept, key=lambda entry: -(sections.effect(entry) or 0.0)):
        by_reason.setdefault((entry["precision"].upper(), sections.general(entry["reason"])), []).append(sections.named(entry))
    for (precision, reason), names in list(by_reason.items())[:REASONS_SHOWN]:
        yield f"{len(names)} in {precision}: {reason}: {listed(names, NAMES_SHOWN)}"
    hidden = sum(len(names) for names in list(by_reason.values())[REASONS_SHOWN:])
    if hidden:
        yield f"... and {hidden} more (--json names all)"


def _calibration_rows(result: dict):
    calibration = result["calibration"]
    if calibration:
        text = f"{calibration['method']}, "
        if calibration["samples_used"] is None:
            text += f"scales from {calibration['cache']}"
        else:
            text += f"{calibration['samples_used']} samples"
            if calibration["samples_skipped"]:
                text += f", {calibration['samples_skipped']} skipped"
            text += f" in {calibration['seconds']:.1f} s"
        if calibration.get("profile"):
            text += f", at the usual shapes of profile {calibration['profile']}"
        yield "calibration", text, ""


def _accuracy(row: dict, limit: float) -> str:
    open_part = Accuracy(**row).left_open(limit)
    text = f"{inspection.compared(row)}: drop {row['drop_percent']:.2f} %{_interval(row)} ({row['metric']}), "
    text += f"{open_part}; " if open_part else ""
    text += f"SQNR {row['sqnr_db']:.1f} dB, largest error {row['max_abs_error']:.3g}"
    if row.get("signal_percent") is not None and row.get("noise_percent") is not None:
        text += f", {row['noise_percent']:.2g} % of what varies lost"
    for part in row.get("parts") or ():
        text += f"; {slices_of(part)}: drop {part['drop_percent']:.2f} %, {part['sqnr_db']:.1f} dB"
        text += ", hardly anything happens there" if part.get("still") else ""
    if row["nonfinite"]:
        text += f", {row['nonfinite']} NaN or infinite"
    if row["worst"] is not None:
        text += f"; worst {row['worst']} {row['worst_drop_percent']:.2f} %"
    if row.get("seen_in_calibration"):
        text += f"; {Accuracy(**row).seen()}"
    if row["constant"]:
        text += "; the model's output is constant, which is no evidence"
    return text


def _interval(row: dict) -> str:
    """In which the drop lies, where the samples leave it open."""
    low, high = row.get("interval_percent") or (row["drop_percent"],) * 2
    return "" if f"{low:.2f}" == f"{high:.2f}" else f" ({low:.2f} to {high:.2f})"


def _latency(result: dict) -> str:
    latency = result["latency"]
    if latency is None:
        return f"not measured: {result['latency_not_measured_because'] or 'the engine was not executed here'}"
    return f"p50 {latency['p50_ms']:.3f} ms, p90 {latency['p90_ms']:.3f}, p99 {latency['p99_ms']:.3f} ({latency['covers']})"
