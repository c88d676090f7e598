"""The layers made ready for INT8: scales, and equalized channels and fitted weights where they pay."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from onnx2trt.conversion.int8 import Calibrated, Fitted, Known, WrittenCache
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.data.holdout import Split, choose_split
from onnx2trt.model.graph import Graph
from onnx2trt.plan.efforts import EFFORTS, Effort
from onnx2trt.quant import calibration_cache
from onnx2trt.quant.candidates import worse_than
from onnx2trt.quant.equalize.equalization import Equalization
from onnx2trt.rewrite.number_formats import INT8
from onnx2trt.rewrite.placement import readings, tensors
from onnx2trt.rewrite.prepare import too_little
from onnx2trt.rewrite.qdq import Layer, quantizable_layers
from onnx2trt.rewrite.shares import mac_share
from onnx2trt.stages.int8 import cache as caches
from onnx2trt.stages.int8.calibrate import Wanted, calibrate
from onnx2trt.stages.int8.equalize import equalize
from onnx2trt.stages.int8.fit import fit
from onnx2trt.stages.int8.held_out import signal_to_noise

PART_OF_SAMPLES = 32
NEITHER = "without equalizing and fitting"  # the plain way, in words


def make_ready(job: Job, graph: Graph, known: Known, layers: tuple[Layer, ...], ranged: dict[str, float], run: Run) -> Fitted:
    """What an earlier run found, else scales from the cache or by calibration; channels are equalized and weights fitted to the calibration
    data, unless TensorRT will calibrate by itself.

    Args:
        graph: FP32, folded.
        known: what need not be found again.
        layers: that may become INT8.
        ranged: scales by the ranges of all tensors, for those that calibration leaves out.

    Raises:
        ConversionError: CALIBRATION.
    """
    split, names = choose_split(job.data), tensors(layers, readings(graph, layers))
    if split is not None and split.blind:
        run.console.warn(
            f"{split.fitted.origin} holds one sample only: {job.number_format.label} is measured on what it was fitted to, which "
            "tells nothing about other samples; give more, or --validate"
        )
    if known.found is not None:
        found, equalized = known.found, known.equalization.graph(names, layers)
        about, fallback = caches.describe(job, found.method), found.fp16_fallback if known.chosen else None
        others = found.others or (known.cache.scales if known.cache else ranged)
        held_out = found.held_out if known.chosen else {}
        return Fitted(known.equalization, equalized, layers, found.fit, (), split, found.method, about, fallback, held_out, others=others)
    by_tensorrt = job.plan.calibrator and job.plan.native_method is not None and known.cache is None
    ways = Ways(job, graph, layers, names, known, ranged, run)
    written = ways.write_cache() if known.cache is None and not by_tensorrt else None  # TensorRT will write its own
    made = ways.best(EFFORTS["fast"] if by_tensorrt else job.plan.calibration.effort)
    return replace(made, by_tensorrt=by_tensorrt, written=written)


def refuse_too_little(job: Job, graph: Graph, layers: tuple[Layer, ...]) -> None:
    """Before anything is measured: not even all layers would do the share of the work that is asked for.

    Raises:
        ConversionError: MODEL.
    """
    number_format, least = job.number_format, job.plan.min_int8_share
    if number_format is INT8:  # the share of what has weights may be small where attention is large, and grow with shapes
        return
    share = mac_share(graph, job.profiles, {node for layer in layers for node in layer.nodes})
    if share < least:
        raise too_little(share, least, number_format)


@dataclass
class Ways:
    """Ways to INT8, from the plain one to that with equalized channels and fitted weights."""

    job: Job
    graph: Graph
    layers: tuple[Layer, ...]
    names: tuple[str, ...]  # the tensors that need a scale
    known: Known
    ranged: dict[str, float]
    run: Run
    method: str | None = None  # of calibration, that suits the equalized graph

    @cached_property
    def split(self) -> Split | None:
        return choose_split(self.job.data)

    def best(self, effort: Effort) -> Fitted:
        """The way that the effort asks for, or a simpler one where that may make the outputs worse."""
        no_change, may_fit = Equalization(self.graph), effort.fit and self.split is not None and self.split.may_fit
        ways = [(no_change, True)] if may_fit else []
        if effort.equalize and self.known.cache is None and self.job.number_format.equalize:
            with self.run.stage("equalize", "equalizing channels"):
                maxima = {name: scale * self.job.number_format.largest for name, scale in self.ranged.items()}
                equalization = equalize(self.job, self.graph, self.names, maxima, self.run)
            if not equalization.empty:
                ways.insert(0, (equalization, may_fit))
        for equalization, with_weights in ways:
            made = self._made(equalization, with_weights)
            harm = worse_than(self._plain_db, signal_to_noise(self.job, made, self.run, _way(equalization, with_weights)))
            if not harm:
                return made
            what = "weights are not fitted" if equalization.empty else "channels are not equalized"
            self.run.console.info(f"{self.job.number_format.label} is better off where {what}: {harm}")
        return self.plain

    @cached_property
    def plain(self) -> Fitted:
        """With neither."""
        return self._made(Equalization(self.graph), False)

    @cached_property
    def _plain_db(self) -> dict[str, list[float]]:
        """A part of the data is enough to compare with, and the calibration method that suits the equalized graph, where nothing else asks
        for scales of the graph as it is."""
        if self.known.cache or self.job.plan.calibration.cache or "calibrated" in self.__dict__:
            return signal_to_noise(self.job, self.plain, self.run, NEITHER)
        wanted = Wanted(self.names, self.layers, samples=PART_OF_SAMPLES, method=self.method)
        found = calibrate(self.job, self.graph, wanted, self.run, f" {NEITHER}, to compare with")
        return signal_to_noise(self.job, self._fitted(Equalization(self.graph), found, False), self.run, NEITHER)

    def _made(self, equalization: Equalization, with_weights: bool) -> Fitted:
        if equalization.empty:
            return self._fitted(equalization, self.calibrated, with_weights)
        equalized, wanted = equalization.graph(self.names, self.layers), Wanted(self.names, self.layers)
        found = calibrate(self.job, equalized, wanted, self.run, " with equalized channels")
        self.method = found.method
        return self._fitted(equalization, found, with_weights)

    def _fitted(self, equalization: Equalization, found: Calibrated, with_weights: bool) -> Fitted:
        equalized = equalization.graph(self.names, self.layers)
        *trials, fitted = fit(self.job, equalized, self.layers, found, with_weights, self.run)
        others = self.known.cache.scales if self.known.cache else self.ranged
        made = Fitted(equalization, equalized, self.layers, fitted, tuple(trials), self.split, found.method, found.about, others=others)
        return replace(made, exact=found.exact)

    @cached_property
    def calibrated(self) -> Calibrated:
        """Scales of the graph as it is: from the cache, or by calibration; then of all tensors that a layer could read, if a cache will be
        written: other programs may want them."""
        job, graph, cache = self.job, self.graph, self.known.cache
        if cache is not None:
            scales = caches.scales_of(cache, tuple(layer.activation for layer in self.layers if layer.plain), self.names)
            caches.check_plausible(job, cache, self.names, self.ranged, self.run)
            trials = (scales,) * (self.split.trials if self.split else 0)
            return Calibrated(cache.algorithm, scales, trials=trials, about=caches.describe(job, caches.method_of(cache)))
        all_layers = quantizable_layers(graph, job.number_format)
        more = tensors(all_layers, readings(graph, all_layers)) if job.plan.calibration.cache else ()
        return calibrate(job, graph, Wanted(tuple(dict.fromkeys([*more, *self.names])), self.layers), self.run)

    def write_cache(self) -> WrittenCache | None:
        """The scales of the graph as it is, for other runs and programs; nothing without --calibration-cache."""
        if not self.job.plan.calibration.cache:
            return None
        found = self.calibrated
        heard = {name: scale for name, scale in self.ranged.items() if name not in found.silent}
        text = calibration_cache.to_text({**heard, **found.scales}, found.method, number_format=self.job.number_format.name)
        return caches.write_cache(self.job, text, found.method, self.run, found.silent)


def _way(equalization: Equalization, with_weights: bool) -> str:
    """In words."""
    equalized, fitted = "equalized channels" * (not equalization.empty), "fitted weights" * with_weights
    return f"with {' and '.join(filter(None, (equalized, fitted)))}" if equalized or fitted else NEITHER
