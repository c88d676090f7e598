"""Values that the INT8 stages hand to each other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from onnx2trt.conversion.exact import Exact, Simulated
from onnx2trt.data.holdout import Split
from onnx2trt.model.graph import Graph
from onnx2trt.quant.calibration_cache import Cache, Identity
from onnx2trt.quant.equalize.equalization import Equalization
from onnx2trt.quant.fit_file import Found
from onnx2trt.report.result import Calibration
from onnx2trt.rewrite.fit import Fit
from onnx2trt.rewrite.placement import tensors
from onnx2trt.rewrite.prepare import without_scale
from onnx2trt.rewrite.qdq import Layer


@dataclass(frozen=True)
class Known:
    """What need not be found again."""

    cache: Cache | None = None  # None: calibrate
    found: Found | None = None  # None: nothing beyond the scales
    equalization: Equalization | None = None
    chosen: bool = True  # found.fp16_fallback is what has to stay FP16; otherwise it shall be measured again
    by_rule: bool = False  # it was found without the layers that a rule leaves in FP16 (rewrite.prepare.seldom_faster)
    attention: bool = True  # it was found with attention among the layers, where there is any


@dataclass(frozen=True)
class Calibrated:
    """Scales by one method."""

    method: str
    scales: dict[str, float]  # from all samples
    silent: tuple[str, ...] = ()  # tensors that were always zero
    trials: tuple[dict[str, float], ...] = ()  # without the samples that each trial of the split is measured on
    about: Calibration | None = None  # for the result
    exact: Exact | None = None  # what the graph gave on the way


@dataclass(frozen=True)
class WrittenCache:
    """A cache that this run has written."""

    path: str
    text: str
    identity: Identity


@dataclass(frozen=True)
class Fitted:
    """A graph whose layers are ready to become INT8."""

    equalization: Equalization
    graph: Graph  # FP32, computes what the model computes; equalized for all of `layers`
    layers: tuple[Layer, ...]
    fit: Fit  # from all samples
    trials: tuple[Fit, ...]  # without the samples that each is measured on; empty where other data is measured on
    split: Split | None  # None: there is no data to measure on
    method: str  # of calibration
    about: Calibration  # for the result
    fp16_fallback: dict[str, str] | None = None  # layers that INT8 does not suit, where an earlier run has found them; node -> reason
    held_out: dict[str, float] = field(default_factory=dict)  # output -> drop in % on samples that each trial was made without, as chosen
    by_tensorrt: bool = False  # TensorRT will calibrate by itself: these scales are only to judge the layers by
    written: WrittenCache | None = None  # the cache that this run has written
    others: dict[str, float] = field(default_factory=dict)  # scales of the tensors that nothing reads as INT8
    exact: Exact | None = None  # what the graph gives in FP32, as far as that is known
    simulated: Simulated = field(default_factory=Simulated)  # the same of what was made of it

    @property
    def equalized(self) -> bool:
        return not self.equalization.empty

    def graph_for(self, layers: Iterable[Layer]) -> Graph:
        """The graph, equalized for these INT8 layers; scales and weights that were fitted fit it, too."""
        usable, more = self.fit.placed(self.graph, layers)
        return self.equalization.graph(tensors(usable, more), usable)

    def without_int8(self, nodes: Iterable[str]) -> Fitted:
        """The same where these nodes read nothing as INT8."""
        names = frozenset(nodes)
        layers = tuple(layer for layer in self.layers if names.isdisjoint(layer.nodes))
        fit, *trials = (replace(fit, without_int8=fit.without_int8 | names) for fit in (self.fit, *self.trials))
        return replace(self, layers=layers, fit=fit, trials=tuple(trials))

    def without_silent(self) -> tuple[Fitted, dict[str, str]]:
        """(the same without the layers that have no scale, so that their work does not count as INT8; node -> reason)"""
        if self.by_tensorrt:
            return self, {}
        silent = {layer.node: without_scale(layer) for layer in self.layers if not self.fit.has_scales(layer)}
        return replace(self, layers=tuple(layer for layer in self.layers if layer.node not in silent)), silent

    def found(self, kept_fp32: dict[str, str], fp16_fallback: dict[str, str]) -> Found:
        """All of it in the form in which it is kept for other runs."""
        shifts, factors = self.equalization.vectors()
        others = self.others if self.equalized else {}
        return Found(self.method, self.fit, shifts, factors, kept_fp32, fp16_fallback, self.held_out, others)
