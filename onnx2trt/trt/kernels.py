"""Layers that the parser takes, and that TensorRT-RTX has no kernel for.

Which these are in a release is not written down here, but tried: the build of one such layer alone fails within milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.words import listed
from onnx2trt.trt.library import Library

NAMED = 6  # nodes in one message


def _non_zero(trt: ModuleType, network, keep: list):
    return network.add_non_zero(network.add_input("x", trt.float32, (2, 2)), trt.int64)


def _nms(trt: ModuleType, network, keep: list):
    keep.append(np.array(1, np.int32))  # the network points to it
    most = network.add_constant((), trt.Weights(keep[-1])).get_output(0)
    return network.add_nms(network.add_input("boxes", trt.float32, (1, 2, 4)), network.add_input("scores", trt.float32, (1, 2, 1)), most)


# kind of layer to doubt -> (what makes one alone, what can stand in its place)
DOUBTED: dict[str, tuple[Callable, str]] = {
    "NMS": (_nms, "End the model at its boxes and scores, and suppress after it."),
    "NON_ZERO": (_non_zero, "Export with a mask (torch.where with three arguments) in the place of indices."),
}


def refuse_missing_kernels(library: Library, builder, network) -> None:
    """
    Raises:
        ConversionError: BUILD, where TensorRT-RTX cannot build layers of the network; the full TensorRT has kernels for all that it reads.
    """
    if library.backend != "tensorrt-rtx":
        return
    found: dict[str, list[str]] = {}
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type.name in DOUBTED:
            found.setdefault(layer.type.name, []).append(layer.name)
    missing = {kind: names for kind, names in found.items() if not _builds(library, builder, DOUBTED[kind][0])}
    if not missing:
        return
    lines = [f"{kind}: {listed([repr(name) for name in names], NAMED)}" for kind, names in missing.items()]
    gap = "This is a known gap of TensorRT-RTX: the full TensorRT builds them (--backend tensorrt)."
    raise ConversionError(
        "TensorRT-RTX reads these layers, but has no kernel for them:\n  " + "\n  ".join(lines),
        hint="\n      ".join([gap, *(DOUBTED[kind][1] for kind in missing)]),
        code=ExitCode.BUILD,
    )


def _builds(library: Library, builder, make: Callable) -> bool:
    network, keep = builder.create_network(library.network_flags(strongly_typed=False)), []
    layer = make(library.trt, network, keep)
    for index in range(layer.num_outputs):
        network.mark_output(layer.get_output(index))
    return builder.build_serialized_network(network, builder.create_builder_config()) is not None
