"""pipeline/refused.py: what TensorRT lacks is known before anything long begins, and what it takes in FP32 only stays in FP32."""

import numpy as np
import onnx
import pytest
from command import onnx2trt
from helpers import planned
from models import model, node, random
from random_networks import random_network, write

from onnx2trt.conversion.run import Run
from onnx2trt.model.graph import Graph
from onnx2trt.pipeline import int8, prepare
from onnx2trt.pipeline import refused as refusing
from onnx2trt.rewrite.qdq import int8_layers
from onnx2trt.rewrite.refused import ALONE, Refused
from onnx2trt.trt.parser_errors import Refusal

LONG = ("measuring ranges", "calibrating", "choosing")
HALF = onnx.TensorProto.FLOAT16


class Parser:
    """Refuses some nodes in INT8 and some in FP16.

    Args:
        at_once: it names all that it refuses; else the first.
    """

    def __init__(self, in_int8=(), in_fp16=(), in_fp32=(), at_once=True):
        self.in_int8, self.in_fp16, self.in_fp32, self.at_once, self.parsed = set(in_int8), set(in_fp16), set(in_fp32), at_once, []

    def refuses(self, graph: Graph) -> list[str]:
        types, dequantized = graph.types(), {name for one in graph.nodes if one.op_type == "DequantizeLinear" for name in one.output}
        bad = []
        for one in graph.nodes:
            reads_int8 = not dequantized.isdisjoint(one.input)
            half = any(types.get(name) == HALF for name in (*one.input, *one.output))
            if one.name in self.in_fp32 or reads_int8 and one.name in self.in_int8 or half and one.name in self.in_fp16:
                bad.append(one.name)
        return bad

    def __call__(self, job, graph: Graph, io, run: Run) -> None:
        self.parsed.append(graph)
        bad = self.refuses(graph)
        if bad:
            raise Refusal("no", "", dict.fromkeys(bad if self.at_once else bad[:1], "odd"))


@pytest.fixture
def choose(tmp_path, monkeypatch):
    """(choice, run) of model.onnx in the current folder, by a made-up parser; nothing is measured, so no node is kept for its values."""
    monkeypatch.chdir(tmp_path)

    def choose_by(parser: Parser, *flags: str):
        monkeypatch.setattr(refusing, "parse_ahead", parser)
        job, run = planned("--no-validate", "--disable-strict-types", *flags, library="rtx")
        object.__setattr__(job, "library", object())
        return (int8 if job.quantizes else prepare).choose(job, run), run

    return choose_by


