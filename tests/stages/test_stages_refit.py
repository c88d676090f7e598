"""stages/refit.py, and what pipeline/prepare.py repeats for it: other weights of one network, by what an engine remembers."""

import json
import os

import numpy as np
import onnx
import pytest
from helpers import parse, planned, quiet_run, refused
from models import conv_net, layer_norm, model, multiplication_chain, node, offset_net, random
from onnx import numpy_helper

from onnx2trt.base.errors import ExitCode
from onnx2trt.pipeline.prepare import choose, prepare_again
from onnx2trt.plan.refit import as_built, to_remember
from onnx2trt.report.built import Refittable
from onnx2trt.report.result import Result, to_json
from onnx2trt.stages import refit
from onnx2trt.stages.refit import changed_weights, check_network, check_refittable, read_refittable


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def save(source: onnx.ModelProto, factor: float = 1.0) -> None:
    """model.onnx, its floating-point weights times a factor."""
    made = onnx.ModelProto()
    made.CopyFrom(source)
    for tensor in made.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype.kind == "f":
            tensor.CopyFrom(numpy_helper.from_array((values * factor).astype(values.dtype), tensor.name))
    onnx.save(made, "model.onnx")


def built(*flags: str, library: str):
    """(prepared model, what the engine of model.onnx remembers, after it was in a file)"""
    job, run = planned(*flags, "--refittable", library=library)
    check_refittable(job)
    choice = choose(job, run)
    prepared = choice.prepared(run)
    flags = to_remember(parse(*flags, "--refittable"))
    known = refit.to_remember(job, prepared, flags, getattr(choice, "exact_scales", False))
    return prepared, Result.from_dict(json.loads(to_json(Result(refit=known)))).refit


def quantized_net() -> onnx.ModelProto:
    """A model that carries Q/DQ."""
    nodes = [
        node("QuantizeLinear", "x sx zero", "xq", "quantize"),
        node("DequantizeLinear", "xq sx zero", "xd", "dequantize"),
        node("QuantizeLinear", "w sw zero", "wq", "quantize_weights"),
        node("DequantizeLinear", "wq sw zero", "wd", "dequantize_weights"),
        node("Conv", "xd wd b", "c", "conv"),
        node("Relu", "c", "y", "relu"),
    ]
    weights = {"w": random(4, 3, 1, 1), "b": random(4, seed=1), "zero": np.int8(0)}
    weights |= {"sx": np.float32(0.05), "sw": np.float32(0.02)}
    return model(nodes, {"x": [1, 3, 8, 8]}, {"y": [1, 4, 8, 8]}, weights)


