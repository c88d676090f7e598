"""Results made up for what shows them: the JSON object of a conversion that went well, and of one that failed."""

from __future__ import annotations

from onnx2trt.base.errors import ConversionError
from onnx2trt.report.result import Result

SHA = "0" * 64


def row(**changes) -> dict:
    """One row of the result's accuracy."""
    values = {"executed_on": "simulated", "inputs": "images", "output": "y", "metric": "argmax", "drop_percent": 0.25}
    values |= {"standard_error": 0.1, "sqnr_db": 31.5, "max_abs_error": 0.125, "nonfinite": 0, "samples": 3}
    values |= {"worst": "b.jpg", "worst_drop_percent": 0.5, "constant": False, "kind": "class map", "interval_percent": [0.1, 0.4]}
    return {**values, **changes}


def result(**changes) -> dict:
    """The result of an INT8 conversion that went well."""
    tensor = {"name": "x", "dtype": "float32", "shape": ["N", 3, 24, 32]}
    model = {"path": "net.onnx", "sha256": SHA, "bytes": 2_000_000, "opset": 17, "nodes": 12, "quantized": False, "half": False}
    plan = {"precision": "int8", "route": "strong typing", "backend": "tensorrt-rtx", "gpu_archs": ["8.9"], "workspace_bytes": 2**32}
    plan |= {"quantization": "qdq", "profiles": [{"name": "x", "min": [1, 3, 24, 32], "opt": [1, 3, 24, 32], "max": [4, 3, 24, 32]}]}
    plan |= {"max_accuracy_drop": 1.0, "layer_precisions": [["head*", "fp32"]]}
    plan["flags"] = [{"flag": "--tf32", "effect": "no effect", "note": "no note"}]
    reason = "INT8 here alone changes the outputs by "
    kept = [{"name": f"layer{i}", "precision": "fp16", "reason": f"{reason}{i}.00%"} for i in range(3)]
    tried = [{"int8_mac_share": 1.0, "drop_percent": 3.0, "standard_error": 0.5, "passed": False}]
    tried.append({"int8_mac_share": 0.8, "drop_percent": 0.2, "standard_error": 0.1, "passed": True})
    full = {
        **Result().to_dict(),
        "status": "simulated",
        "exit_code": 0,
        "model": {**model, "inputs": [tensor], "outputs": [{**tensor, "name": "y"}]},
        "environment": {"backend": "tensorrt-rtx", "tensorrt": "1.7.1", "gpu": None, "driver": None, "python": "3.11.7"},
        "plan": plan,
        "preprocessing": {"size": [32, 24], "layout": "NCHW", "channels": 3, "dtype": "float32", "color": "rgb", "resize": "letterbox"}
        | {"interpolation": "linear", "range": 255, "mean": [1.0, 2.0, 3.0], "std": [4.0, 5.0, 6.0]},
        "precision": {"requested": "int8", "delivered": "int8", "int8_mac_share": 0.8, "layers": {"int8": 6, "fp16": 3, "fp32": 1}}
        | {"layers_source": "network", "fallback": kept, "ignored_constraints": [{"name": "odd", "asked": "fp32", "delivered": "int8"}]},
        "calibration": {"method": "mse", "samples_used": 20, "samples_skipped": 1, "cache": None, "seconds": 3.0, "peak_memory_mb": 100.0}
        | {"tried": tried},
        "accuracy": [row()],
        "engine": {"path": "net.engine", "bytes": 1_000_000, "sha256": SHA, "gpu_archs": ["8.9"]},
        "timings_s": {"probe": 0.5, "build": 150.0, "total": 150.5},
        "warnings": ["something odd"],
    }
    return {**full, **changes}


def failed(found: dict, error: ConversionError) -> dict:
    """The same, of a run that has ended with an error."""
    return {**found, "status": "failed", "exit_code": int(error.code), "error": {"message": error.message, "hint": error.hint}}
