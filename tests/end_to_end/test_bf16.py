"""BF16: networks that overflow FP16 keep no layer in FP32 for their range there, and compute what the model computes."""

import numpy as np
import onnx
import pytest
from command import onnx2trt
from models import conv_net, model, node, profiles, random
from overflowing_nets import NETS

from onnx2trt.model.graph import Graph
from onnx2trt.model.half_types import BF16, FP16
from onnx2trt.model.maxima import absolute_maxima
from onnx2trt.model.session import Session
from onnx2trt.rewrite.fp16 import convert
from onnx2trt.rewrite.keep_fp32 import choose_kept_fp32
from onnx2trt.rewrite.simulate import simulation

LIMIT = 0.01  # --max-accuracy-drop by default


@pytest.mark.parametrize("name", NETS)
def test_nothing_is_kept_in_fp32_for_its_range(name):
    graph = Graph.from_model(NETS[name])
    shapes = {value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim) for value in graph.proto.graph.input}
    feed = {of: random(*shape, seed=9) for of, shape in shapes.items()}
    maxima = absolute_maxima(graph, profiles(**shapes), lambda: [feed])
    assert choose_kept_fp32(graph, maxima, ()), "it is too much for FP16"
    assert choose_kept_fp32(graph, maxima, (), BF16) == {}
    expected = Session.from_graph(graph).run(feed)["y"]
    errors = [error(expected, simulation(convert(graph, {}, half=half)), feed) for half in (BF16, FP16)]
    assert 0 < errors[0] <= LIMIT < errors[1]


def error(expected: np.ndarray, graph: Graph, feed) -> float:
    """Energy of the error, relative to that of the output; infinite where a value is NaN or infinite."""
    found = Session.from_graph(graph).run(feed)["y"]
    return float(np.square(found - expected).sum() / np.square(expected).sum()) if np.isfinite(found).all() else np.inf


@pytest.fixture
def converted(tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")

    def run(source, *flags):
        onnx.save(source, tmp_path / "net.onnx")
        done = onnx2trt(tmp_path, "--onnx", "net.onnx", "--json", "r.json", *flags)
        return done, done.json("r.json")

    return run


@pytest.mark.real
@pytest.mark.parametrize("name", ["RMSNorm", "late scale"])
def test_engines_of_both_types(converted, name):
    done, result = converted(NETS[name], "--precision", "bf16")
    precision = result["precision"]
    assert done.code == 0 and precision["delivered"] == precision["requested"] == "bf16" and precision["fallback"] == []
    assert precision["bf16_mac_share"] == 1 and set(precision["layers"]) - {"int8", "fp16", "fp32"} == {"bf16"}
    assert precision["layers"]["fp32"] == precision["layers"]["fp16"] == 0
    assert max(row["drop_percent"] for row in result["accuracy"]) <= 1
    done, result = converted(NETS[name], "--precision", "fp16")
    assert "--precision bf16 has that of FP32" in done.stderr + done.stdout and done.code == 0
    assert result["precision"]["fallback"] and "bf16_mac_share" not in result["precision"]


@pytest.mark.real
def test_layers_can_be_bound_and_inputs_be_fp16(converted):
    done, result = converted(
        conv_net(batch=1), "--precision", "bf16", "--layer-precisions", "stem:fp32", "--io-types", "x:fp16", "--save-onnx", "p.onnx"
    )
    assert done.code == 0, done.stderr
    assert [(entry["name"], entry["precision"]) for entry in result["precision"]["fallback"]] == [("stem", "fp32")]


@pytest.mark.real
@pytest.mark.parametrize("operator, gates", [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_a_recurrent_layer_in_fp32_stands_between_layers_of_16_bits(converted, operator, gates):
    """The library's parser reads sequence_lens in FP32 alone; and GRU in BF16 not at all."""
    inner = [
        node("MatMul", "x first", "a", "before"),
        node(operator, "a w r bias lengths", "h", "recurrent", hidden_size=16),
        node("Squeeze", "h axis", "s", "squeeze"),
        node("MatMul", "s last", "y", "behind"),
    ]
    weights = {"first": random(8, 8), "w": random(1, gates * 16, 8, scale=0.3), "r": random(1, gates * 16, 16, scale=0.3)}
    weights |= {"bias": random(1, 2 * gates * 16, scale=0.1), "last": random(16, 4)}
    weights |= {"axis": np.array([1]), "lengths": np.array([6, 4], np.int32)}
    source = model(inner, {"x": [6, 2, 8]}, {"y": [6, 2, 4]}, weights)
    for precision in ("fp16", "bf16"):
        done, result = converted(source, "--precision", precision)
        assert done.code == 0, done.stderr
        assert [entry["name"] for entry in result["precision"]["fallback"]] == ["recurrent"]
        assert result["precision"]["delivered"] == precision and max(row["drop_percent"] for row in result["accuracy"]) <= 1
