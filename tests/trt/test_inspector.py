"""trt/inspector.py: what an engine says of its layers, without an engine."""

import json

import pytest

from onnx2trt.trt import inspector
from onnx2trt.trt.constraints import labels

HALF, FLOAT, INT8 = "Row major linear FP16 format", "Row major linear FP32", "Thirty-two wide channel vectorized row major Int8 format"


def entry(name, nodes, reads, writes, kind="CaskConvolution"):
    tensors = [[{"Name": tensor, "Format/Datatype": format_} for tensor, format_ in ends.items()] for ends in (reads, writes)]
    metadata = "\u001e".join(f"[ONNX Layer: {node}]" for node in nodes)
    return {"Name": name, "LayerType": kind, "Inputs": tensors[0], "Outputs": tensors[1], "Metadata": metadata, "TacticName": "t"}


LAYERS = [
    entry("conv + relu", ["conv", "relu"], {"x": INT8}, {"r": HALF}),
    entry("Reformatting CopyNode for Input Tensor 0 to head", [], {"r": HALF}, {"r2": FLOAT}, "Reformat"),
    entry("head", ["head"], {"r2": FLOAT}, {"y": FLOAT}),
    entry("tail", ["tail"], {"r": HALF}, {"z": FLOAT}),
]


@pytest.fixture
def layers():
    known = labels([("conv", ("c",)), ("relu", ("r",)), ("head", ("y",)), ("tail", ("z",))])
    return inspector.parse_layers(json.dumps({"Layers": LAYERS}), known)


# as NVIDIA's TREx lists them
DESCRIPTIONS = {
    "Thirty-two wide channel vectorized row major Int8 format": "int8",
    "Channel major INT8 format where channel % 16 == 0": "int8",
    "Row major linear FP8 format": "fp8",
    "Channel major FP16 format where channel % 8 == 0": "fp16",
    "Half": "fp16",
    "Row major linear BFloat16 format": "bf16",
    "Channel major BFloat16 format where channel % 8 == 0 with 3 spatial dimensions": "bf16",
    "BFloat16": "bf16",
    "Row major linear FP32": "fp32",
    "Float": "fp32",
    "Row major linear UInt8 format": None,
    "Row major linear Int32": None,
    "Row major linear BOOL": None,
    "Double": None,
}


@pytest.mark.parametrize("description", DESCRIPTIONS)
def test_a_precision_is_read_from_a_whole_word(description):
    """bfloat16 is no float, and uint8 no int8."""
    layer = entry("copy", [], {"x": description}, {})
    assert inspector.parse_layers(json.dumps({"Layers": [layer]}), {})[0].precision == DESCRIPTIONS[description]


def test_layers_are_read_with_their_nodes_and_tensors(layers):
    first = layers[0]
    assert (first.nodes, first.precision, first.output_precision) == (("conv", "relu"), "int8", "fp16")
    assert (first.reads, first.writes) == (("x",), ("r",)) and layers[1].nodes == ()
    assert inspector.count_layers(layers) == {"int8": 1, "fp16": 1, "fp32": 1}, "a conversion computes nothing"
    assert inspector.nodes_in(layers, "int8") == {"conv", "relu"}


@pytest.mark.parametrize(
    "asked, half_nodes, ignored",
    [
        ({"conv": "int8", "head": "fp32"}, (), ()),
        ({"conv": "fp16"}, (), ()),  # what it writes is what was asked for
        ({"head": "fp16"}, (), (("head", "fp16", "fp32"),)),
        ({"head": "int8"}, (), (("head", "int8", "fp32"),)),
        ({}, ("conv",), ()),  # one end is FP16
        ({}, ("tail",), ()),  # it computes in FP16; what it writes was not asked for
        ({"tail": "fp16"}, (), (("tail", "fp16", "fp32"),)),
        ({}, ("head",), (("head", "fp16", "fp32"),)),
        ({"head": "fp32"}, ("head",), ()),  # a constraint goes first
    ],
)
def test_constraints_that_the_engine_does_not_show_are_named(layers, asked, half_nodes, ignored):
    assert inspector.ignored_constraints(layers, asked, half_nodes) == ignored


def test_nodes_that_read_no_8_bits_are_known(layers):
    assert inspector.nodes_in_8_bits(layers) == {"conv", "relu"} and inspector.nodes_in_float(layers) == {"head", "tail"}


def test_an_engine_without_details_has_no_layers():
    assert inspector.parse_layers(json.dumps({"Layers": ["conv", "head"]}), {}) == ()


HELD = [
    entry("in", [], {"x": FLOAT}, {"x copy": INT8}, "Reformat"),
    entry("conv", ["conv"], {"x copy": INT8}, {"r": INT8}),
    entry("swish", ["sigmoid", "mul"], {"r": INT8}, {"Reformatted Output Tensor 0 to swish": INT8}, "PointWiseV2"),
    entry("out", [], {"Reformatted Output Tensor 0 to swish": INT8}, {"s": HALF}, "Reformat"),
    entry("again", [], {"s": HALF}, {"Reformatted Input Tensor 0 to head": INT8}, "Reformat"),
    entry("head", ["head"], {"Reformatted Input Tensor 0 to head": INT8, "h": HALF}, {"z": HALF}),
    entry("last", [], {"z": HALF}, {"y": FLOAT}, "Reformat"),
]


def test_what_is_held_in_int8_is_seen_through_conversions():
    known = {name: name for name in ("conv", "sigmoid", "mul", "head")}
    written, read = inspector.held_in(json.dumps({"Layers": HELD}), known, {"x", "r", "s", "h", "z", "y"}, "int8")
    assert written == {"r", "s"}, "s was converted from what was INT8; x was not INT8 for all, z and y never"
    assert read == {"x": {"conv"}, "r": {"sigmoid", "mul"}, "s": {"head"}}
    ring = [entry("a", [], {"p": INT8}, {"q": INT8}, "Reformat"), entry("b", [], {"q": INT8}, {"p": INT8}, "Reformat")]
    ring.append(entry("c", ["c"], {"p": INT8}, {}))
    assert inspector.held_in(json.dumps({"Layers": ring}), {"c": "c"}, set(), "int8") == (set(), {})
