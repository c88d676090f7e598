"""model/fingerprint.py: other values of weights are the same network, and everything else is another, which is named."""

import base64
import copy
import zlib

import numpy as np
import onnx
import pytest
from models import conv_net, model, node, random
from onnx import TensorProto, helper, numpy_helper

from onnx2trt.model.fingerprint import Fingerprint, fingerprint
from onnx2trt.model.graph import Graph


def of(proto: onnx.ModelProto) -> Fingerprint:
    return fingerprint(Graph.from_model(proto))


@pytest.mark.parametrize(
    "lines, values, said",
    [
        (zlib.compress(bytes(2**20)), {}, "more than 65536 bytes"),
        (zlib.compress(b"input x")[:-3], {}, "it is cut"),
        (b"xyz", {}, "no fingerprint"),
        (zlib.compress(b"input x"), {"w": 7}, "its values are none"),
        (zlib.compress(b"input x"), [["w", "7"]], "its values are none"),
    ],
    ids=["bomb", "cut", "not packed", "numbers", "a list"],
)
def test_what_is_unpacked_is_bounded_and_looked_at(lines, values, said, monkeypatch):
    """A side file of 16 MB could stand for 16 GB."""
    monkeypatch.setattr("onnx2trt.model.fingerprint.MOST_BYTES", 2**16)
    with pytest.raises(ValueError, match=said):
        Fingerprint.unpack({"lines": base64.b64encode(lines).decode(), "values": values})


def trained(proto: onnx.ModelProto, *names: str) -> onnx.ModelProto:
    """The same with other values of these weights; of all that are floating point where none is named."""
    other = copy.deepcopy(proto)
    for tensor in other.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype.kind == "f" and (not names or tensor.name in names):
            tensor.CopyFrom(numpy_helper.from_array(values * 1.5 + values.dtype.type(0.25), tensor.name))
    return other


def rich_net() -> onnx.ModelProto:
    """Attributes of several types, an integer constant, a constant node, and a body with a constant of its own."""
    inner = helper.make_graph(
        [node("Add", "r k", "inner", "plus")],
        "then",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(np.ones((1, 4), np.float32), "k")],
    )
    other = helper.make_graph(
        [node("Neg", "r", "negative", "minus")], "else", [], [helper.make_tensor_value_info("negative", TensorProto.FLOAT, [1, 4])]
    )
    nodes = [
        node("Constant", "", "s", "size", value=numpy_helper.from_array(np.array([1, 4], np.int64))),
        node("Conv", "x w b", "c", "conv", pads=[1, 1, 1, 1]),
        node("LeakyRelu", "c", "l", "leaky", alpha=0.1),
        node("ReduceMean", "l", "m", "mean", axes=[2, 3], keepdims=0),
        node("Reshape", "m s", "r", "reshape"),
        node("If", "flag", "y", "branch", then_branch=inner, else_branch=other),
    ]
    weights = {"w": random(4, 3, 3, 3), "b": random(4, seed=1)}
    made = model(nodes, {"x": [1, 3, 8, 8]}, {"y": [1, 4]}, weights)
    made.graph.input.append(helper.make_tensor_value_info("flag", TensorProto.BOOL, []))
    return made


@pytest.mark.parametrize("make", [conv_net, rich_net])
def test_other_values_are_the_same_network(make):
    then, now = of(make()), of(trained(make()))
    assert then.first_difference(now) == "" == now.first_difference(then)
    assert then.changed(now) == then.values.keys() and then.changed(of(make())) == frozenset()


def test_only_the_weights_that_have_changed_are_named():
    assert of(rich_net()).changed(of(trained(rich_net(), "b"))) == {"b"}


def conv_of(proto):
    return next(entry for entry in proto.graph.node if entry.name == "conv")


def body_of(proto):
    return next(entry for entry in proto.graph.node if entry.name == "branch").attribute


def set_attribute(name, value):
    def change(proto):
        for entry in proto.graph.node:
            for attribute in entry.attribute:
                if attribute.name == name:
                    attribute.CopyFrom(helper.make_attribute(name, value))

    return change


def replace_weight(name, values):
    def change(proto):
        for tensor in proto.graph.initializer:
            if tensor.name == name:
                tensor.CopyFrom(numpy_helper.from_array(values, name))

    return change


def inner_constant(proto):
    for attribute in body_of(proto):
        for tensor in attribute.g.initializer:
            tensor.CopyFrom(numpy_helper.from_array(np.zeros((1, 4), np.float32), tensor.name))


def inner_operator(proto):
    for attribute in body_of(proto):
        for entry in attribute.g.node:
            entry.op_type = {"Neg": "Abs"}.get(entry.op_type, entry.op_type)


def size_of_input(proto):
    proto.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 16


CHANGES = {
    "an attribute of numbers": (set_attribute("pads", [0, 0, 0, 0]), "'conv'"),
    "a float attribute": (set_attribute("alpha", 0.2), "'leaky'"),
    "an operator": (lambda proto: setattr(proto.graph.node[2], "op_type", "Elu"), "'leaky'"),
    "the shape of a weight": (replace_weight("w", random(4, 3, 1, 1)), "'w'"),
    "the type of a weight": (replace_weight("b", random(4).astype(np.float16)), "'b'"),
    "an integer constant": (set_attribute("value", numpy_helper.from_array(np.array([-1, 4], np.int64))), "'s'"),
    "a constant in a body": (inner_constant, "'k'"),
    "an operator in a body": (inner_operator, "'minus'"),
    "the size of an input": (size_of_input, "input 'x'"),
    "the opset": (lambda proto: setattr(proto.opset_import[0], "version", 16), "opset"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_any_other_difference_is_named(change):
    mutate, named = CHANGES[change]
    other = rich_net()
    mutate(other)
    assert other.SerializeToString() != rich_net().SerializeToString(), "nothing was changed"
    for told in (of(rich_net()).first_difference(of(trained(other))), of(other).first_difference(of(rich_net()))):
        assert named in told


def test_a_node_too_many_is_named_from_both_sides():
    other = rich_net()
    other.graph.node[-1].output[0] = "z"
    other.graph.node.append(node("Relu", "z", "y", "last"))
    assert "'branch'" in of(rich_net()).first_difference(of(other))
    shorter, longer = Fingerprint(("a",), {}), Fingerprint(("a", "b"), {})
    assert shorter.first_difference(longer) == "b is new" and longer.first_difference(shorter) == "b is gone"


def test_it_goes_into_json_and_back():
    known = of(rich_net())
    assert Fingerprint.unpack(known.pack()) == known
    odd = model([node("Relu", "x", "y", "zwölf \n名")], {"x": [1]}, {"y": [1]})
    assert of(odd).first_difference(Fingerprint.unpack(of(odd).pack())) == ""


@pytest.mark.parametrize("odd", [{}, {"lines": "x", "values": {}}, {"lines": 7, "values": {}}, {"lines": "eJwDAAAAAAE=", "values": 3}])
def test_what_is_no_fingerprint_is_said(odd):
    with pytest.raises(ValueError, match="no fingerprint"):
        Fingerprint.unpack(odd)
