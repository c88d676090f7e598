"""What is really in a built engine: its layers and their precisions, from the engine inspector's JSON."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.side_files import NotTaken, parse_json
from onnx2trt.plan.precision_arguments import EIGHT_BIT
from onnx2trt.trt.constraints import labels, nodes_of

MOST_TEXT = 2**28  # characters; layers of large engines take some kB each
# words of a tensor's description, in lower case: TensorRT's own kernels say "FP16", those of its compiler "Half"
PRECISIONS = {
    "int8": "int8",
    "fp8": "fp8",
    "half": "fp16",
    "fp16": "fp16",
    "bfloat16": "bf16",
    "bf16": "bf16",
    "float": "fp32",
    "fp32": "fp32",
}
NO_WORK = ("Constant", "Reformat", "NoOp", "Shuffle", "Shape", "Signal", "Wait", "ShapeHostToDevice", "ShapeDeviceToHost")


@dataclass(frozen=True)
class EngineLayer:
    name: str
    kind: str  # the inspector's LayerType
    precision: str | None  # of its floating-point or INT8 data; None where it has none
    input_precision: str | None
    output_precision: str | None
    nodes: tuple[str, ...]  # ONNX nodes that it computes
    tactic: str
    reads: tuple[str, ...] = ()  # tensors
    writes: tuple[str, ...] = ()

    @property
    def in_8_bits(self) -> bool:
        """Whether it reads INT8 or FP8."""
        return self.precision in EIGHT_BIT


def parse_layers(text: str, known: dict[str, str]) -> tuple[EngineLayer, ...]:
    """Layers of an engine built with detailed verbosity.

    Args:
        text: Engine.inspect().
        known: label -> ONNX node name (trt.constraints.labels).

    Returns:
        The layers, in order; empty where the engine was built without details.

    Raises:
        ConversionError: VALIDATION, where it is no JSON, or not of this form.
    """
    return _read(text, lambda entries: tuple(_layer(entry, known) for entry in entries))


def layers_of(text: str, nodes: Iterable) -> tuple[EngineLayer, ...]:
    """As parse_layers, by the ONNX nodes (onnx.NodeProto) of the graph that the engine was built from."""
    return parse_layers(text, labels((node.name, tuple(node.output)) for node in nodes))


def _read(text: str, make: Callable):
    """What is made of the entries of the layers."""
    try:
        entries = parse_json(text, MOST_TEXT, finite=False).get("Layers", [])
        return make([entry for entry in entries if isinstance(entry, dict)])
    except (NotTaken, AttributeError, TypeError) as error:
        raise ConversionError(f"TensorRT's description of the engine cannot be read: {error}", code=ExitCode.VALIDATION) from None


def _layer(entry: dict, known: dict[str, str]) -> EngineLayer:
    inputs = [_precision(tensor) for tensor in entry.get("Inputs", [])]
    outputs = [_precision(tensor) for tensor in entry.get("Outputs", [])]
    typed_inputs = [p for p in inputs if p]
    typed_outputs = [p for p in outputs if p]
    first_in = typed_inputs[0] if typed_inputs else None
    first_out = typed_outputs[0] if typed_outputs else None
    return EngineLayer(
        name=entry.get("Name", ""),
        kind=entry.get("LayerType", ""),
        precision=first_in or first_out,
        input_precision=first_in,
        output_precision=first_out,
        nodes=tuple(nodes_of(entry.get("Metadata") or "", known)),
        tactic=str(entry.get("TacticName", entry.get("TacticValue", ""))),
        reads=tuple(tensor.get("Name", "") for tensor in entry.get("Inputs", [])),
        writes=tuple(tensor.get("Name", "") for tensor in entry.get("Outputs", [])),
    )


def _precision(tensor: dict) -> str | None:
    description = tensor.get("Format/Datatype") or tensor.get("Datatype") or ""
    return next((PRECISIONS[word] for word in re.findall(r"\w+", description.lower()) if word in PRECISIONS), None)


def count_layers(layers: tuple[EngineLayer, ...]) -> dict[str, int]:
    """Layers that compute, by precision of what they read."""
    counts = {"int8": 0, "fp16": 0, "fp32": 0}
    for layer in layers:
        if layer.kind not in NO_WORK and layer.precision:
            counts[layer.precision] = counts.get(layer.precision, 0) + 1
    return counts


def nodes_in(layers: tuple[EngineLayer, ...], precision: str, written: bool = False) -> set[str]:
    """ONNX nodes whose layer reads its data in `precision`, or (`written`) writes it so."""
    found = [layer for layer in layers if (layer.output_precision if written else layer.precision) == precision]
    return {node for layer in found if layer.kind not in NO_WORK for node in layer.nodes}


def held_in(text: str, known: dict[str, str], tensors: Container[str], precision: str) -> tuple[set[str], dict[str, set[str]]]:
    """Where an engine holds values in a precision, conversions seen through: what is made of a rounded value is rounded.

    Args:
        text, known: as for parse_layers.
        tensors: of the ONNX graph.

    Returns:
        (tensors that are held so for all that read them, tensor -> ONNX nodes that read it so)

    Raises:
        ConversionError: as by parse_layers.
    """
    return _read(text, lambda entries: _held(entries, known, tensors, precision))


def _held(entries: list[dict], known: dict[str, str], tensors: Container[str], precision: str) -> tuple[set[str], dict[str, set[str]]]:
    converted: dict[str, str] = {}  # tensor -> that which it was converted from
    held: set[str] = set()
    for entry in entries:
        made = [(tensor.get("Name", ""), _precision(tensor)) for tensor in entry.get("Outputs", [])]
        source = entry["Inputs"][0].get("Name", "") if entry.get("LayerType") == "Reformat" and entry.get("Inputs") else None
        held.update(name for name, own in made if own == precision or source in held)
        converted.update((name, source) for name, _ in made if source not in (None, name))
    read: dict[str, set[str]] = {}
    for entry in entries:
        for tensor in entry.get("Inputs", []) if entry.get("LayerType") != "Reformat" else ():
            name, seen = tensor.get("Name", ""), set()
            while name not in tensors and name in converted and name not in seen:
                seen.add(name)
                name = converted[name]
            if _precision(tensor) == precision and name in tensors:
                read.setdefault(name, set()).update(nodes_of(entry.get("Metadata") or "", known))
    return {name for name in held if name in tensors}, read


def nodes_in_float(layers: tuple[EngineLayer, ...]) -> set[str]:
    """ONNX nodes whose layers read FP16, BF16 or FP32 alone."""
    return set().union(*(nodes_in(layers, name) for name in ("fp16", "bf16", "fp32"))) - nodes_in_8_bits(layers)


def nodes_in_8_bits(layers: tuple[EngineLayer, ...]) -> set[str]:
    """ONNX nodes whose layer reads INT8 or FP8."""
    return set().union(*(nodes_in(layers, name) for name in EIGHT_BIT))


def ignored_constraints(
    layers: tuple[EngineLayer, ...], asked: dict[str, str], half_nodes: Container[str] = frozenset()
) -> tuple[tuple[str, str, str], ...]:
    """(node, asked precision, precision in the engine) of constraints that the engine does not show.

    Args:
        asked, half_nodes: as trt.constraints.constrain was given them.
    """
    found = []
    for layer in layers:
        for node in layer.nodes:
            wanted = asked.get(node, "fp16" if node in half_nodes else None)
            got = layer.precision if wanted == "int8" else layer.output_precision
            if node not in asked and layer.input_precision == "fp16":  # computes in FP16, whatever it writes
                got = "fp16"
            if wanted and layer.kind not in NO_WORK and got and got != wanted:
                found.append((node, wanted, got))
    return tuple(dict.fromkeys(found))