def draw(seed: int, names: list[str], count: int) -> set[str]:
    return set(np.random.default_rng(seed).permutation(names)[:count].tolist())


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_fp16_is_left_to_what_the_parser_takes(seed, at_once, choose):
    write(random_network(seed), ".")
    choice, _ = choose(Parser(), "--precision", "fp16")
    lowered = [one.name for one in choice.graph.nodes]
    refused = draw(seed, lowered, ALONE)
    parser = Parser(in_fp16=refused, at_once=at_once)
    choice, run = choose(parser, "--precision", "fp16")
    prepared = choice.prepared(run)
    assert parser.refuses(prepared.graph) == []
    kept = {name for name, precision, reason in prepared.fallback if "parser refuses it in FP16: odd" in reason}
    assert kept <= refused and all(name in "".join(run.console.warnings) for name in kept)
    assert {name for name, _, _ in prepared.fallback} == kept, "nothing else is given up"


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_int8_is_left_to_what_the_parser_takes(seed, at_once, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(random_network(seed), ".")
    job, run = planned("--precision", "int8", "--calibration-dir", "data", library="rtx")
    object.__setattr__(job, "library", object())
    choice = object.__new__(int8.Int8Choice)  # of which only the form is looked at
    choice.job, choice._graph, choice._all_layers, choice._others = job, int8.graph_to_quantize(job, run), False, ()
    form = choice._form(Refused())
    dequantized = {name for one in form.nodes if one.op_type == "DequantizeLinear" for name in one.output}
    reading = [one.name for one in form.nodes if not dequantized.isdisjoint(one.input)]
    parser = Parser(in_int8=draw(seed, reading, 3), in_fp16=draw(seed + 1, reading, 1), at_once=at_once)
    monkeypatch.setattr(refusing, "parse_ahead", parser)
    refused = refusing.find_refused(job, choice._graph, choice._form, run)
    assert parser.refuses(choice._form(refused)) == []
    assert parser.in_int8 <= refused.without_int8.keys()
    if at_once:
        assert all(name in " ".join(run.console.warnings) for name in refused.without_int8)
        assert refused.without_int8.keys() == parser.in_int8 | parser.in_fp16 and refused.in_fp32.keys() <= parser.in_fp16


def test_weak_typing_has_only_int8_to_give_up(tmp_path, monkeypatch):
    """Its graph is FP32 around Q/DQ, whatever TensorRT makes of it."""
    monkeypatch.chdir(tmp_path)
    onnx.save(real_net("Relu"), "model.onnx")
    np.savez("a.npz", x=random(1, 3, 32, 32))
    job, run = planned("--precision", "int8", "--quantization", "qdq", "--calibration-dir", ".", library="weak")
    object.__setattr__(job, "library", object())
    choice = object.__new__(int8.Int8Choice)
    choice.job, choice._graph, choice._all_layers, choice._others = job, int8.graph_to_quantize(job, run), False, ()
    monkeypatch.setattr(refusing, "parse_ahead", Parser(in_int8=["second"]))
    refused = refusing.find_refused(job, choice._graph, choice._form, run)
    assert refused.without_int8.keys() == {"second"} and not refused.in_fp32
    assert int8_layers(choice._form(refused)) == {"first"}


def test_the_engine_is_made_without_what_the_parser_refuses_in_int8(choose):
    onnx.save(real_net("Relu"), "model.onnx")
    np.savez("a.npz", x=random(1, 3, 32, 32))
    flags = ("--precision", "int8", "--calibration-dir", ".", "--quantization-effort", "fast")
    choice, run = choose(Parser(in_int8=["second"]), *flags)
    prepared = choice.prepared(run)
    assert int8_layers(prepared.graph) == {"first"}
    assert [entry for entry in prepared.fallback if entry[0] == "second"] == [
        ("second", "fp16", "TensorRT's parser refuses it in INT8: odd")
    ]
    again = choice.without_refused(Refusal("no", "", {"first": "odd"}), prepared, run)
    assert int8_layers(again.graph) == set() and {entry[0] for entry in again.fallback} == {"first", "second"}


def test_what_the_fp32_model_is_refused_for_is_the_error(choose):
    onnx.save(model([node("Relu", "x", "a", "one"), node("Relu", "a", "y", "two")], {"x": [1, 4]}, {"y": [1, 4]}), "model.onnx")
    with pytest.raises(Refusal) as caught:
        choose(Parser(in_fp16=["one"], in_fp32=["two"]), "--precision", "fp16")
    assert caught.value.nodes.keys() == {"two"}


def test_one_parse_where_all_is_taken(choose):
    parser = Parser()
    onnx.save(model([node("Relu", "x", "y", "one")], {"x": [1, 4]}, {"y": [1, 4]}), "model.onnx")
    choose(parser, "--precision", "fp16")
    assert len(parser.parsed) == 1


def test_what_the_parser_refuses_only_of_the_final_form_is_given_up_then(choose):
    """The form that was parsed ahead had no node in FP32 for its values."""
    onnx.save(model([node("Relu", "x", "a", "one"), node("Tanh", "a", "y", "two")], {"x": [1, 4]}, {"y": [1, 4]}), "model.onnx")
    choice, run = choose(Parser(), "--precision", "fp16")
    prepared = choice.without_refused(Refusal("no", "", {"two": "odd"}), choice.prepared(run), run)
    assert [(name, precision) for name, precision, _ in prepared.fallback] == [("two", "fp32")]
    assert run.console.warnings[-1] == "kept in FP32: 'two': TensorRT's parser refuses it in FP16: odd"
    with pytest.raises(Refusal):
        choice.without_refused(Refusal("no", "", {"two": "odd"}), prepared, run)


# ---- the real parser


def real_net(operator="MeanVarianceNormalization", channels=8):
    """Two convolutions around an operator."""
    nodes = [
        node("Conv", "x w", "a", "first", pads=[1] * 4),
        node(operator, "a", "b", "between"),
        node("Conv", "b w2", "y", "second", pads=[1] * 4),
    ]
    weights = {"w": random(channels, 3, 3, 3, scale=0.2), "w2": random(channels, channels, 3, 3, seed=1, scale=0.1)}
    return model(nodes, {"x": ["n", 3, 32, 32]}, {"y": None}, weights)


@pytest.fixture
def folder(tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    (tmp_path / "data").mkdir()
    for index in range(8):
        np.save(tmp_path / "data" / f"{index}.npy", random(1, 3, 32, 32, seed=index))
    return tmp_path


INT8 = ("--precision", "int8", "--calibration-dir", "data", "--quantization-effort", "fast", "--max-accuracy-drop", "10")


@pytest.mark.real
@pytest.mark.parametrize("flags", [("--precision", "fp16"), INT8], ids=lambda flags: flags[1])
def test_an_operator_that_tensorrt_takes_in_fp32_only_stays_there_and_the_model_converts(folder, flags):
    """TensorRT-RTX 1.7.1 mixes FP16 and FP32 inside of this one."""
    onnx.save(real_net(), folder / "m.onnx")
    done = onnx2trt(folder, "--onnx", "m.onnx", *flags, "--json", "out.json")
    assert done.code == 0, done.stderr
    assert "warning: kept in FP32: 'between': TensorRT's parser refuses it in FP16" in done.stderr
    kept = {entry["name"]: entry for entry in done.json("out.json")["precision"]["fallback"]}
    assert kept["between"]["precision"] == "fp32" and "TensorRT's parser refuses it in FP16" in kept["between"]["reason"]


@pytest.mark.real
def test_an_operator_that_the_library_lacks_is_named_before_anything_long(folder):
    net = real_net("Relu")
    for name, output in (("where", "i"), ("elsewhere", "j")):
        net.graph.node.append(node("NonZero", "b", output, name))
        net.graph.output.append(onnx.helper.make_tensor_value_info(output, onnx.TensorProto.INT64, [4, None]))
    onnx.save(net, folder / "m.onnx")
    done = onnx2trt(folder, "--onnx", "m.onnx", *INT8)
    assert done.code == 3 and not any(words in done.stderr for words in LONG), done.stderr
    assert "(NonZero 'where'), which reads 'b': " in done.error and "the same of 1 more NonZero: 'elsewhere'" in done.error
    assert "known gap of TensorRT-RTX" in done.error and "--backend tensorrt" in done.error


@pytest.mark.real
def test_a_layer_without_kernel_is_named_before_anything_long(folder):
    """TensorRT-RTX reads it, and would fail in the build."""
    nodes = [
        node("Conv", "x w", "a", "conv"),
        node("Reshape", "a to_boxes", "boxes"),
        node("Reshape", "a to_scores", "scores"),
        node("NonMaxSuppression", "boxes scores most", "y", "nms"),
    ]
    weights = {"w": random(4, 3, 1, 1), "to_boxes": np.int64([1, -1, 4]), "to_scores": np.int64([1, 4, -1]), "most": np.int64([5])}
    outputs = {"y": (onnx.TensorProto.INT64, [None, 3]), "a": None}
    onnx.save(model(nodes, {"x": [1, 3, 32, 32]}, outputs, weights), folder / "m.onnx")
    done = onnx2trt(folder, "--onnx", "m.onnx", "--calibration-dir", "data", *INT8[:2])
    assert done.code == 6 and not any(words in done.stderr for words in LONG), done.stderr
    assert "has no kernel for them:\n  NMS: " in done.error and "nms" in done.error
    assert "End the model at its boxes and scores" in done.error and "--backend tensorrt" in done.error
