"""The tables of the doors that do one part of the job: calibrate, preprocess."""

from __future__ import annotations

from collections.abc import Iterator

from onnx2trt.base.model_info import dims
from onnx2trt.report.inputs import bound_inputs
from onnx2trt.report.result import mega

Row = tuple[str, str, str]  # name, value, style


def calibrated(result: dict) -> Iterator[Row]:
    """
    Args:
        result: with status calibrated.
    """
    calibration = result["calibration"]
    yield "status", "calibrated", "green"
    yield _model(result)
    for profile in result["plan"]["profiles"]:
        yield "input", f"{profile['name']}  {dims(profile['opt'])}", ""
    yield from (("input", text, "") for text in bound_inputs(result["model"]))
    skipped = f", {calibration['samples_skipped']} skipped" if calibration["samples_skipped"] else ""
    found = f"{calibration['method']}, {calibration['samples_used']} samples{skipped} in {calibration['seconds']:.1f} s"
    yield "calibration", found, ""
    yield "cache", f"{calibration['cache']}  {calibration['scales']} scales", ""
    yield "beside it", ", ".join(filter(None, (f"{calibration['cache']}.json", calibration.get("fit_file")))), ""
    passed = [row for row in calibration.get("tried") or () if row["passed"]]
    if passed:
        best = max(passed, key=lambda row: (row["int8_mac_share"], not row.get("seen_in_calibration")))
        drop = f"drop {best['drop_percent']:.2f} +- {best['standard_error']:.2f} %"
        seen = ", on samples that the scales were chosen on" * bool(best.get("seen_in_calibration"))
        yield "accuracy", f"{drop} with {best['int8_mac_share']:.1%} of the multiply-accumulates in INT8{seen}", ""
    yield _seconds(result)


def preprocessed(result: dict) -> Iterator[Row]:
    """
    Args:
        result: with status preprocessed.
    """
    found, pre = result["preprocessed"], result["preprocessing"]
    yield "status", f"preprocessed{' as an image' if pre else ''}", "green"
    yield _model(result)
    inferences = found["inferences"]
    yield "data", found["source"] + (f"  {inferences} inferences; the first is described" if inferences > 1 else ""), ""
    for array in found["arrays"]:
        as_image = f" {array['layout']}, {pre['color']}" if array["layout"] else ""
        yield "input", f"{array['name']}  {array['dtype']} {dims(array['shape'])}{as_image}", ""
        for channel in array["channels"]:
            yield "range" if channel["channel"] == "all" else channel["channel"], _range(channel), ""
    yield from (("input", text, "") for text in bound_inputs(result["model"]))
    if pre:
        yield "resize", _resize(found["image"], pre), ""
        yield "pixels", f"0..{pre['range']}, minus mean {_numbers(pre['mean'])}, divided by std {_numbers(pre['std'])}", ""
    for path in found["written"]:
        yield "written", path, ""


ROWS = {"calibrated": calibrated, "preprocessed": preprocessed}  # status -> rows of its table


def _model(result: dict) -> Row:
    model = result["model"]
    return "model", f"{model['path']}  {mega(model['bytes'])}, opset {model['opset']}, {model['nodes']} nodes", ""


def _seconds(result: dict) -> Row:
    return "seconds", ", ".join(f"{name} {value:.1f}" for name, value in result["timings_s"].items()), ""


def _range(channel: dict) -> str:
    if channel["min"] is None:
        return "no finite value"
    return f"{channel['min']:.4g} to {channel['max']:.4g}, mean {channel['mean']:.4g}"


def _resize(image: dict, pre: dict) -> str:
    sizes = " -> ".join("x".join(map(str, size)) for size in (image["size"], image["scaled"], pre["size"]))
    borders = ", ".join(f"{side} {abs(count)}" for side, count in image["borders"].items() if count)
    if not borders:
        return f"{pre['resize']}: {sizes} (width x height)"
    return f"{pre['resize']}: {sizes} (width x height), {'padded' if pre['resize'] == 'letterbox' else 'cut off'}: {borders} pixels"


def _numbers(values: list[float]) -> str:
    """One for all channels is written once."""
    return ", ".join(f"{value:g}" for value in (values if len(set(values)) > 1 else values[:1]))
