"""Layers that the parser takes, and that the library has no kernel for: TensorRT-RTX lacks some that its parser knows.

Which of them a library lacks is not written down here, but tried: the build of one such layer alone fails within milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np

from onnx2trt.base.errors import ConversionError, ExitCode

NAMED = 6  # nodes in one message


def _non_zero(trt: ModuleType, network, keep: list):
    x = network.add_input("x", trt.float32, (2, 2))
    try:
        return network.add_non_zero(x, trt.int64)
    except TypeError:  # the type of the indices is a parameter since 10.9
        return network.add_non_zero(x)


def _nms(trt: ModuleType, network, keep: list):
    keep.append(np.array(1, np.int32))  # the network points to it
    most = network.add_constant((), trt.Weights(keep[-1])).get_output(0)
    return network.add_nms(network.add_input("boxes", trt.float32, (1, 2, 4)), network.add_input("scores", trt.float32, (1, 2, 1)), most)


# kind of layer to doubt -> (what makes one alone, what can stand in its place)
DOUBTED: dict[str, tuple[Callable, str]] = {
    "NMS": (_nms, "End the model at its boxes and scores, and suppress after it."),
    "NON_ZERO": (_non_zero, "Export with a mask (torch.where with three arguments) in the place of indices."),
}


def refuse_missing_kernels(trt: ModuleType, builder, network, backend: str) -> None:
    """
    Args:
        backend: tensorrt | tensorrt-rtx.

    Raises:
        ConversionError: BUILD, where the library cannot build layers of the network.
    """
    found: dict[str, list[str]] = {}
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type.name in DOUBTED:
            found.setdefault(layer.type.name, []).append(layer.name)
    missing = {kind: names for kind, names in found.items() if not _builds(trt, builder, DOUBTED[kind][0])}
    if not missing:
        return
    lines, hints = [], []
    if backend == "tensorrt-rtx":
        hints.append("This is a known gap of TensorRT-RTX: the full TensorRT builds them (--backend tensorrt).")
    for kind, names in missing.items():
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        lines.append(f"{kind}: {', '.join(map(repr, names[:NAMED]))}{more}")
        hints.append(DOUBTED[kind][1])
    raise ConversionError(
        f"{'TensorRT-RTX' if backend == 'tensorrt-rtx' else 'TensorRT'} reads these layers, but has no kernel for them:\n  "
        + "\n  ".join(lines),
        hint="\n      ".join(hints),
        code=ExitCode.BUILD,
    )


def _builds(trt: ModuleType, builder, make: Callable) -> bool:
    network, keep = builder.create_network(0), []
    layer = make(trt, network, keep)
    for index in range(layer.num_outputs):
        network.mark_output(layer.get_output(index))
    return builder.build_serialized_network(network, builder.create_builder_config()) is not None
