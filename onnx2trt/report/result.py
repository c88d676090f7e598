"""The result of a run as one JSON object (schema_version 1). Standard library only: the supervising parent writes it, too."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the parent has no use for them, and they take their time to load
    from onnx2trt.base.errors import ConversionError
    from onnx2trt.base.model_info import ModelInfo, Profile
    from onnx2trt.plan.plan import Capabilities, Plan

SCHEMA_VERSION = 1


def new_result() -> dict:
    """A result in which nothing is known yet; every key of the schema is there."""
    return {
        "schema_version": SCHEMA_VERSION,
        "status": "failed",
        "exit_code": 1,
        "error": None,
        "model": None,
        "environment": {
            "backend": None,
            "tensorrt": None,
            "gpu": None,
            "driver": None,
            "python": ".".join(map(str, sys.version_info[:3])),
        },
        "plan": None,
        "preprocessing": None,
        "precision": None,
        "calibration": None,
        "accuracy": [],
        "latency": None,
        "timing_cache": None,
        "variants": [],
        "engine": None,
        "skipped": False,
        "key": None,
        "saved_onnx": None,
        "timings_s": {},
        "warnings": [],
    }


def fail(result: dict, error: ConversionError) -> dict:
    """The same result, ended by an error."""
    return {
        **result,
        "status": "failed",
        "exit_code": int(error.code),
        "error": {"message": error.message, "hint": error.hint},
    }


def describe_model(info: ModelInfo) -> dict:
    def specs(values) -> list[dict]:
        return [{"name": s.name, "dtype": s.dtype, "shape": None if s.shape is None else list(s.shape)} for s in values]

    return {
        "path": info.path,
        "sha256": info.sha256,
        "bytes": info.bytes,
        "opset": info.opset,
        "nodes": info.nodes,
        "quantized": info.quantized,
        "half": info.half,
        "inputs": specs(info.inputs),
        "outputs": specs(info.outputs),
    }


def describe_environment(caps: Capabilities) -> dict:
    return {
        "backend": caps.backend,
        "tensorrt": caps.version,
        "gpu": f"{caps.gpu} ({caps.gpu_arch})" if caps.gpu else None,
        "driver": caps.driver or None,
        "python": ".".join(map(str, sys.version_info[:3])),
    }


def describe_plan(plan: Plan, profiles: tuple[Profile, ...]) -> dict:
    return {
        "precision": plan.precision,
        "route": plan.route.value,
        "backend": plan.backend,
        "gpu_archs": list(plan.gpu_archs),
        "workspace_bytes": plan.workspace_bytes,
        "tactic_sources": None if plan.tactic_sources is None else list(plan.tactic_sources),
        "tf32": plan.tf32,
        "keep_layers": plan.keep_layers,
        "layer_precisions": [list(pair) for pair in plan.layer_precisions],
        "io_types": [list(pair) for pair in plan.io_types],
        "quantization": None if plan.precision != "int8" else "calibrator" if plan.calibrator else "qdq",
        "build": {**asdict(plan.build), "plugins": list(plan.build.plugins)},
        "profiles": [asdict(profile) for profile in profiles],
        "max_accuracy_drop": plan.validation.max_drop_percent,
        "metric": plan.validation.metric,
        "min_int8_share": plan.min_int8_share,
        "flags": [{"flag": flag, "effect": cell.effect.value, "note": cell.note} for flag, cell in plan.effects],
    }


def to_json(result: dict) -> str:
    """Indented JSON text; file names that are not UTF-8 are escaped."""
    return json.dumps(result, indent=2, allow_nan=False) + "\n"


def mega(count: int) -> str:
    """A number of bytes for people."""
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
