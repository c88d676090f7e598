"""Operators that ONNX Runtime's optimizers write (com.microsoft), as operators of ONNX, which TensorRT has.

What they compute: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import onnx

from onnx2trt.base.model_info import STANDARD_DOMAINS
from onnx2trt.model.graph import Graph
from onnx2trt.model.nodes import attribute, standard_schema
from onnx2trt.rewrite.contrib_attention import attention, multi_head
from onnx2trt.rewrite.contrib_nodes import Other, Replacement
from onnx2trt.rewrite.gelu import by_tanh

DOMAIN = "com.microsoft"
OF_ONNX_LATER = ("LayerNormalization", "SimplifiedLayerNormalization")  # written without a domain, whatever the opset
EPSILON = 1e-12  # where the normalizations of com.microsoft name none
LAYER_EPSILON = 1e-5  # of the two above
ACTIVATIONS = {"HardSigmoid": ("alpha", "beta"), "LeakyRelu": ("alpha",), "Relu": (), "Sigmoid": (), "Tanh": ()}


def is_fused(model: onnx.ModelProto) -> bool:
    """Whether a model holds operators that with_onnx_operators may write in others."""
    opset = max((entry.version for entry in model.opset_import if entry.domain in STANDARD_DOMAINS), default=0)
    return any(_make_of(node, opset) for node in model.graph.node)


def with_onnx_operators(graph: Graph) -> tuple[Graph, Counter]:
    """(a graph that computes the same, how often each operator was written in others); forms that are not known stay as they are."""
    result, found = graph.copy(), Counter()
    nodes: list[onnx.NodeProto] = []
    for node in result.nodes:
        make = _make_of(node, result.opset)
        dtype = _float_type(result, node) if make else None
        made = Replacement(result, node, dtype) if dtype else None
        try:
            if made is None:
                raise Other
            make(made)
        except Other:
            nodes.append(node)
            continue
        found[node.op_type] += 1
        nodes += made.made
    result.replace_nodes(nodes)
    result.prune()
    return result, found


def _make_of(node: onnx.NodeProto, opset: int) -> Callable[[Replacement], None] | None:
    known = node.domain == DOMAIN or node.op_type in OF_ONNX_LATER and node.domain in STANDARD_DOMAINS
    return MAKERS.get(node.op_type) if known and standard_schema(node, opset) is None else None


def _float_type(graph: Graph, node: onnx.NodeProto) -> type | None:
    """Of the constants that a node needs: that of its weights, else that of all weights; None where these differ."""
    for names in (node.input, graph.weights):
        types = {array.dtype.type for name in names if (array := graph.weights.get(name)) is not None and array.dtype.kind == "f"}
        if len(types) == 1:
            return types.pop()
        if types:
            return None
    return np.float32


# ---- activations


def _gelu(n: Replacement, source: str = "") -> None:
    x = source or n.input(0)
    whole = n("Add", n("Erf", n("Mul", x, n.constant(math.sqrt(0.5)))), n.constant(1.0))
    n("Mul", n("Mul", x, whole), n.constant(0.5), to=n.output(0))


def _bias_gelu(n: Replacement) -> None:
    _gelu(n, n("Add", n.input(0), n.input(1)))


def _fast_gelu(n: Replacement) -> None:
    by_tanh(n, n("Add", n.input(0), n.input(1)) if n.input(1) else n.input(0))


def _quick_gelu(n: Replacement) -> None:
    x = n.input(0)
    n("Mul", x, n("Sigmoid", n("Mul", x, n.constant(attribute(n.node, "alpha", 1.702)))), to=n.output(0))


def _activate(n: Replacement, source: str) -> None:
    name = attribute(n.node, "activation", b"").decode()
    parameters = attribute(n.node, "activation_params", [attribute(n.node, f"activation_{part}") for part in ("alpha", "beta")])
    if name not in ACTIVATIONS:
        raise Other
    own = {key: value for key, value in zip(ACTIVATIONS[name], parameters) if value is not None}
    n(name, source, to=n.output(0), **own)


# ---- normalizations


def _normalized(n: Replacement, x: str, scale: str, bias: str, epsilon: float) -> None:
    """Of the last axis, around its mean; `_rms` is without."""
    centred = n("Sub", x, n.mean(x))
    spread = n("Sqrt", n("Add", n.mean(n("Mul", centred, centred)), n.constant(epsilon)))
    scaled = n("Mul", n("Div", centred, spread), scale, to="" if bias else n.output(0))
    if bias:
        n("Add", scaled, bias, to=n.output(0))


def _rms(n: Replacement, x: str, scale: str, epsilon: float) -> None:
    size = n("Sqrt", n("Add", n.mean(n("Mul", x, x)), n.constant(epsilon)))
    n("Mul", n("Div", x, size), scale, to=n.output(0))


def _check_last_axis(n: Replacement) -> None:
    n.without_outputs(1)
    if attribute(n.node, "axis", -1) != -1:
        raise Other


def _layer_norm(n: Replacement) -> None:
    _check_last_axis(n)
    _normalized(n, n.input(0), n.input(1), n.input(2), attribute(n.node, "epsilon", LAYER_EPSILON))


def _simplified(n: Replacement) -> None:
    _check_last_axis(n)
    _rms(n, n.input(0), n.input(1), attribute(n.node, "epsilon", LAYER_EPSILON))


def _skip(n: Replacement, bias: int) -> str:
    """The sum that is normalized; it is an output, too, where that is asked for."""
    n.without_outputs(1, 3)
    parts = [n.input(0), *([n.input(bias)] if n.input(bias) else [])]
    total = n("Add", *parts) if len(parts) > 1 else parts[0]
    return n("Add", total, n.input(1), to=n.output(3))


def _skip_layer_norm(n: Replacement) -> None:
    _normalized(n, _skip(n, 4), n.input(2), n.input(3), attribute(n.node, "epsilon", EPSILON))


def _skip_simplified(n: Replacement) -> None:
    _rms(n, _skip(n, 3), n.input(2), attribute(n.node, "epsilon", EPSILON))


def _embed(n: Replacement) -> None:
    """Words, places and segments, and how many tokens a mask lets through."""
    ids, segments, mask, places = n.input(0), n.input(1), n.input(7), n.input(8)
    if n.output(1) and not mask and any(n.output(1) in other.input for other in n.graph.nodes):
        raise Other
    total = n("Gather", n.input(2), ids)
    if places:
        total = n("Add", total, n("Gather", n.input(3), places))
    else:
        start, one = n.constant([0], np.int64), n.constant([1], np.int64)
        length = n("Slice", n("Shape", ids), one, n.constant([2], np.int64))
        total = n("Add", total, n("Slice", n.input(3), start, length, start))
    if segments:
        total = n("Add", total, n("Gather", n.input(4), segments))
    if n.output(2):
        total = n("Identity", total, to=n.output(2))
    _normalized(n, total, n.input(5), n.input(6), attribute(n.node, "epsilon", EPSILON))
    if n.output(1) and mask:
        axes = {"axes": [1]} if n.opset < 13 else {}
        more = [] if axes else [n.constant([1], np.int64)]
        n("ReduceSum", mask, *more, to=n.output(1), keepdims=0, **axes)


# ---- convolutions and matrix products


def _fused_conv(n: Replacement) -> None:
    made = _before_activation(n, "Conv")
    _activate(n, n("Add", made, n.input(3)) if n.input(3) else made)


def _fused_gemm(n: Replacement) -> None:
    _activate(n, _before_activation(n, "Gemm"))


def _before_activation(n: Replacement, operator: str) -> str:
    """The operator of ONNX that an activation was fused with."""
    own = {entry.name: onnx.helper.get_attribute_value(entry) for entry in n.node.attribute if not entry.name.startswith("activation")}
    return n(operator, *filter(None, [n.input(index) for index in range(3)]), **own)


def _fused_matmul(n: Replacement) -> None:
    if attribute(n.node, "transBatchA", 0) or attribute(n.node, "transBatchB", 0):
        raise Other
    first, second = n.input(0), n.input(1)
    turned = [attribute(n.node, "transA", 0), attribute(n.node, "transB", 0)]
    if turned[1] and second in n.graph.weights and n.graph.weights[second].ndim > 1:
        second, turned[1] = n.constant(np.swapaxes(n.graph.weights[second], -1, -2)), 0
    alpha = attribute(n.node, "alpha", 1.0)
    target = n.output(0) if alpha == 1.0 else ""
    if any(turned):
        a, b = "ji" if turned[0] else "ij", "kj" if turned[1] else "jk"
        if n.opset < 12:
            raise Other
        product = n("Einsum", first, second, equation=f"...{a},...{b}->...ik", to=target)
    else:
        product = n("MatMul", first, second, to=target)
    if not target:
        n("Mul", product, n.constant(alpha), to=n.output(0))


def _matmul_n_bits(n: Replacement) -> None:
    """Weights of a few bits in blocks: [N, blocks, bytes], with a scale and a zero point for each block; as floating point."""
    n.without_inputs(4)
    rows, columns, bits, size = (attribute(n.node, name) for name in ("N", "K", "bits", "block_size"))
    packed, blocks = n.weight(1), -(-columns // size)
    if bits not in (2, 4, 8) or packed.dtype != np.uint8:
        raise Other
    scales = n.weight(2).reshape(rows, blocks, 1)
    zeros = np.full((rows, blocks, 1), 2 ** (bits - 1), np.float32)
    if n.input(3):
        stored = n.weight(3)
        unpacked = _unpacked(stored.reshape(rows, -1), bits)[:, :blocks] if stored.dtype == np.uint8 else stored
        zeros = unpacked.reshape(rows, blocks, 1).astype(np.float32)
    values = _unpacked(packed.reshape(rows, -1), bits).reshape(rows, blocks, size)
    weight = ((values - zeros) * scales.astype(np.float32)).reshape(rows, blocks * size)[:, :columns]
    product = n("MatMul", n.input(0), n.constant(weight.T), to="" if n.input(5) else n.output(0))
    if n.input(5):
        n("Add", product, n.input(5), to=n.output(0))


def _unpacked(data: np.ndarray, bits: int) -> np.ndarray:
    """Values of a few bits, the lowest bits of a byte first, as float32 [rows, bytes * 8 / bits]."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    return ((data[..., None] >> shifts) & (2**bits - 1)).reshape(len(data), -1).astype(np.float32)


MAKERS: dict[str, Callable[[Replacement], None]] = {
    "Attention": attention,
    "BiasGelu": _bias_gelu,
    "EmbedLayerNormalization": _embed,
    "FastGelu": _fast_gelu,
    "FusedConv": _fused_conv,
    "FusedGemm": _fused_gemm,
    "FusedMatMul": _fused_matmul,
    "Gelu": _gelu,
    "LayerNormalization": _layer_norm,
    "MatMulNBits": _matmul_n_bits,
    "MultiHeadAttention": multi_head,
    "QuickGelu": _quick_gelu,
    "SimplifiedLayerNormalization": _simplified,
    "SkipLayerNormalization": _skip_layer_norm,
    "SkipSimplifiedLayerNormalization": _skip_simplified,
}
