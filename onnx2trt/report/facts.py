"""What an engine was made of and with, for the page: rows of a name and its text."""

from __future__ import annotations

from onnx2trt.base.model_info import dims
from onnx2trt.report.inputs import bound_inputs, profile_texts, shape_range
from onnx2trt.report.result import mega
from onnx2trt.report.sections import number
from onnx2trt.report.traffic import NOT_TIMED, least_times, traffic


def facts(result: dict) -> list[tuple[str, list[tuple[str, str]]]]:
    """(head, rows of name and text)"""
    groups = [("Environment", _environment(result)), ("Model", _model(result)), ("Preprocessing", _preprocessing(result))]
    groups += [("Plan", _plan(result)), ("Engine", _engine(result))]
    return [(head, rows) for head, rows in groups if rows]


def _environment(result: dict) -> list[tuple[str, str]]:
    environment = result["environment"]
    library = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX", None: "none"}[environment["backend"]]
    return [
        ("library", f"{library} {environment['tensorrt'] or ''}".strip()),
        ("GPU", environment["gpu"] or "none answers"),
        ("CUDA of the driver", environment["driver"] or "–"),
        ("Python", environment["python"]),
        ("ONNX Runtime computed on", result["inferences_on"] or "–"),
    ]


def _model(result: dict) -> list[tuple[str, str]]:
    model = result["model"]
    if model is None:
        return []
    rows = [("file", model["path"]), ("sha256", model["sha256"])]
    rows.append(("size", f"{mega(model['bytes'])}, opset {model['opset']}, {model['nodes']} nodes"))
    for kind in ("inputs", "outputs"):
        rows += [(kind[:-1], f"{end['name']}: {end['dtype']} {dims(end['shape'])}") for end in model[kind]]
    return rows + [("input", text) for text in bound_inputs(model)]


def _preprocessing(result: dict) -> list[tuple[str, str]]:
    found = result["preprocessing"]
    if found is None:
        return []
    width, height = found["size"]
    return [
        ("size", f"{width} x {height}, {found['resize']}, {found['interpolation']} interpolation"),
        ("colour", f"{found['color']}, {found['channels']} channels, {found['layout']}, {found['dtype']}"),
        ("range", f"0 to {found['range']}"),
        ("mean", ", ".join(map(number, found["mean"]))),
        ("std", ", ".join(map(number, found["std"]))),
    ]


def _plan(result: dict) -> list[tuple[str, str]]:
    plan = result["plan"]
    if plan is None:
        return []
    rows = [("route", plan["route"] + (f", INT8 by {plan['quantization']}" if plan["quantization"] else ""))] if plan["route"] else []
    for profile in plan["profiles"]:
        rows.append((f"input {profile['name']}", shape_range(profile)))
    rows += [("optimization profile", text) for text in profile_texts(result)]
    if plan["gpu_archs"]:
        rows.append(("for compute capability", ", ".join(plan["gpu_archs"])))
    rows.append(("workspace", f"{plan['workspace_bytes'] / 2**30:g} GB"))
    rows += [(f"{in_fp32}", f"kept in {precision}") for in_fp32, precision in plan["layer_precisions"]]
    rows += [(entry["flag"], f"{entry['effect']}: {entry['note']}") for entry in plan["flags"]]
    return rows


def _engine(result: dict) -> list[tuple[str, str]]:
    engine = result["engine"]
    if engine is None:
        return []
    rows = [("file", engine["path"]), ("sha256", engine["sha256"]), ("size", mega(engine["bytes"]))]
    if engine.get("weights_bytes") is not None:
        rows.append(("of which weights", f"{mega(engine['weights_bytes'])}; the rest is mostly the code of its kernels"))
    if engine.get("moved_bytes") is not None:
        rows.append(("traffic", traffic(engine)))
    if engine.get("least_ms"):
        rows.append(("one inference at best", f"{least_times(engine)}; {NOT_TIMED}"))
    if engine.get("device_memory_bytes") is not None:
        rows.append(("scratch memory", mega(engine["device_memory_bytes"])))
    return rows