NETS = {"conv": conv_net, "offset": offset_net, "layer norm": layer_norm, "chain": multiplication_chain, "with Q/DQ": quantized_net}
ROUTES = {
    "FP16 flags": ("weak", "--precision", "fp16"),
    "FP32 flags": ("weak", "--precision", "fp32"),
    "FP16 in the graph": ("strong", "--precision", "fp16"),
    "FP16 in the graph of 10": ("weak", "--precision", "fp16", "--strongly-typed"),
    "FP32 in the graph": ("strong", "--precision", "fp32"),
    "FP16 and INT8": ("rtx", "--precision", "fp16"),
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("net", NETS)
def test_a_trained_model_is_prepared_as_the_engine_was(net, route):
    library, *flags = ROUTES[route]
    save(NETS[net]())
    before, known = built(*flags, library=library)
    args = parse()
    as_built(args, known.flags)
    assert args.precision == flags[1] and args.refittable and args.strongly_typed == ("--strongly-typed" in flags)
    job, run = planned(*flags, "--refittable", library=library)
    same = prepare_again(job, known.kept_fp32, known.exact_scales, run)
    assert changed_weights(same, known) == frozenset(), "the same model changes nothing"
    assert same.graph.proto == before.graph.proto and same.constraints == before.constraints and same.fallback == before.fallback
    assert same.changed == before.changed
    save(NETS[net](), factor=0.875)
    job, run = planned(*flags, "--refittable", library=library)
    check_network(job, known)
    again = prepare_again(job, known.kept_fp32, known.exact_scales, run)
    changed = changed_weights(again, known)
    assert changed and changed == {
        name for name, array in again.graph.weights.items() if not np.array_equal(array, before.graph.weights[name])
    }


def test_another_network_is_refused_with_the_first_difference():
    save(conv_net())
    _, known = built(library="weak")
    save(conv_net(classes=5))
    with refused(
        ExitCode.MODEL, "model.onnx is another network than the engine's: output 'y'", "which was", hint="export both in the same way"
    ):
        check_network(planned("--refittable")[0], known)


def test_weights_that_need_another_preparation_are_refused():
    """An FP32 constant that FP16 cannot hold stays FP32 in the new one, say: the types in the engine are fixed."""
    save(conv_net())
    _, known = built(library="strong")
    job, run = planned("--refittable", library="strong")
    other = prepare_again(job, {"head": "made up"}, False, run)
    with refused(ExitCode.MODEL, "the network has to be built otherwise", hint="--refittable"):
        changed_weights(other, known)


def test_without_refittable_only_the_same_weights_come_back():
    save(conv_net())
    job, run = planned("--strip-weights")
    prepared = choose(job, run).prepared(run)
    known = refit.to_remember(job, prepared, [], False)
    assert known.stripped and not known.other_weights and changed_weights(prepared, known) == frozenset()
    save(conv_net(), factor=2)
    job, run = planned("--strip-weights")
    other = prepare_again(job, known.kept_fp32, False, run)
    with refused(ExitCode.MACHINE, "--strip-weights alone", "'b1'", "and 1 more", hint="--refittable --strip-weights"):
        changed_weights(other, known)


@pytest.mark.parametrize("flag", ["--refittable", "--strip-weights"])
def test_int8_that_is_found_here_takes_no_other_weights(flag):
    save(conv_net())
    os.mkdir("data")
    np.savez("data/0.npz", x=random(1, 3, 16, 16))
    with refused(ExitCode.MACHINE, f"{flag} --precision int8", hint="carries Q/DQ"):
        check_refittable(planned("--precision", "int8", "--calibration-dir", "data", flag)[0])
    save(quantized_net())
    check_refittable(planned("--precision", "int8", flag)[0])


def test_a_plain_engine_remembers_nothing():
    save(conv_net())
    job, run = planned()
    assert refit.to_remember(job, choose(job, run).prepared(run), [], False) is None


def test_values_that_are_in_the_kernels_are_named():
    save(conv_net())
    graph = planned()[0].graph()
    refit._check_taken(graph, frozenset({"w1", "b1"}), frozenset({"w1"}))
    with refused(ExitCode.MACHINE, "the engine has the values of 'b2', 'w2' in its kernels"):
        refit._check_taken(graph, frozenset({"w1", "b1"}), frozenset({"w1", "w2", "b2"}))


def test_what_the_parser_computes_of_batch_normalizations_may_change():
    weights = {"s": np.ones(3, np.float32), "o": np.zeros(3, np.float32), "m": random(3), "v": np.ones(3, np.float32)}
    save(model([node("BatchNormalization", "x s o m v", "y", "norm")], {"x": [1, 3, 4, 4]}, {"y": [1, 3, 4, 4]}, weights))
    refit._check_taken(planned()[0].graph(), frozenset({"combined"}), frozenset(weights))


# ---- the engine's own file


def test_an_engine_of_which_nothing_is_known_is_refused(folder):
    with refused(ExitCode.VALIDATION, "--refit no.engine cannot be read"):
        read_refittable("no.engine", quiet_run())
    (folder / "a.engine").write_bytes(b"ftrt" + bytes(80))
    with refused(ExitCode.MACHINE, "a.engine.json", "is missing or damaged", hint="--refittable"):
        read_refittable("a.engine", quiet_run())


def test_what_was_remembered_and_is_damaged_is_said():
    save(conv_net())
    known = Refittable([], {"lines": "?", "values": {}}, {}, {}, False, True, False)
    with refused(ExitCode.MACHINE, "the JSON beside the engine is damaged"):
        check_network(planned()[0], known)


def test_typed_preprocessing_goes_before_what_is_remembered():
    flags = to_remember(parse("--mean", "0.5", "--std", "0.25", "--opt-shapes", "x:1x3x8x8", "--layer-precisions", "a*:fp32"))
    args = parse("--mean", "0.1")
    as_built(args, json.loads(json.dumps(flags)))
    assert args.mean == parse("--mean", "0.1").mean and args.std == parse("--std", "0.25").std
    assert args.opt_shapes == parse("--opt-shapes", "x:1x3x8x8").opt_shapes
    assert args.layer_precisions == parse("--layer-precisions", "a*:fp32").layer_precisions
