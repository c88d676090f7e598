"""What a run was given, as fields of its result: model, environment, plan."""

from __future__ import annotations

from dataclasses import asdict

from onnx2trt.base.model_info import ModelInfo, Profile
from onnx2trt.plan.capabilities import Capabilities
from onnx2trt.plan.plan import Plan
from onnx2trt.plan.precision_arguments import EIGHT_BIT
from onnx2trt.report.result import Environment, ModelFile


def describe_model(info: ModelInfo) -> ModelFile:
    def specs(values) -> list[dict]:
        return [{"name": s.name, "dtype": s.dtype, "shape": None if s.shape is None else list(s.shape)} for s in values]

    about = (info.path, info.sha256, info.bytes, info.opset, info.nodes, info.quantized, info.half)
    bound = [{**spec, "value": entry.text} for spec, entry in zip(specs(entry.spec for entry in info.bound), info.bound)]
    return ModelFile(*about, specs(info.inputs), specs(info.outputs), bound or None)


def describe_environment(caps: Capabilities) -> Environment:
    return Environment(caps.backend, caps.version, f"{caps.gpu} ({caps.gpu_arch})" if caps.gpu else None, caps.driver or None)


def describe_plan(plan: Plan, profiles: tuple[Profile, ...]) -> dict:
    return {
        "precision": plan.precision,
        "route": plan.route.value if plan.backend else None,
        "backend": plan.backend,
        "gpu_archs": list(plan.gpu_archs),
        "workspace_bytes": plan.workspace_bytes,
        "tactic_sources": None if plan.tactic_sources is None else list(plan.tactic_sources),
        "tf32": plan.tf32,
        "keep_layers": plan.keep_layers,
        "layer_precisions": [list(pair) for pair in plan.layer_precisions],
        "io_types": [list(pair) for pair in plan.io_types],
        "quantization": None if plan.precision not in EIGHT_BIT else "calibrator" if plan.calibrator else "qdq",
        "build": {**asdict(plan.build), "plugins": list(plan.build.plugins)},
        "profiles": [profile.to_dict() for profile in profiles],
        "max_accuracy_drop": plan.validation.max_drop_percent,
        "metric": ",".join(f"{output}:{metric}" if output else metric for output, metric in plan.validation.metric) or "auto",
        "min_int8_share": plan.min_int8_share,
        "flags": [{"flag": flag, "effect": cell.effect.value, "note": cell.note} for flag, cell in plan.effects],
    }
