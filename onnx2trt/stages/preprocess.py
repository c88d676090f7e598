"""Stage 'preprocess': the arrays that the network gets of a file, in numbers, and as files to look at."""

from __future__ import annotations

import io

import numpy as np

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.opencv import opencv
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.data.feeds import warn_of_dark
from onnx2trt.data.pixels import Preprocessing, displayed, scaled_size
from onnx2trt.data.reader import Arrays, decode, read_image
from onnx2trt.plan.door_arguments import image_beside
from onnx2trt.report.result import Preprocessed

CHANNELS = {  # colour order -> the channels of an input; a fourth one is alpha
    "rgb": ("red", "green", "blue", "alpha"),
    "bgr": ("blue", "green", "red", "alpha"),
    "gray": ("gray",),
}


def show(job: Job, run: Run) -> Preprocessed:
    """Describe the first inference of the data that was given, and write it where --output asks for it.

    Raises:
        ConversionError: USAGE where the arrays do not go into the file that --output names, OUTPUT.
    """
    data, pre = job.data.test, job.data.reader.preprocessing
    with run.stage("preprocess", f"preprocessing {data.called}"):
        batches = job.data.reader.batches(data)
        arrays = next(batches).arrays
        inferences = 1 + sum(1 for _ in batches)
        warn_of_dark(job.data.reader, run.console)
        rows = [_row(name, array, pre, run) for name, array in arrays.items()]
        image = _fitted(data.origin, pre) if pre else None
        return Preprocessed(data.origin, inferences, rows, image, _write(job, arrays, run))


def _row(name: str, array: np.ndarray, pre: Preprocessing | None, run: Run) -> dict:
    bad = int(array.size - np.isfinite(array).sum())
    if bad:
        run.console.warn(f"{bad} of {array.size} values of {name!r} are infinite: {array.dtype} cannot hold them; check --mean and --std")
    channels = [("all", array)]
    if pre:
        axis = 1 if pre.layout == "NCHW" else 3
        channels = [(channel, array.take(index, axis)) for index, channel in enumerate(CHANNELS[pre.color][: pre.channels])]
    rows = [{"channel": channel, **_range(values)} for channel, values in channels]
    layout = pre.layout if pre else None
    return {"name": name, "dtype": array.dtype.name, "shape": list(array.shape), "layout": layout, "channels": rows}


def _range(values: np.ndarray) -> dict:
    finite = values[np.isfinite(values)].astype(np.float64)
    if not finite.size:
        return dict.fromkeys(("min", "mean", "max"))
    return {"min": float(finite.min()), "mean": float(finite.mean()), "max": float(finite.max())}


def _fitted(path: str, pre: Preprocessing) -> dict:
    """How an image was brought to the size of the input."""
    height, width = decode(read_image(path), pre.channels).shape[:2]
    scaled = scaled_size(height, width, pre)
    borders = {}
    for sides, own, wanted in ((("left", "right"), scaled[0], pre.width), (("top", "bottom"), scaled[1], pre.height)):
        first = (wanted - own) // 2 if wanted >= own else -((own - wanted) // 2)
        borders.update(zip(sides, (first, wanted - own - first)))
    return {"size": [width, height], "scaled": list(scaled), "borders": borders}


def _write(job: Job, arrays: Arrays, run: Run) -> dict[str, str]:
    """Files, as the parent will rename them -> SHA-256."""
    path, pre = job.plan.outputs.array, job.data.reader.preprocessing
    if path is None:
        return {}
    stream = io.BytesIO()
    if path.lower().endswith(".npz"):
        np.savez(stream, **arrays)
    elif len(arrays) == 1:
        np.save(stream, *arrays.values())
    else:
        raise ConversionError(
            f"--output {path}: {len(arrays)} inputs do not go into one .npy file", hint="Name a .npz file.", code=ExitCode.USAGE
        )
    written = {path: run.write_at_end(path, stream.getvalue())}
    if pre:
        (images,) = arrays.values()
        _, png = opencv().imencode(".png", displayed(images[0], pre))
        written[image_beside(path)] = run.write_at_end(image_beside(path), png)
    return written
