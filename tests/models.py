"""Small ONNX models made in the tests, and what they compute."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT


def model(nodes, inputs, outputs, weights=None, opset=17) -> onnx.ModelProto:
    """A model from nodes; inputs and outputs as {name: shape} or {name: (elem_type, shape)}, weights as arrays."""

    def values(specs):
        pairs = {name: spec if isinstance(spec, tuple) else (FLOAT, spec) for name, spec in specs.items()}
        return [helper.make_tensor_value_info(name, elem_type, shape) for name, (elem_type, shape) in pairs.items()]

    initializers = [numpy_helper.from_array(np.asarray(array), name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(nodes, "test", values(inputs), values(outputs), initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def node(op: str, inputs, outputs, name: str = "", **attributes) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), name=name, **attributes)


def random(*shape, seed=0, scale=1.0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def correlated(channels: int, positions: int, seed: int, mean=0.0) -> np.ndarray:
    """Values [channels, positions] of channels that are mixtures of the same four signals, as those of real networks are."""
    random = np.random.default_rng(seed)
    mixed = random.standard_normal((channels, 4)) @ random.standard_normal((4, positions))
    return (mixed + mean).astype(np.float32)


def mixed(channels: int, size: int, seed: int) -> np.ndarray:
    """An input [1, channels, size, size] of standard deviation 1 whose channels are the same mixtures of a few signals in every sample,
    with some noise: what fitted weights have a use for."""
    random = np.random.default_rng([seed, channels])
    mixing = np.random.default_rng(channels).standard_normal((channels, 4)) / 2
    values = mixing @ random.standard_normal((4, size * size)) + 0.2 * random.standard_normal((channels, size * size))
    return values.reshape(1, channels, size, size).astype(np.float32)


def conv_net(batch="N", size=16, classes=4, opset=17) -> onnx.ModelProto:
    """Conv, ReLU, depthwise Conv, ReLU, 1x1 Conv: [N, 3, size, size] -> [N, classes, size, size]."""
    nodes = [
        node("Conv", "x w1 b1", "c1", "stem", pads=[1, 1, 1, 1]),
        node("Relu", "c1", "r1", "stem_relu"),
        node("Conv", "r1 w2 b2", "c2", "depthwise", group=16, pads=[1, 1, 1, 1]),
        node("Relu", "c2", "r2", "depthwise_relu"),
        node("Conv", "r2 w3 b3", "y", "head"),
    ]
    weights = {
        "w1": random(16, 3, 3, 3, seed=1, scale=0.3),
        "b1": random(16, seed=2, scale=0.1),
        "w2": random(16, 1, 3, 3, seed=3, scale=0.3),
        "b2": random(16, seed=4, scale=0.1),
        "w3": random(classes, 16, 1, 1, seed=5, scale=0.3),
        "b3": random(classes, seed=6, scale=0.1),
    }
    return model(nodes, {"x": [batch, 3, size, size]}, {"y": [batch, classes, size, size]}, weights, opset)


def multiplication_chain(factors=(300.0, 400.0, 1e-3, 1e-2)) -> onnx.ModelProto:
    """x times each factor in turn; the default passes through 1.2e5 and comes back to 1.2."""
    names = ["x", *(f"t{i}" for i in range(1, len(factors))), "y"]
    nodes = [node("Mul", f"{names[i]} f{i}", names[i + 1], f"mul{i}") for i in range(len(factors))]
    return model(nodes, {"x": [1, 8]}, {"y": [1, 8]}, {f"f{i}": np.float32(value) for i, value in enumerate(factors)})


def plugin_net() -> onnx.ModelProto:
    """A convolution, and GELU by a plugin of TensorRT that ONNX does not know."""
    gelu = node("CustomGeluPluginDynamic", "c", "y", "gelu", type_id=0, plugin_version="1", plugin_namespace="")
    gelu.domain = "trt.plugins"
    source = model([node("Conv", "x w", "c", "conv"), gelu], {"x": [1, 3, 8, 8]}, {"y": [1, 8, 8, 8]}, {"w": random(8, 3, 1, 1)})
    source.opset_import.append(helper.make_opsetid("trt.plugins", 1))
    return source


def layer_norm(opset=13) -> onnx.ModelProto:
    """MatMul and a layer normalisation written out in single operators."""
    nodes = [
        node("MatMul", "x w", "m", "project"),
        node("ReduceMean", "m", "mean", "mean", axes=[-1]),
        node("Sub", "m mean", "d", "center"),
        node("Pow", "d two", "sq", "square"),
        node("ReduceMean", "sq", "var", "variance", axes=[-1]),
        node("Add", "var eps", "ve", "epsilon"),
        node("Sqrt", "ve", "sd", "root"),
        node("Div", "d sd", "y", "divide"),
    ]
    weights = {"w": random(8, 8), "two": np.float32(2), "eps": np.float32(1e-5)}
    return model(nodes, {"x": ["N", 8]}, {"y": ["N", 8]}, weights, opset)


def profiles(**shapes):
    """Fixed profiles: profiles(x=(1, 3, 8, 8))."""
    from onnx2trt.base.model_info import Profile

    return tuple(Profile(name, shape, shape, shape) for name, shape in shapes.items())


def offset_net(size=16, offset=2000.0) -> onnx.ModelProto:
    """Convolutions around + offset - offset, where FP16 loses ten bits within its range: [1, 3, size, size] -> [1, 4, size, size]."""
    nodes = [
        node("Conv", "x w1", "c1", "stem", pads=[1, 1, 1, 1]),
        node("Relu", "c1", "r1", "stem_relu"),
        node("Add", "r1 offset", "far", "away"),
        node("Sub", "far offset", "near", "back"),
        node("Conv", "near w2", "c2", "body", pads=[1, 1, 1, 1]),
        node("Relu", "c2", "r2", "body_relu"),
        node("Conv", "r2 w3", "y", "head"),
    ]
    weights = {
        "w1": random(8, 3, 3, 3, seed=1, scale=0.3),
        "w2": random(8, 8, 3, 3, seed=2, scale=0.2),
        "w3": random(4, 8, 1, 1, seed=3, scale=0.3),
        "offset": np.float32(offset),
    }
    return model(nodes, {"x": [1, 3, size, size]}, {"y": [1, 4, size, size]}, weights)


# ---- what they compute


def in_fp16(source: onnx.ModelProto, feed, overrides=(), measured=True, made_up=False):
    """(FP32 graph, FP16 graph, what was kept in FP32 and why) with ranges measured on one feed."""
    from onnx2trt.model.graph import Graph
    from onnx2trt.model.half_types import FP16
    from onnx2trt.model.maxima import absolute_maxima
    from onnx2trt.rewrite.fp16 import convert
    from onnx2trt.rewrite.keep_fp32 import choose_kept_fp32

    graph = Graph.from_model(source)
    maxima = absolute_maxima(graph, profiles(**{name: array.shape for name, array in feed.items()}), lambda: [feed])
    kept_fp32 = choose_kept_fp32(graph, maxima, overrides, FP16 if measured else None, made_up=made_up)
    return graph, convert(graph, kept_fp32), kept_fp32


def weight_and_axis(graph, name: str) -> tuple[np.ndarray, int | None]:
    """(the weights that a node reads, the axis of their output channels)"""
    from onnx2trt.rewrite.qdq import weight_axis

    layer = next(node for node in graph.nodes if node.name == name)
    weight = graph.weights[layer.input[1]]
    return weight, weight_axis(layer, weight.ndim)


def outputs_of(graph, feed) -> list[np.ndarray]:
    """What ONNX Runtime makes of one feed, output by output."""
    from onnx2trt.model.session import Session

    return list(Session.from_graph(graph).run(feed).values())


def executed(work, folder, monkeypatch) -> list[str]:
    """The operators of the first session that `work` loads, in the order in which ONNX Runtime takes them."""
    import onnxruntime as ort

    made, real = [], ort.InferenceSession

    class Profiled(real):
        def __init__(self, source, options, **more):
            options.enable_profiling, options.profile_file_prefix = True, str(folder / "profile")
            super().__init__(source, options, **more)
            made.append(self)

    with monkeypatch.context() as patched:
        patched.setattr(ort, "InferenceSession", Profiled)
        work()
    events = json.loads(Path(made[0].end_profiling()).read_text())
    kernels = [event for event in events if event.get("name", "").endswith("_kernel_time")]
    return [event["args"]["op_name"] for event in sorted(kernels, key=lambda event: event["ts"])]


def stepped(kind: str):
    """A recurrence h = tanh(h w + x), three times, as a Loop or over the rows of x, with a weight that is captured and one of its own."""
    inner = [node("MatMul", "h w", "m", "matmul"), node("Add", "m b", "a", "add")]
    values = {"h": (FLOAT, [2, 3]), "row": (FLOAT, [2, 3]), "i": (TensorProto.INT64, []), "go": (TensorProto.BOOL, [])}

    def infos(*names):
        return [helper.make_tensor_value_info(name, *values.get(name, (FLOAT, [2, 3]))) for name in names]

    own = [numpy_helper.from_array(random(3, seed=5, scale=0.3), "b")]
    if kind == "Scan":
        inner += [node("Add", "a row", "s", "join"), node("Tanh", "s", "h2", "tanh"), node("Neg", "h2", "out", "neg")]
        body = helper.make_graph(inner, "body", infos("h", "row"), infos("h2", "out"), own)
        nodes = [helper.make_node("Scan", ["start", "x"], ["y", "z"], name="scan", body=body, num_scan_inputs=1)]
        outputs = {"y": [2, 3], "z": [4, 2, 3]}
    else:
        inner += [node("Add", "a half", "s", "join"), node("Tanh", "s", "h2", "tanh"), node("Identity", "go", "go2", "id")]
        values["go2"] = values["go"]
        body = helper.make_graph(inner, "body", infos("i", "go", "h"), infos("go2", "h2"), own)
        nodes = [node("ReduceMean", "x", "half", "mean", axes=[0], keepdims=0)]
        nodes.append(helper.make_node("Loop", ["three", "true", "start"], ["y"], name="loop", body=body))
        outputs = {"y": [2, 3]}
    weights = {"w": random(3, 3, seed=6, scale=0.5), "three": np.array(3), "true": np.array(True)}
    return model(nodes, {"x": [4, 2, 3], "start": [2, 3]}, outputs, weights)
