"""--bind-input on a model that was read: its inputs without those that are constants from now on."""

from __future__ import annotations

from dataclasses import replace

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.model_info import ModelInfo
from onnx2trt.data.bound_values import bound_input
from onnx2trt.rewrite.bind import bind


def bind_inputs(model, info: ModelInfo, asked: tuple[tuple[str, str], ...], may_lack: bool = False) -> tuple:
    """(the model, what is known of it) with these inputs as constants.

    Args:
        model: onnx.ModelProto with all its data in memory; left as it is.
        asked: (input, value as typed).
        may_lack: of a model that was made from another one: an input that is bound may be gone already.

    Raises:
        ConversionError: USAGE, for an input that the model does not have, a value that does not fit, or where no input is left.
    """
    specs = {spec.name: spec for spec in info.inputs}
    unknown = [name for name, _ in asked if name not in specs]
    if unknown and not may_lack:
        raise ConversionError(
            f"--bind-input names input {unknown[0]!r}; the model's inputs are {', '.join(map(repr, specs))}", code=ExitCode.USAGE
        )
    bound = tuple(bound_input(specs[name], text) for name, text in asked if name in specs)
    if bound and len(bound) == len(specs):
        raise ConversionError(
            "--bind-input makes every input a constant, so nothing is left to compute",
            hint="Bind fewer: the data need at least one input to come in by.",
            code=ExitCode.USAGE,
        )
    names = {entry.spec.name for entry in bound}
    free = tuple(spec for spec in info.inputs if spec.name not in names)
    about = replace(info, inputs=free, bound=bound)
    return bind(model, about.constants), about
