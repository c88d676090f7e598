"""What the first stages found and decided, handed to the later ones."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import onnx

from onnx2trt.base.model_info import ModelInfo, Profile
from onnx2trt.compare.outputs import Comparison
from onnx2trt.compare.states import fed_back
from onnx2trt.data.datasets import Data
from onnx2trt.model.graph import Graph
from onnx2trt.model.half_types import BY_NAME, FP16, HalfType
from onnx2trt.model.session import Session
from onnx2trt.plan.plan import Plan, Route
from onnx2trt.rewrite.known_sizes import with_sizes
from onnx2trt.rewrite.number_formats import FORMATS, INT8, NumberFormat
from onnx2trt.rewrite.qdq import QUANTIZE_OPSET
from onnx2trt.trt.library import Library

ENGINE_TYPES = {"fp32": "float32", "fp16": "float16"}


@dataclass(frozen=True)
class Job:
    """One conversion after its preflight."""

    library: Library | None  # None where nothing is built or loaded
    plan: Plan
    model: onnx.ModelProto  # without the data of its large initializers, which are in `weights`
    info: ModelInfo
    profiles: tuple[Profile, ...]
    data: Data
    folded: tuple[str, ...] = ()  # nodes in whose place others stand: a branch, the tensors of a list
    inputs: dict = field(default_factory=dict)  # what the result depends on, by stages.unchanged
    observed: dict[str, tuple[int, ...]] = field(default_factory=dict)  # tensor -> shape at the opt shapes, where onnx cannot infer it
    weights: dict[str, np.ndarray] = field(default_factory=dict)  # initializer of `model` -> its data
    sizes: dict[str, np.ndarray] = field(default_factory=dict)  # tensor of the model that is made of fixed sizes -> its value

    @property
    def rewritten(self) -> bool:
        """`model` is not as the file has it."""
        return bool(self.folded or self.info.bound or self.info.adopted)

    @property
    def strong(self) -> bool:
        """The ONNX itself carries the precision."""
        return self.plan.route is Route.STRONG

    @property
    def usual_profile(self) -> str | None:
        """The name of the first of several optimization profiles, whose opt shapes are those of `profiles`."""
        return self.plan.shapes.profiles[0][0] if self.plan.shapes.profiles else None

    @property
    def quantizes(self) -> bool:
        """INT8 or FP8 was asked for, and the model does not carry Q/DQ itself."""
        return self.plan.precision in FORMATS and not self.info.quantized

    @property
    def scales_by_range(self) -> bool:
        """TensorRT's calibrator, or a cache, gets a scale of every tensor: of what no layer reads in 8 bits, by its largest value."""
        return self.quantizes and (self.plan.calibrator or self.plan.calibration.cache is not None)

    @property
    def number_format(self) -> NumberFormat:
        """Of the layers in 8 bits; INT8 where none were asked for."""
        return FORMATS.get(self.plan.precision, INT8)

    @property
    def half(self) -> HalfType:
        """What layers are lowered to that are neither INT8 nor kept in FP32."""
        return BY_NAME.get(self.plan.precision, FP16)

    @property
    def one_weight_scale(self) -> bool:
        """INT8 convolutions are written as TensorRT-RTX moves least for (rewrite.one_scale); half scales are part of that form."""
        return self.strong and self.plan.backend == "tensorrt-rtx" and self.plan.fp16_scales

    @property
    def fp16_io(self) -> frozenset[str]:
        """Inputs and outputs that --io-types makes FP16."""
        return frozenset(name for name, precision in self.plan.io_types if precision == "fp16")

    @property
    def engine_io(self) -> ModelInfo:
        """The model with inputs and outputs as the engine has them (--io-types)."""
        wanted = {name: ENGINE_TYPES[precision] for name, precision in self.plan.io_types}

        def typed(specs):
            return tuple(replace(spec, dtype=wanted.get(spec.name, spec.dtype)) for spec in specs)

        return replace(self.info, inputs=typed(self.info.inputs), outputs=typed(self.info.outputs))

    def graph(self) -> Graph:
        """The model in its working form, with the shapes that were observed, and fixed sizes as the constants that they are."""
        return with_sizes(self.network(), self.sizes)

    def network(self) -> Graph:
        """The same with all that it computes of sizes, as an export has it."""
        graph = Graph.from_model(self.model, self.profiles, self.weights)
        graph.observed = self.observed
        return graph

    def as_given(self) -> Graph:
        """The same, its declarations not fitted to the profiles."""
        return Graph.from_model(self.model, (), self.weights)

    def reference(self) -> Session:
        """The model ready to run on the CPU, which everything is held against.

        Raises:
            ConversionError: MODEL; a CannotLoad, where ONNX Runtime lacks something.
        """
        return Session.of_model(self.info, self.as_given)

    def fp16_scales(self, graph: Graph) -> bool:
        """Whether the Q/DQ scales of this graph are stored in FP16."""
        return self.plan.fp16_scales and self.half is FP16 and graph.opset >= QUANTIZE_OPSET

    def comparison(self, executed_on: str = "simulated") -> Comparison:
        """How outputs are compared, by every stage that measures accuracy; of one data set, which it learns about."""
        return Comparison(
            outputs=tuple(spec.name for spec in self.info.outputs),
            metric=self.plan.validation.metric,
            image=self.data.image_size,
            channels_last=self.data.channels_last,
            executed_on=executed_on,
            states=fed_back(self.info.inputs, self.info.outputs),
        )
