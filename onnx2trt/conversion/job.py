"""What the first stages found and decided, handed to the later ones."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import onnx

from onnx2trt.base.model_info import ModelInfo, Profile
from onnx2trt.data.datasets import Data
from onnx2trt.plan.plan import Plan
from onnx2trt.trt.library import Library

ENGINE_TYPES = {"fp32": "float32", "fp16": "float16"}


@dataclass(frozen=True)
class Job:
    """One conversion after its preflight."""

    library: Library
    plan: Plan
    model: onnx.ModelProto
    info: ModelInfo
    profiles: tuple[Profile, ...]
    data: Data
    inputs: dict = field(default_factory=dict)  # what the result depends on, by stages.unchanged

    @property
    def engine_io(self) -> ModelInfo:
        """The model with inputs and outputs as the engine has them (--io-types)."""
        wanted = {name: ENGINE_TYPES[precision] for name, precision in self.plan.io_types}

        def typed(specs):
            return tuple(replace(spec, dtype=wanted.get(spec.name, spec.dtype)) for spec in specs)

        return replace(self.info, inputs=typed(self.info.inputs), outputs=typed(self.info.outputs))
