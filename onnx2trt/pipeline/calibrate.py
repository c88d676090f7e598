"""Only the calibration cache, with what goes with it, for builds elsewhere: no library is needed, and no GPU."""

from __future__ import annotations

from dataclasses import replace

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.conversion.int8 import Known
from onnx2trt.conversion.run import Run
from onnx2trt.pipeline.int8 import Int8Choice, graph_to_quantize
from onnx2trt.plan.capabilities import NO_LIBRARY
from onnx2trt.plan.plan import make_plan
from onnx2trt.quant.calibration_cache import fit_file, parse
from onnx2trt.report.result import Result
from onnx2trt.stages import asked, preflight
from onnx2trt.stages.observe import observed


def calibrate(args, result: Result, run: Run) -> None:
    """The pipeline of the door 'calibrate'. A cache that is there already is replaced.

    Raises:
        ConversionError: MODEL, CALIBRATION, and from any stage. That the limit of the accuracy drop cannot be met is no failure here: the
            scales are there, and whoever builds with them will be told.
    """
    job = preflight.preflight(None, make_plan(args, NO_LIBRARY), run)
    result.take(**preflight.describe(job))
    if job.info.quantized:
        raise ConversionError(
            f"{job.info.path} carries Q/DQ already: there is nothing to calibrate",
            hint="It is built with its own scales: python onnx2trt.py --precision int8 needs no cache for it.",
            code=ExitCode.MODEL,
        )
    asked.say_what_it_carries(job, run)
    job = asked.without_half(job)
    job = observed(job, run)
    choice = Int8Choice(job, graph_to_quantize(job, run), Known(), run)
    fit = fit_file(job.plan.calibration.cache)
    try:
        choice.choose()
    except ConversionError as error:
        if error.code is not ExitCode.VALIDATION:
            raise
        run.console.warn(f"{fit} is not written, only the scales are: {error.message}")
        fit = None
    cache = choice.written
    scales = parse(cache.text, cache.path)[2]
    result.take(calibration=replace(choice.about, scales=len(scales), fit_file=fit), status="calibrated", exit_code=0)
