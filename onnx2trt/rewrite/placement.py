"""What else reads INT8 besides the INT8 layers, so that values stay INT8 from one layer to the next.

Without these, a residual addition, a Concat, a Resize or a pooling between two INT8 layers is computed in FP16 or FP32 from dequantised
values, and TensorRT converts back and forth. Measured on an H200 with TensorRT 10.6 against FP16: a UNet (batch 16) 0.65 with them,
0.87 without; ResNet-50 (batch 32) 0.72 with them. By its plan a GoogLeNet on TensorRT-RTX 1.7.1 moves 111 MB with MaxPool among them, 116
without.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

import onnx

from onnx2trt.base.model_info import STANDARD_DOMAINS
from onnx2trt.model.graph import Graph
from onnx2trt.model.nodes import attribute
from onnx2trt.model.operators import FUSED_WITH_ADD, MOVING, OWN_SCALE, POINTWISE, SAME_SCALE, WEIGHTED
from onnx2trt.rewrite.qdq import Layer, Reading


def readings(
    graph: Graph, layers: Iterable[Layer], known: Container[str] | None = None, without: Container[str] = ()
) -> tuple[Reading, ...]:
    """The inputs that should be INT8 where these layers are.

    Concat, Resize and pooling whose result is read as INT8 only; of an addition whose result is, the operand that is not
    computed by the layer that TensorRT fuses with it.

    Args:
        graph: FP32, not changed.
        layers: that are INT8.
        known: tensors that have a scale; None: all.
        without: nodes that shall read nothing as INT8.
    """
    return _Search(graph, [layer for layer in layers if layer.number_format.between], known).found(without)


def tensors(layers: Iterable[Layer], more: Iterable[Reading]) -> tuple[str, ...]:
    """The tensors that need a scale of their own, in execution order of their readers."""
    return tuple(dict.fromkeys([*(name for layer in layers for name in layer.tensors), *(reading.like for reading in more)]))


@dataclass(frozen=True)
class Results:
    """What INT8 layers make, and the elementwise operators behind them, which TensorRT may fuse with them."""

    tensors: tuple[str, ...]  # in execution order
    scaled: tuple[str, ...]  # those of them that need a scale, in execution order
    float_nodes: frozenset[str]  # nodes whose results end in FP16: nothing computed from them is INT8, or an end of the network


def results(graph: Graph, layers: Iterable[Layer], more: Iterable[Reading]) -> Results:
    """The results of the layers, and of the elementwise operators behind them.

    What an operator like hard-swish reads on its way to an INT8 tensor gets no scale: TensorRT would quantise it, too (PP-OCRv4 det on
    10.6: 23.4 instead of 27.6 dB). What ends in FP16 gets one and is bound to FP16: without a scale TensorRT has no INT8 kernel for a
    convolution that is fused with such an operator. What no such operator reads gets none and is not bound: TensorRT writes it in FP16
    or FP32.
    """
    chosen = {layer.node for layer in layers}
    made: dict[str, None] = {}  # a set in execution order
    nodes: list[onnx.NodeProto] = []
    for node in graph.nodes:
        if node.name in chosen or node.op_type in POINTWISE and not made.keys().isdisjoint(node.input):
            made.update(dict.fromkeys(node.output))
            nodes.append(node)
    int8 = _read_as_int8(graph, layers, more)
    int8.update(moved(graph, dict.fromkeys(int8, 1.0)))
    towards = {*int8, *graph.output_names}
    for node in reversed(nodes):
        if node.op_type in POINTWISE and not towards.isdisjoint(node.output):
            towards.update(filter(None, node.input))
    readers = graph.consumers()
    plain = {  # no operator to fuse with: TensorRT writes them in the type that is read
        node.name for node in nodes if node.name in chosen and not any(r.op_type in POINTWISE for r in readers.get(node.output[0], []))
    }
    floats = [node for node in nodes if towards.isdisjoint(node.output) and node.name not in plain]
    scaled = int8.union(*(node.output for node in floats))
    return Results(tuple(made), tuple(name for name in made if name in scaled), frozenset(node.name for node in floats))


def moved(graph: Graph, read: Mapping[str, float]) -> dict[str, float]:
    """Scales of what is only moved on its way to INT8 layers, to a pooling behind a convolution, say: theirs, so that it is rounded once.

    Args:
        read: scales of the tensors that INT8 layers read.
    """
    known, readers, outputs = dict(read), graph.consumers(), set(graph.output_names)
    for name in (*(name for node in reversed(graph.nodes) for name in node.output), *graph.input_names):
        if name in known or name in outputs or name not in readers:
            continue
        hands_on = all(_moves(node, name) for node in readers[name])
        scales = {known.get(made) for node in readers[name] for made in node.output if made in readers or made in outputs}
        if hands_on and len(scales) == 1 and None not in scales:
            known[name] = scales.pop()
    return {name: scale for name, scale in known.items() if name not in read}


def _moves(node: onnx.NodeProto, tensor: str) -> bool:
    """Whether a node does nothing but move the values of a tensor, and of no other."""
    return (
        node.op_type in MOVING - {"Concat"}
        and node.domain in STANDARD_DOMAINS
        and [index for index, name in enumerate(node.input) if name == tensor] == [0]
    )


def between(graph: Graph, read: Mapping[str, float], made: Mapping[str, float], ranges: Mapping[str, float]) -> dict[str, float]:
    """Scales of what is moved, joined, averaged, resized or computed value by value on its way from INT8 to INT8.

    Without a scale TensorRT's calibrator cannot hold a tensor in INT8, and so converts before it and behind it (ShuffleNetV2 at batch 32 on
    an H200: 0.963 of FP16 without them, 12 layers in INT8; 0.918 and 33 where every tensor has one).

    Args:
        read: scales of the tensors that INT8 layers read, and of what is only moved on its way there.
        made: of what else has one.
        ranges: of all floating-point tensors that vary, by their largest values.

    Returns:
        Those that are new. What is only moved keeps its scale, so that it is rounded once; what is made for a Concat alone gets that of the
        Concat.
    """
    towards, readers = set(read), graph.consumers()
    passing = MOVING | POINTWISE | SAME_SCALE | OWN_SCALE | {"BatchNormalization"}
    for node in reversed(graph.nodes):
        if node.op_type in passing and not towards.isdisjoint(node.output):
            towards.update(node.input)
    known, found = {**made, **read}, {}
    for node in graph.nodes:
        data = [name for name in node.input if name in ranges or name in known]
        if node.op_type not in passing or not data or not all(name in known for name in data):
            continue
        for name in node.output:
            scale = known[data[0]] if node.op_type in MOVING and len(data) == 1 else ranges.get(name)
            if name in towards and name not in known and scale:
                known[name] = found[name] = scale
        if node.op_type == "Concat" and node.output[0] in known:
            alone = [name for name in data if name in made and name not in read and readers[name] == [node]]
            found.update(dict.fromkeys(alone, known[node.output[0]]))
    return found


def _read_as_int8(graph: Graph, layers: Iterable[Layer], more: Iterable[Reading]) -> set[str]:
    """Tensors that are read as INT8, and those that are fused on the way to one."""
    readers = graph.consumers()
    int8 = {layer.activation for layer in layers} | {reading.tensor for reading in more}
    for node in reversed(graph.nodes):
        if node.op_type in FUSED_WITH_ADD | {"Add"} and not int8.isdisjoint(node.output):
            int8.update(name for name in node.input if name and len(readers[name]) == 1)
    return int8


def _by_factor(layer: Layer, reading: Reading) -> bool:
    """Whether a factor will stand between what a layer reads and its Q (rewrite.score_factor)."""
    return layer.attention is not None and layer.attention.factor is not None and (reading.node, reading.index) == (layer.node, 0)


class _Search:
    """From the last node to the first, so that all readers of a tensor are known before what makes it is looked at."""

    def __init__(self, graph: Graph, layers: Iterable[Layer], known: Container[str] | None):
        layers = tuple(layers)
        self._graph, self._known = graph, known
        self._outputs = frozenset(graph.output_names)
        self._consumers, self._producers = graph.consumers(), graph.producers()
        self._layers = {node for layer in layers for node in layer.nodes}
        direct = [reading for layer in layers for reading in layer.readings if not _by_factor(layer, reading)]
        self._like = {reading.tensor: reading.tensor for reading in direct}  # tensor -> the one whose scale it has
        self._int8 = {(reading.node, reading.index) for reading in direct}  # readings, as (node, index of the input)
        self._found: list[Reading] = []
        self._depths: dict[str, int] | None = None

    def found(self, without: Container[str]) -> tuple[Reading, ...]:
        for node in reversed(self._graph.nodes):
            if node.domain not in STANDARD_DOMAINS or node.name in without:
                continue
            if node.op_type in SAME_SCALE | OWN_SCALE:
                self._pass_on(node)
            elif node.op_type == "Add":
                self._add(node)
        return tuple(reversed(self._found))

    def _pass_on(self, node: onnx.NodeProto) -> None:
        output = node.output[0]
        data = list(enumerate(node.input if node.op_type == "Concat" else node.input[:1]))
        interpolates = node.op_type == "Resize" and attribute(node, "mode", b"nearest") not in (b"nearest", b"linear")
        if interpolates or not self._only_int8(output) or any(name in self._graph.weights for _, name in data):
            return
        like = [self._like.get(name, self._like[output] if node.op_type in SAME_SCALE else name) for _, name in data]
        if self._known is None or all(name in self._known for name in like):
            for (index, name), scale in zip(data, like):
                self._read(node, index, name, scale)

    def _add(self, node: onnx.NodeProto) -> None:
        if any(name in self._graph.weights for name in node.input) or not self._only_int8(self._behind(node)):
            return
        fusing = [index for index, name in enumerate(node.input) if self._fuses(name)]
        if fusing:
            depths = self._depth()
            index = 1 - max(fusing, key=lambda index: depths.get(node.input[index], 0))
            name = node.input[index]
            like = self._like.get(name, name)
            if self._known is None or like in self._known:
                self._read(node, index, name, like)

    def _read(self, node: onnx.NodeProto, index: int, name: str, like: str) -> None:
        self._like.setdefault(name, like)
        self._int8.add((node.name, index))
        self._found.append(Reading(node.name, index, name, like))

    def _only_int8(self, tensor: str) -> bool:
        """Whether everything that reads a tensor reads it as INT8."""
        readers = self._consumers.get(tensor, [])
        inputs = {(reader.name, index) for reader in readers for index, name in enumerate(reader.input) if name == tensor}
        inside = any(tensor not in reader.input for reader in readers)  # by a subgraph
        return bool(inputs) and not inside and inputs <= self._int8 and tensor not in self._outputs

    def _behind(self, node: onnx.NodeProto) -> str:
        """The result of an addition, behind the activation that is fused with it."""
        output = node.output[0]
        readers = self._consumers.get(output, [])
        if len(readers) == 1 and readers[0].op_type in FUSED_WITH_ADD and output not in self._outputs:
            return readers[0].output[0]
        return output

    def _fuses(self, tensor: str) -> bool:
        """Whether an INT8 layer makes it for this one reader."""
        producer = self._producers.get(tensor)
        alone = len(self._consumers.get(tensor, [])) == 1 and tensor not in self._outputs
        return alone and producer is not None and producer.name in self._layers

    def _depth(self) -> dict[str, int]:
        """Tensor -> convolutions and matrix products on the longest way to it: TensorRT fuses an addition with what comes last."""
        if self._depths is None:
            self._depths = {}
            for node in self._graph.nodes:
                depth = max((self._depths.get(name, 0) for name in node.input), default=0) + (node.op_type in WEIGHTED)
                self._depths.update(dict.fromkeys(node.output, depth))
        return self._depths
