"""The parts of random valid models: each takes a tensor and gives one, for images [N, C, H, W], sequences [N, T, C] and vectors [N, C]."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from tests.fuzz.valid_models import Maker, Tensor

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def activation(m: Maker, x: str) -> str:
    """Any that the opset has."""
    known = ["Relu", "Relu", "LeakyRelu", "Elu", "Selu", "Sigmoid", "Tanh", "Softplus", "Softsign", "HardSigmoid", "Clip", "silu", "none"]
    known += ["Erf"] * (m.opset >= 9) + ["HardSwish"] * (m.opset >= 14) + ["Mish"] * (m.opset >= 18) + ["Gelu"] * (m.opset >= 20)
    op = m.pick(*known)
    if op == "none":
        return x
    if op == "silu":
        return m.add("Mul", x, m.add("Sigmoid", x))
    return m.clip(x, 0.0, 6.0) if op == "Clip" else m.add(op, x)


# ---- images


def conv(m: Maker, x: Tensor) -> Tensor:
    """With every way of padding, strides, dilations and groups."""
    c, h, w = x.shape
    out, kernel, stride, dilation = m.pick(8, 12, 16), m.pick(1, 2, 3, 5), m.pick(1, 1, 1, 2), m.pick(1, 1, 1, 2)
    group = m.pick(1, 1, 1, 2, c)
    out = c if group == c else out
    reach = (kernel - 1) * dilation + 1
    more: dict = {"strides": [stride] * 2, "group": group}
    way = m.pick("explicit", "explicit", "SAME_UPPER", "SAME_LOWER", "VALID", "uneven")
    if way in ("SAME_UPPER", "SAME_LOWER", "VALID") and dilation > 1:  # runtimes differ there
        dilation, reach = 1, kernel
    more["dilations"] = [dilation] * 2
    if reach > min(h, w):
        return x
    m.kinds += ["conv", f"padding {way}"] + ["grouped"] * (group > 1)
    if way == "VALID":
        more["auto_pad"], pads = way, [0] * 4
    elif way.startswith("SAME"):
        more["auto_pad"], pads = way, None
    else:
        pads = [reach // 2] * 4 if way == "explicit" else [int(v) for v in m.random.integers(0, reach, 4)]
        more["pads"] = pads
    sizes = [-(-s // stride) if pads is None else (s + pads[i] + pads[i + 2] - reach) // stride + 1 for i, s in enumerate((h, w))]
    bias = [m.weight(out, gain=0.2)] if m.chance(0.6) else []
    y = m.add("Conv", x.name, m.weight(out, c // group, kernel, kernel, fan_in=c // group * kernel**2), *bias, **more)
    if m.chance(0.3):
        m.kinds.append("BatchNormalization")
        parts = [m.weight(out, gain=0.2, mean=1.0), m.weight(out, gain=0.2), m.weight(out, gain=0.2)]
        variance = m.const(np.exp(0.3 * m.random.standard_normal(out)), "v", np.float32)
        y = m.add("BatchNormalization", y, *parts, variance)
    return Tensor(activation(m, y), (out, *sizes))


def transposed(m: Maker, x: Tensor) -> Tensor:
    c, h, w = x.shape
    if max(h, w) > 16:
        return x
    kernel, group, out = m.pick(2, 3, 4), m.pick(1, 1, 2), 8
    pad, extra = m.pick(0, 1) if kernel > 2 else 0, m.pick(0, 0, 1)
    m.kinds.append("transposed conv")
    weight = m.weight(c, out // group, kernel, kernel, fan_in=c // group * kernel**2 // 4)
    y = m.add(
        "ConvTranspose", x.name, weight, m.weight(out, gain=0.2), strides=[2, 2], pads=[pad] * 4, output_padding=[extra] * 2, group=group
    )
    return Tensor(activation(m, y), (out, *((s - 1) * 2 + kernel - 2 * pad + extra for s in (h, w))))


def twice_by_one_weight(m: Maker, x: Tensor) -> Tensor:
    """A layer that is applied again, and its weight as an output or as data."""
    c = x.shape[0]
    m.kinds.append("shared weight")
    w = m.weight(c, c, 3, 3, fan_in=9 * c)
    y = x.name
    for _ in range(m.pick(2, 3)):
        y = m.add("Tanh" if m.chance(0.5) else "Relu", m.add("Conv", y, w, pads=[1] * 4))
    if m.chance(0.4):
        m.kinds.append("weight as output")
        m.result(w, [c, c, 3, 3])
    if m.chance(0.3):
        m.kinds.append("weight as data")
        y = m.add("Mul", y, m.reduce("ReduceMean", m.add("Abs", w), [0, 1, 2, 3], 0))
    return Tensor(y, x.shape)


def pooled(m: Maker, x: Tensor) -> Tensor:
    c, h, w = x.shape
    if min(h, w) < 4:
        return x
    op, way = m.pick("MaxPool", "AveragePool"), m.pick("pads", "SAME_UPPER", "SAME_LOWER", "none")
    m.kinds.append(f"{op} {way}")
    if way.startswith("SAME"):
        return Tensor(m.add(op, x.name, kernel_shape=[3, 3], strides=[2, 2], auto_pad=way), (c, -(-h // 2), -(-w // 2)))
    pads = [1] * 4 if way == "pads" else [0] * 4
    more = {"count_include_pad": m.pick(0, 1)} if op == "AveragePool" else {}
    sizes = [(s + 2 * pads[0] - 3) // 2 + 1 for s in (h, w)]
    return Tensor(m.add(op, x.name, kernel_shape=[3, 3], strides=[2, 2], pads=pads, **more), (c, *sizes))


def padded(m: Maker, x: Tensor) -> Tensor:
    mode = m.pick("constant", "reflect", "edge")
    m.kinds.append(f"Pad {mode}")
    c, h, w = x.shape
    # what is reflected has to be there: ONNX allows no more of it than the axis has beside its edge
    most = [s - 1 if mode == "reflect" else 2 for s in (h, w)]
    before, after = ([0, 0, *(min(int(v), limit) for v, limit in zip(m.random.integers(0, 3, 2), most, strict=True))] for _ in range(2))
    return Tensor(m.pad(x.name, before + after, mode), (c, h + before[2] + after[2], w + before[3] + after[3]))


def moved(m: Maker, x: Tensor) -> Tensor:
    c, h, w = x.shape
    way = m.pick("transpose", "split", "slice", "depth", "enlarge", "concat", "gate", "norm", "tile", "gather", "prelu", "arithmetic")
    m.kinds.append(way)
    if way == "transpose":
        y = m.add("Relu", m.add("Transpose", x.name, perm=[0, 2, 3, 1]))
        return Tensor(m.add("Transpose", y, perm=[0, 3, 1, 2]), x.shape)
    if way == "split":
        a, b = m.split(x.name, 1, [c // 2, c - c // 2])
        return Tensor(m.add("Concat", activation(m, b), a, axis=1), x.shape)
    if way == "slice":
        return Tensor(m.slice(x.name, m.pick(2, -2), 1, 2**31), (c, h - 1, w)) if h > 4 else x
    if way == "depth":
        return Tensor(m.add("SpaceToDepth", x.name, blocksize=2), (4 * c, h // 2, w // 2)) if h % 2 == w % 2 == 0 and c <= 8 else x
    if way == "enlarge":
        return Tensor(m.enlarge(x.name, 4), (c, 2 * h, 2 * w)) if max(h, w) <= 12 else x
    if way == "concat":
        return Tensor(m.add("Concat", x.name, activation(m, x.name), axis=1), (2 * c, h, w)) if c <= 16 else x
    if way == "gate":
        gate = m.add("Conv", m.add("GlobalAveragePool", x.name), m.weight(c, c, 1, 1, fan_in=c))
        return Tensor(m.add("Mul", x.name, m.add("Sigmoid", gate)), x.shape)
    if way == "norm":
        return Tensor(m.add("InstanceNormalization", x.name, m.weight(c, gain=0.2, mean=1.0), m.weight(c, gain=0.2)), x.shape)
    if way == "tile":
        return Tensor(m.add("Tile", x.name, m.ints(1, 1, 1, 2)), (c, h, 2 * w)) if w <= 12 else x
    if way == "gather":
        order = m.random.permutation(c)
        return Tensor(m.add("Gather", x.name, m.ints(*map(int, order)), axis=1), x.shape)
    if way == "prelu":
        return Tensor(m.add("PRelu", x.name, m.weight(c, 1, 1, gain=0.1, mean=0.2)), x.shape)
    op = m.pick("Add", "Sub", "Mul", "Div", "Max", "Min") if m.opset >= 8 else m.pick("Add", "Sub", "Mul", "Div")
    other = m.weight(*m.pick((c, 1, 1), (1,), (1, c, 1, 1)), gain=0.2, mean=1.0)
    return Tensor(m.add(op, x.name, other), x.shape)


def residual(m: Maker, x: Tensor) -> Tensor:
    c = x.shape[0]
    m.kinds.append("residual")
    y = m.add("Conv", x.name, m.weight(c, c, 3, 3, fan_in=9 * c), m.weight(c, gain=0.2), pads=[1] * 4)
    return Tensor(activation(m, m.add("Add", y, x.name)), x.shape)


def quantized(m: Maker, x: Tensor) -> Tensor:
    """Q/DQ as trained with quantization: around a convolution, its weight, too."""
    if m.opset < 13:  # one scale for each channel came with it
        return x
    c = x.shape[0]
    m.kinds.append("Q/DQ")
    values = (m.random.standard_normal((c, c, 3, 3)) / np.sqrt(9 * c)).astype(np.float32)
    scales = (np.abs(values).max((1, 2, 3)) / 127).astype(np.float32)
    integers = np.round(values / scales[:, None, None, None]).astype(np.int8)
    given = [m.const(integers, "q"), m.const(scales, "scale"), m.const(np.zeros(c), "zero", np.int8)]
    w = m.add("DequantizeLinear", *given, axis=0)
    return Tensor(m.add("Relu", m.add("Conv", m.quantized(x.name, 4.0), w, m.weight(c, gain=0.2), pads=[1] * 4)), x.shape)


def chosen(m: Maker, x: Tensor) -> Tensor:
    """An If that reads from outside, by a condition that is computed or constant."""
    m.kinds.append("If")
    total = m.reduce("ReduceSum", x.name, list(range(x.rank)), 0)
    condition = m.add("Greater", total, m.const(0.0, "c", np.float32)) if m.opset >= 9 and m.chance(0.7) else m.const(True, "c", np.bool_)
    c, bodies = x.shape[0 if x.rank == 4 else -1], []
    outside = m.weight(*((c, c, 1, 1) if x.rank == 4 else (c, c)), fan_in=c)
    for op in ("Relu", "Tanh"):
        name = m.fresh("branch")
        layer = helper.make_node("Conv" if x.rank == 4 else "MatMul", [x.name, outside], [f"{name}_c"], name=f"{name}/layer")
        nodes = [layer, helper.make_node(op, [f"{name}_c"], [f"{name}_y"], name=f"{name}/{op}")]
        bodies.append(helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(f"{name}_y", FLOAT, None)]))
    return Tensor(m.add("If", condition, then_branch=bodies[0], else_branch=bodies[1]), x.shape)


def looped(m: Maker, x: Tensor) -> Tensor:
    """A Loop of a few rounds with one state."""
    if m.opset < 11:
        return x
    m.kinds.append("Loop")
    name = m.fresh("loop")
    inputs = [helper.make_tensor_value_info(f"{name}_{n}", *spec) for n, spec in (("i", (INT64, [])), ("go", (TensorProto.BOOL, [])))]
    inputs.append(helper.make_tensor_value_info(f"{name}_state", FLOAT, None))
    outputs = [
        helper.make_tensor_value_info(f"{name}_on", TensorProto.BOOL, []),
        helper.make_tensor_value_info(f"{name}_next", FLOAT, None),
    ]
    half = m.const(0.5, "c", np.float32)
    nodes = [
        helper.make_node("Identity", [f"{name}_go"], [f"{name}_on"]),
        helper.make_node("Tanh", [f"{name}_state"], [f"{name}_t"]),
        helper.make_node("Mul", [f"{name}_t", half], [f"{name}_next"]),
    ]
    body = helper.make_graph(nodes, name, inputs, outputs)
    return Tensor(m.add("Loop", m.const(m.pick(1, 2, 3), "n", np.int64), m.const(True, "c", np.bool_), x.name, body=body), x.shape)


# ---- sequences and vectors


def linear(m: Maker, x: Tensor) -> Tensor:
    c, out = x.shape[-1], m.pick(12, 16)
    form = m.pick("MatMul", "Gemm", "transposed") if x.rank == 2 else m.pick("MatMul", "turned")
    m.kinds.append(form)
    if form == "MatMul":
        y = m.add("Add", m.add("MatMul", x.name, m.weight(c, out, fan_in=c)), m.weight(out, gain=0.2))
    elif form == "turned":  # a weight that is computed
        y = m.add("MatMul", x.name, m.add("Transpose", m.weight(out, c, fan_in=c), perm=[1, 0]))
    elif form == "Gemm":
        y = m.add("Gemm", x.name, m.weight(c, out, fan_in=c), m.weight(out, gain=0.2), alpha=m.pick(1.0, 0.5), beta=m.pick(1.0, 2.0))
    else:
        y = m.add("Gemm", x.name, m.weight(out, c, fan_in=c), m.weight(out, gain=0.2), transB=1)
    return Tensor(activation(m, y), (*x.shape[:-1], out))


def tied(m: Maker, x: Tensor) -> Tensor:
    """There and back by one matrix, which may be an output, too."""
    c = x.shape[-1]
    m.kinds.append("shared weight")
    w = m.weight(c, c, fan_in=c)
    y = m.add("MatMul", m.add("Tanh", m.add("MatMul", x.name, w)), w)
    if m.chance(0.4):
        m.kinds.append("weight as output")
        m.result(w, [c, c])
    return Tensor(m.add("Add", y, x.name), x.shape)


def normed(m: Maker, x: Tensor) -> Tensor:
    c = x.shape[-1]
    m.kinds.append("norm")
    if m.opset >= 17 and m.chance(0.5):
        y = m.add("LayerNormalization", x.name, m.weight(c, gain=0.2, mean=1.0), m.weight(c, gain=0.2), axis=-1)
        return Tensor(y, x.shape)
    axis = x.rank - 1
    off = m.add("Sub", x.name, m.reduce("ReduceMean", x.name, [axis], 1))
    square = m.add("Mul", off, off) if m.chance(0.5) else m.add("Pow", off, m.const(2.0, "c", np.float32))
    deviation = m.add("Sqrt", m.add("Add", m.reduce("ReduceMean", square, [axis], 1), m.const(1e-5, "c", np.float32)))
    return Tensor(m.add("Mul", m.add("Div", off, deviation), m.weight(c, gain=0.2, mean=1.0)), x.shape)


def attention(m: Maker, x: Tensor) -> Tensor:
    if x.rank != 3:
        return x
    t, c = x.shape
    heads, size = 2, c // 2
    m.kinds.append("attention")
    parts = []
    for _ in range(3):
        y = m.add("MatMul", x.name, m.weight(c, heads * size, fan_in=c))
        parts.append(m.add("Transpose", m.reshape(y, -1, t, heads, size), perm=[0, 2, 1, 3]))
    scores = m.add("MatMul", parts[0], m.add("Transpose", parts[1], perm=[0, 1, 3, 2]))
    scores = m.add(m.pick("Mul", "Div"), scores, m.const(1.0, "c", np.float32))
    if m.chance(0.4):
        m.kinds.append("mask")
        scores = m.add("Add", scores, m.const(np.triu(np.full((t, t), m.pick(-1e4, -1e9)), 1), "mask", np.float32))
    weights = m.add("Softmax", scores, axis=3 if m.opset < 13 else m.pick(3, -1))
    y = m.reshape(m.add("Transpose", m.add("MatMul", weights, parts[2]), perm=[0, 2, 1, 3]), -1, t, heads * size)
    return Tensor(m.add("Add", m.add("MatMul", y, m.weight(heads * size, c, fan_in=c)), x.name), x.shape)


def recurrent(m: Maker, x: Tensor) -> Tensor:
    """[N, T, C] -> the same with another C; the operator wants time first."""
    if x.rank != 3:
        return x
    t, c = x.shape
    op, hidden, both = m.pick("LSTM", "GRU", "RNN"), 8, m.chance(0.4)
    m.kinds.append(f"{op} {'both ways' if both else 'forward'}")
    gates, ways = {"LSTM": 4, "GRU": 3, "RNN": 1}[op], 1 + both
    given = [m.weight(ways, gates * hidden, c, fan_in=c), m.weight(ways, gates * hidden, hidden, fan_in=hidden)]
    if m.chance(0.7):
        given.append(m.weight(ways, 2 * gates * hidden, gain=0.2))
    more = {"linear_before_reset": m.pick(0, 1)} if op == "GRU" else {}
    direction = "bidirectional" if both else m.pick("forward", "reverse")
    y = m.add(op, m.add("Transpose", x.name, perm=[1, 0, 2]), *given, hidden_size=hidden, direction=direction, **more)  # [T, ways, N, H]
    return Tensor(m.reshape(m.add("Transpose", y, perm=[2, 0, 1, 3]), -1, t, ways * hidden), (t, ways * hidden))


def rearranged(m: Maker, x: Tensor) -> Tensor:
    c, axis = x.shape[-1], x.rank - 1
    way = m.pick("split", "slice", "squeeze", "Where", "concat", "Dropout", "Expand", "arithmetic")
    m.kinds.append(way)
    if way == "split":
        a, b = m.split(x.name, axis, [c // 2, c - c // 2])
        return Tensor(m.add("Concat", b, activation(m, a), axis=axis), x.shape)
    if way == "slice":
        return Tensor(m.slice(x.name, axis, 1, 2**31), (*x.shape[:-1], c - 1)) if c > 6 else x
    if way == "squeeze":
        return Tensor(m.squeeze("Squeeze", m.add("Relu", m.squeeze("Unsqueeze", x.name, 1)), 1), x.shape)
    if way == "Where" and m.opset >= 9:
        above = m.add("Greater", x.name, m.const(0.0, "c", np.float32))
        return Tensor(m.add("Where", above, x.name, m.add("Mul", x.name, m.const(0.1, "c", np.float32))), x.shape)
    if way == "concat":
        return Tensor(m.add("Concat", x.name, activation(m, x.name), axis=axis), (*x.shape[:-1], 2 * c)) if c <= 16 else x
    if way == "Dropout":
        return Tensor(m.add("Dropout", x.name), x.shape)
    if way == "Expand" and m.opset >= 8:
        return Tensor(m.add("Add", x.name, m.add("Expand", m.weight(1, gain=0.3), m.ints(c))), x.shape)
    return Tensor(m.add(m.pick("Add", "Mul", "Sub"), x.name, m.weight(c, gain=0.2, mean=1.0)), x.shape)


IMAGES = (conv, conv, conv, conv, transposed, twice_by_one_weight, pooled, padded, moved, moved, moved, residual, quantized, chosen, looped)
ROWS = (linear, linear, linear, tied, normed, attention, attention, recurrent, rearranged, rearranged, chosen, looped)


def trunk(m: Maker, x: Tensor, parts) -> Tensor:
    for _ in range(m.pick(1, 1, 2) if m.parts else m.pick(2, 3, 4, 5)):
        x = m.pick(*(m.parts or parts))(m, x)
    return x


def head(m: Maker, x: Tensor) -> None:
    """One or two outputs of different kinds."""
    c = x.shape[0] if x.rank == 4 else x.shape[-1]
    if x.rank == 4:
        y = m.add("Conv", x.name, m.weight(5, c, 1, 1, fan_in=c), m.weight(5, gain=0.2))
        kind = m.pick("map", "pooled", "argmax")
        if kind == "map":
            return m.result(activation(m, y), ["N", 5, *x.shape[1:]])
        if kind == "argmax":
            m.kinds.append("ArgMax")
            m.result(y, ["N", 5, *x.shape[1:]])
            return m.result(m.add("ArgMax", y, axis=1, keepdims=0), ["N", *x.shape[1:]], INT64)
        return m.result(m.add("Softmax", m.add("Flatten", m.add("GlobalAveragePool", y)), axis=1), ["N", 5])
    if x.rank == 3:
        y = m.add("MatMul", x.name, m.weight(c, 6, fan_in=c))
        m.result(y if m.chance(0.5) else m.add("Softmax", y, axis=2), ["N", x.shape[0], 6])
        return None
    y = m.add("Gemm", x.name, m.weight(c, 6, fan_in=c), m.weight(6, gain=0.2))
    if m.opset >= 11 and m.chance(0.2):
        m.kinds.append("TopK")
        values, places = m.node("TopK", [y, m.ints(3)], 2, axis=1)
        m.result(values, ["N", 3])
        return m.result(places, ["N", 3], INT64)
    return m.result(y, ["N", 6])


def images(m: Maker):
    c, h, w = m.pick(1, 3, 3), m.pick(10, 12, 15), m.pick(10, 12)
    start = m.add("Conv", "x", m.weight(8, c, 3, 3, fan_in=9 * c), m.weight(8, gain=0.2), pads=[1] * 4)
    x = trunk(m, Tensor(m.add("Relu", start), (8, h, w)), IMAGES)
    head(m, x)
    coarse = m.random.random((4, c, -(-h // 4), -(-w // 4)))

    def feed(random: np.random.Generator) -> dict[str, np.ndarray]:
        mixed = np.einsum("k,kcij->cij", random.dirichlet(np.ones(4)), coarse).repeat(4, 1).repeat(4, 2)[:, :h, :w]
        return {"x": (0.7 * mixed + 0.3 * random.random((c, h, w)))[None].astype(np.float32)}

    return {"x": (FLOAT, ["N", c, h, w])}, feed


def sequences(m: Maker):
    t, c = m.pick(6, 8), m.pick(12, 16)
    if m.chance(0.4):
        m.kinds.append("embedding")
        start = m.add("Gather", m.weight(30, c), "x", axis=0)
    else:
        start = "x"
    head(m, trunk(m, Tensor(start, (t, c)), ROWS))
    if start != "x":
        return {"x": (INT64, ["N", t])}, lambda random: {"x": random.integers(0, 30, (1, t))}
    mixing = m.random.standard_normal((4, c))
    return {"x": (FLOAT, ["N", t, c])}, lambda random: {"x": _mixed(random, (1, t), mixing)}


def vectors(m: Maker):
    c = m.pick(12, 16, 24)
    mixing = m.random.standard_normal((4, c))
    head(m, trunk(m, Tensor("x", (c,)), ROWS))
    return {"x": (FLOAT, ["N", c])}, lambda random: {"x": _mixed(random, (1,), mixing)}


def _mixed(random: np.random.Generator, shape: tuple[int, ...], mixing: np.ndarray) -> np.ndarray:
    """Features that are mixtures of a few signals, and some noise."""
    values = random.standard_normal((*shape, len(mixing))) @ mixing + 0.2 * random.standard_normal((*shape, mixing.shape[1]))
    return values.astype(np.float32)
