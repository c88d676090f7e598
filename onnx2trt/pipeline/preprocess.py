"""What the network really gets of an image: no library is needed, and no GPU."""

from __future__ import annotations

from onnx2trt.conversion.run import Run
from onnx2trt.plan.capabilities import NO_LIBRARY
from onnx2trt.plan.plan import make_plan
from onnx2trt.report.result import Result
from onnx2trt.stages import preflight
from onnx2trt.stages.preprocess import show


def preprocess(args, result: Result, run: Run) -> None:
    """The pipeline of the door 'preprocess'.

    Raises:
        ConversionError: MODEL, USAGE where the model takes no images, VALIDATION where the file cannot be used, OUTPUT.
    """
    job = preflight.preflight(None, make_plan(args, NO_LIBRARY), run)
    about = preflight.describe(job)
    result.take(model=about["model"], preprocessing=about["preprocessing"])
    result.take(preprocessed=show(job, run), status="preprocessed", exit_code=0)
