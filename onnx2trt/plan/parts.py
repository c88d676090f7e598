"""The parts of a plan, each the decisions about one thing."""

from __future__ import annotations

from dataclasses import dataclass

from onnx2trt.plan.efforts import Effort


@dataclass(frozen=True)
class Preprocess:
    """What the user said about images; the size and the layout come from the model."""

    color: str | None
    resize: str
    input_range: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Shapes:
    """Flags about inputs as typed: (input name or "", dims) pairs."""

    min: tuple
    opt: tuple
    max: tuple
    max_batch: int
    shape_values: tuple[tuple[str, tuple], ...] = ()  # (input, (min, opt, max) of its values)
    bind_input: tuple[tuple[str, str], ...] = ()  # (input, the value that makes it a constant)
    image_size: tuple[int, int] | None = None  # (height, width) of images, where the model leaves them free
    profiles: tuple[tuple[str, Shapes], ...] = ()  # (name, its shapes) of several optimization profiles; none: one by the other fields


@dataclass(frozen=True)
class Calibration:
    directory: str | None
    samples: int
    cache: str | None
    method: str
    accept_stale: bool
    effort: Effort


@dataclass(frozen=True)
class Validation:
    enabled: bool
    test_image: str | None
    directory: str | None
    max_drop_percent: float
    metric: tuple[tuple[str, str], ...]  # (output, "" for all that it fits; the metric), the last counts
    require_execution: bool
    engine: str | None  # of --validate-only
    flags: tuple[str, str] = ("--test-image", "--validation-dir")  # that the file and the folder were given with, for messages


@dataclass(frozen=True)
class Outputs:
    engine: str | None  # None: nothing is built
    keep_failed: bool
    save_onnx: str | None
    json: str | None
    report: str | None
    array: str | None  # of preprocess
    triton_model: str | None = None  # the model's folder in a Triton repository
    detector: str | None = None  # how the report reads boxes out of the outputs: yolo | yolov5 | none; None: by the model's metadata

    @property
    def side_file(self) -> str | None:
        return self.engine and self.engine + ".json"
