"""The table of --inspect."""

from __future__ import annotations

from collections.abc import Iterator

from onnx2trt.report.inputs import bound_inputs, shape_range
from onnx2trt.report.result import WORK_SHARES, mega

NAMES = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX", None: "an unknown library"}


def rows(result: dict) -> Iterator[tuple[str, str, str]]:
    """(name, value, style) of everything that is known of an engine.

    Args:
        result: with status inspected.
    """
    engine, model, environment = result["engine"], result["model"], result["environment"]
    loaded = engine["loaded"]
    yield "status", "it loads here" if loaded else f"not loaded: {engine['not_loaded_because']}", "green" if loaded else "yellow"
    yield "engine", f"{engine['path']}  {mega(engine['bytes'])}", ""
    yield "sha256", engine["sha256"], ""
    yield "made with", _made_with(engine), ""
    yield "here", _here(environment), ""
    yield "known from", ", ".join(engine["sources"]) or "nothing but its name", ""
    yield from _inputs_and_outputs(result)
    if engine.get("device_memory_bytes") is not None:
        yield "memory", f"{mega(engine['device_memory_bytes'])} of the GPU for each execution context, weights apart", ""
    if result["preprocessing"]:
        yield "images", _images(result["preprocessing"]), ""
    yield from _precision(result)
    if model:
        yield "model", f"{model['path']}  {mega(model['bytes'])}, opset {model['opset']}, sha256 {model['sha256']}", ""
    for row in result["accuracy"]:
        text = f"{compared(row)}: drop {row['drop_percent']:.2f} % ({row['metric']}), "
        yield "accuracy", text + f"SQNR {row['sqnr_db']:.1f} dB, {row['executed_on']}, when it was built", ""
    if result["latency"]:
        latency = result["latency"]
        yield "latency", f"p50 {latency['p50_ms']:.3f} ms, p99 {latency['p99_ms']:.3f} ms, when it was built", ""


def compared(row: dict) -> str:
    """Which output, on how many samples of what."""
    steps, samples = row.get("steps"), row["samples"]
    number = f"{steps} steps in a row" if steps else f"{samples} sample{'s' * (samples != 1)}"
    return f"{row['output']} on {'made-up inputs' if row['inputs'] == 'synthetic' else row['inputs']} ({number})"


def _made_with(engine: dict) -> str:
    made = engine["made_with"]
    text = f"{NAMES[made['backend']]} {made['tensorrt'] or ''}".strip()
    if not made["gpu"]:
        return text + ", for a GPU that the file does not name"
    return f"{text}, {made['gpu']}" if made["backend"] == "tensorrt-rtx" else f"{text}, for {made['gpu']}"


def _here(environment: dict) -> str:
    library = f"{NAMES[environment['backend']]} {environment['tensorrt']}" if environment["backend"] else "its library is not installed"
    return f"{library}, {environment['gpu'] or 'no GPU'}"


def _inputs_and_outputs(result: dict) -> Iterator[tuple[str, str, str]]:
    """Inputs and outputs, of the engine where it or its side file lists them, else of the model that it was built from."""
    engine, model, plan = result["engine"], result["model"], result["plan"]
    tensors = engine.get("tensors")
    if tensors is None and not model:
        yield "inputs", "only the engine itself or its JSON file knows them", ""
        return
    shapes = engine.get("profile_shapes") or ([plan["profiles"]] if plan else [])
    if tensors is None:
        types = {name: {"fp16": "float16", "fp32": "float32"}[kind] for name, kind in (plan["io_types"] if plan else ())}
        tensors = [{**spec, "input": role == "inputs", "format": None} for role in ("inputs", "outputs") for spec in model[role]]
        tensors = [{**tensor, "dtype": types.get(tensor["name"], tensor["dtype"])} for tensor in tensors]
    yield from (("constant", text, "") for text in bound_inputs(model))
    for tensor in tensors:
        shape = "?" if tensor["shape"] is None else "x".join("?" if dim in (-1, None) else str(dim) for dim in tensor["shape"]) or "scalar"
        text = f"{tensor['name']}  {tensor['dtype']} {shape}" + (f"  {tensor['format']}" if tensor["format"] else "")
        yield ("input" if tensor["input"] else "output"), text, ""
    for number, profile in enumerate(shapes):
        name = "profile" if len(shapes) == 1 else f"profile {number}"
        yield name, ", ".join(_shape_range(shape) for shape in profile), ""


def _shape_range(shape: dict) -> str:
    return f"{shape['name']} {shape_range(shape)}"


def _images(pre: dict) -> str:
    text = f"{pre['size'][0]}x{pre['size'][1]} (width x height), {pre['resize']}, {pre['color']}, {pre['layout']}, pixels 0..{pre['range']}"
    if any(pre["mean"]) or any(std != 1 for std in pre["std"]):
        text += f", mean {pre['mean']}, std {pre['std']}"
    return text


def mac_share(precision: dict) -> str:
    """How much of the work is done in 8 bits, or where there is none in FP16 or BF16, as far as it is known; to go behind the precision."""
    for name in WORK_SHARES:
        share = precision.get(f"{name}_mac_share")
        if share is not None:
            return f", {name.upper()} share of the multiply-accumulates {share:.1%}"
    return ""


def _precision(result: dict) -> Iterator[tuple[str, str, str]]:
    precision, layers = result["precision"], result["engine"].get("layers")
    if precision and precision["delivered"]:
        yield "precision", precision["delivered"] + mac_share(precision), ""
    if precision and precision["layers"]:
        counts = ", ".join(f"{count} {name.upper()}" for name, count in precision["layers"].items() if count)
        yield "layers", f"{counts} (counted in the {precision['layers_source']})", ""
    elif layers is not None:
        yield "layers", f"{layers}, of unknown precision", ""
