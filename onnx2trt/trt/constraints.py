"""Layer precisions of weakly typed networks (TensorRT 8.6 to 10): set, read back, and found again in the built engine."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, field
from types import ModuleType

from onnx2trt.base.errors import ConversionError, ExitCode

FLOATS = ("FLOAT", "HALF", "BF16")
INT8_LAYERS = ("CONVOLUTION", "DECONVOLUTION", "FULLY_CONNECTED", "MATRIX_MULTIPLY")  # of a node's layers, those that INT8 is meant for
# Layers whose type is not theirs to choose
UNTYPED = ("CONSTANT", "SHAPE", "SHUFFLE", "IDENTITY", "CAST", "QUANTIZE", "DEQUANTIZE", "ASSERTION", "PLUGIN", "PLUGIN_V2", "PLUGIN_V3")
METADATA = re.compile(r"\[ONNX Layer: ([^\]]*)\]")


@dataclass(frozen=True)
class Constraints:
    """Layer precisions for a weakly typed network, by ONNX node."""

    # node -> fp32 | fp16 | int8; INT8 says how a layer computes, the types of its results are left to TensorRT
    precisions: dict[str, str] = field(default_factory=dict)
    # nodes of which only the precision is set, to FP16, unless they stand among `precisions`: bound results would have to be converted
    # where a kernel can write what is read next (FP32 at the end of a network)
    half_nodes: frozenset[str] = frozenset()
    half_outputs: frozenset[str] = frozenset()  # nodes of which only the output types are set, to FP16, whatever they are computed in
    nodes: tuple[tuple[str, tuple[str, ...]], ...] = ()  # (name, outputs) of every node of the model


def labels(nodes) -> dict[str, str]:
    """How TensorRT's parser calls the ONNX nodes: label -> node name.

    Args:
        nodes: (name, outputs) of each node; the parser calls a node without a name node_of_<first output>.
    """
    found = {}
    for name, outputs in nodes:
        found[name] = name
        if outputs:
            found.setdefault(f"node_of_{outputs[0]}", name)
    return found


def nodes_of(metadata: str, known: dict[str, str]) -> list[str]:
    """ONNX nodes named in the metadata of a layer; a fused layer names several."""
    return [known[label] for label in METADATA.findall(metadata) if label in known]


def constrain(trt: ModuleType, network, constraints: Constraints) -> dict[str, str]:
    """Set the precision and the output types of the layers that some ONNX nodes became.

    Returns:
        Layer name -> node name, of the layers that were constrained.

    Raises:
        ConversionError: BUILD, where TensorRT does not keep a setting.
    """
    known, outputs = labels(constraints.nodes), {tensor: name for name, tensors in constraints.nodes for tensor in tensors}
    types = {"fp32": trt.float32, "fp16": trt.float16, "int8": trt.int8}
    constrained = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated since 10.12; as errors they would become SystemError
        for index in range(network.num_layers):
            layer = network.get_layer(index)
            node = _node_of(layer, known, outputs)
            bound = constraints.precisions.get(node)
            asked = bound or ("fp16" if node in constraints.half_nodes else None)
            if asked == "int8" and layer.type.name not in INT8_LAYERS:
                asked = None
            if layer.type.name in UNTYPED or not layer.num_outputs or layer.get_output(0).dtype.name not in FLOATS:
                continue
            result = bound if bound in ("fp32", "fp16") else "fp16" if node in constraints.half_outputs else None
            _bind(layer, node, asked and types[asked], result and types[result])
            if asked:
                constrained[layer.name] = node
    return constrained


def _bind(layer, node: str | None, precision, result) -> None:
    """Set what is not None, and read it back."""
    if precision is not None:
        layer.precision = precision
        if not layer.precision_is_set or layer.precision != precision:
            raise _refused(f"precision {precision.name}", layer, node)
    for output in range(layer.num_outputs if result is not None else 0):
        if layer.get_output(output).dtype.name in FLOATS:
            layer.set_output_type(output, result)
            if layer.get_output_type(output) != result:
                raise _refused(f"output type {result.name}", layer, node)


def _refused(setting: str, layer, node: str | None) -> ConversionError:
    return ConversionError(f"TensorRT did not take {setting} for layer {layer.name!r} (node {node!r})", code=ExitCode.BUILD)


def _node_of(layer, known: dict[str, str], outputs: dict[str, str]) -> str | None:
    named = nodes_of(layer.metadata or "", known)
    if named:
        return named[0]
    if layer.name in known:
        return known[layer.name]
    return outputs.get(layer.get_output(0).name) if layer.num_outputs else None
