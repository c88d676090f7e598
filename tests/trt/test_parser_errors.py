"""trt/parser_errors.py: every node at fault, what it reads and the next step. Real RTX parser."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from command import onnx2trt
from models import model, node, random
from onnx import TensorProto, helper

from onnx2trt.base.model_info import NodeInfo
from onnx2trt.model.nodes import list_nodes
from onnx2trt.trt.parser_errors import parser_error

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")


def refused(folder, proto, *flags):
    onnx.save(proto, folder / "m.onnx")
    done = onnx2trt(folder, "--onnx", "m.onnx", "--precision", "fp32", *flags)
    assert done.code == 3 and "building" not in done.stderr, done.stderr
    assert "cudaError" not in done.error and "/_src/" not in done.error and "&&" not in done.error, "no inner life of TensorRT"
    return done.error


def of_domain(domain, *nodes):
    for one in nodes:
        one.domain = domain
    return list(nodes)


def with_domain(proto, domain):
    proto.opset_import.append(helper.make_opsetid(domain, 1))
    return proto


def odd_nodes(domain):
    return [node("Relu", "x", "a", "first"), *of_domain(domain, node("Mystery", "a w", "b", "odd"), node("Enigma", "b", "y", "odder"))]


def test_every_unknown_operator_is_named_at_once_with_what_it_reads(tmp_path):
    """com.microsoft is ONNX Runtime's own domain, so only the parser can tell."""
    proto = model(odd_nodes("com.microsoft"), {"x": [1, 4]}, {"y": [1, 4]}, {"w": random(4)})
    error = refused(tmp_path, with_domain(proto, "com.microsoft"))
    assert "node 1 (com.microsoft.Mystery 'odd'), which reads 'a', 'w': TensorRT does not know this operator" in error
    assert "node 2 (com.microsoft.Enigma 'odder'), which reads 'b': TensorRT does not know this operator" in error
    assert (
        "hint: TensorRT lacks com.microsoft.Mystery, com.microsoft.Enigma, as ONNX Runtime's optimizers write them: give the model" in error
    )
    assert "--plugins" in error and "opset" not in error


def test_operators_that_nobody_knows_are_named_before_the_parser_in_the_same_way(tmp_path):
    error = refused(tmp_path, with_domain(model(odd_nodes("acme"), {"x": [1, 4]}, {"y": [1, 4]}, {"w": random(4)}), "acme"))
    assert "node 1 (acme.Mystery 'odd'), which reads 'a', 'w'\n  node 2 (acme.Enigma 'odder'), which reads 'b'" in error
    assert "--plugins" in error


def test_an_operator_of_the_standard_that_tensorrt_lacks(tmp_path):
    error = refused(tmp_path, model([node("Relu", "x", "a"), node("Det", "a", "y", "det")], {"x": [1, 4, 4]}, {"y": [1]}))
    assert "node 1 (Det 'det'), which reads 'a': TensorRT does not have this operator" in error
    assert "lacks Det: replace it" in error and "opset" not in error


def test_a_node_inside_an_if_is_found_with_its_place(tmp_path):
    inner = of_domain("com.microsoft", node("Mystery", "x", "t", "inner"))
    branches = {
        "then_branch": helper.make_graph(inner, "th", [], [helper.make_tensor_value_info("t", 1, [1, 4])]),
        "else_branch": helper.make_graph([node("Relu", "x", "e")], "el", [], [helper.make_tensor_value_info("e", 1, [1, 4])]),
    }
    proto = model([node("If", "c", "y", "choice", **branches)], {"x": [1, 4], "c": (TensorProto.BOOL, [])}, {"y": [1, 4]})
    error = refused(tmp_path, with_domain(proto, "com.microsoft"))
    assert "(com.microsoft.Mystery 'inner') inside choice (If) > th (then_branch), which reads 'x'" in error


def test_types_that_tensorrt_does_not_calculate_in(tmp_path):
    types = {"x": (TensorProto.INT64, [1, 3, 8, 8])}
    weights = {"w": np.ones((4, 3, 3, 3), np.int64)}
    error = refused(tmp_path, model([node("Conv", "x w", "y", "conv")], types, {"y": (TensorProto.INT64, [1, 4, 6, 6])}, weights))
    assert "node 0 (Conv 'conv'), which reads 'x', 'w': conv: input has type Int64 but must have type Float" in error
    assert "cast to one of these" in error
    pixels = (TensorProto.UINT8, [1, 4])
    error = refused(tmp_path, model([node("Add", "x x", "y", "add")], {"x": pixels}, {"y": pixels}))
    assert "(Add 'add')" in error and "type is UInt8" in error and "cast to one of these" in error
    nodes = [node("Cast", "x", "d", "narrow", to=TensorProto.UINT16), node("Cast", "d", "y", "back", to=TensorProto.FLOAT)]
    error = refused(tmp_path, model(nodes, {"x": [1, 4]}, {"y": [1, 4]}))
    assert "(Cast 'narrow'), which reads 'x': Unsupported data type for the Cast operator!" in error and "UINT16" in error


def test_missing_external_data_is_named_before_the_parser(tmp_path):
    proto = model([node("MatMul", "x w", "y")], {"x": [1, 4]}, {"y": [1, 4]}, {"w": random(4, 4)})
    onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    (tmp_path / "weights.bin").unlink()
    done = onnx2trt(tmp_path, "--onnx", "m.onnx")
    assert done.code == 3 and "weights.bin" in done.error and "hint:" in done.error


def test_a_free_size_that_has_to_be_fixed(tmp_path):
    proto = model([node("Conv", "x w", "y", "conv")], {"x": ["n", "c", 8, 8], "w": ["a", "b", 3, 3]}, {"y": ["n", "a", 6, 6]})
    error = refused(tmp_path, proto, "--opt-shapes", "x:1x3x8x8,w:4x3x3x3")
    assert "(Conv 'conv'), which reads 'x', 'w': " in error and "Invalid number of output channels: -1" in error
    assert "has to be fixed" in error


def test_a_form_of_an_operator_that_tensorrt_lacks(tmp_path):
    resize = node("Resize", "x r s", "y", "grow", mode="cubic", coordinate_transformation_mode="tf_crop_and_resize")
    weights = {"r": np.array([0, 0, 0, 0, 1, 1, 1, 1], np.float32), "s": np.array([1, 1, 2, 2], np.float32)}
    error = refused(tmp_path, model([resize], {"x": [1, 3, 4, 4]}, {"y": [1, 3, 8, 8]}, weights))
    assert "(Resize 'grow'), which reads 'x', 'r', 's': TensorRT only supports half_pixel" in error and "not in this form" in error


def test_an_operator_of_an_opset_that_is_too_new(tmp_path):
    """One that ONNX has and TensorRT not yet, and one of an opset that ONNX itself does not know."""
    proto = model([node("CumProd", "x axis", "y", "new")], {"x": [1, 4]}, {"y": [1, 4]}, {"axis": np.int64(1)}, opset=26)
    error = refused(tmp_path, proto)
    assert "node 0 (CumProd 'new'), which reads 'x'" in error and "lacks CumProd" in error and "an older opset than 26" in error
    error = refused(tmp_path, model([node("Swoosh", "x", "y", "new")], {"x": [1, 4]}, {"y": [1, 4]}, opset=99))
    assert "node 0 (Swoosh 'new'), which reads 'x'" in error and "opset 99 is newer than" in error and "an older one" in error


def test_nodes_without_names_are_found_by_their_place_on_tensorrt_8():
    class Old:  # its errors have neither the node's name nor its operator
        node, desc, code, func = lambda s: 1, lambda s: "false", lambda s: "UNSUPPORTED_NODE", lambda s: "checkDet"

    proto = model([node("Relu", "x", "a"), node("Det", "a", "y")], {"x": [1, 4, 4]}, {"y": [1]})
    error = parser_error("m.onnx", 17, [Old()], [], lambda: list_nodes(proto), "tensorrt")
    assert "node 1 (Det ''), which reads 'a': TensorRT does not have this operator" in error.message


def test_without_a_single_error_the_other_messages_are_the_reason():
    assert "no reason was given" in parser_error("m.onnx", 17, [], [], tuple, "tensorrt").message
    error = parser_error("m.onnx", 17, [], ["Failed to open file: w.bin"], tuple, "tensorrt")
    assert "w.bin" in error.message and "copy the model whole" in error.hint


def test_nodes_of_subgraphs_and_functions_are_listed_after_those_of_the_graph():
    function = helper.make_function("my", "Block", ["a"], ["b"], [node("Relu", "a", "b", "fr")], [helper.make_opsetid("", 17)])
    proto = model([node("Block", "x", "y", "blk")], {"x": [1, 4]}, {"y": [1, 4]})
    proto.functions.append(function)
    listed = list(list_nodes(proto))
    assert listed == [NodeInfo("blk", "Block", "", ("x",), True), NodeInfo("fr", "Relu", "", ("a",), False)]


class Code:
    """A member of TensorRT 10.6's ErrorCode, whose name is a method."""

    def __init__(self, name):
        self._name = name

    def name(self):
        return self._name

    def __str__(self):
        return f"ErrorCode.{self._name}"


def of(node, operator, name, desc="false", code="UNSUPPORTED_NODE", inside=()):
    """An error as TensorRT 10's parser gives it."""
    parts = {"node": node, "node_operator": operator, "node_name": name, "desc": desc, "func": "", "local_function_stack": list(inside)}
    return SimpleNamespace(
        code=lambda: Code(code),
        **{key: partial(str if isinstance(value, str) else type(value), value) for key, value in parts.items()},
    )


MISSING = "Assertion failed: creator && x: NonZero plugin creator version 1 was not found in plugin registry."


def many(operator, count, domain=""):
    return [NodeInfo(f"n{index}", operator, domain, ("x",), True) for index in range(count)]


def test_nodes_of_one_operator_are_one_line():
    errors = [of(index, "Det", f"n{index}") for index in range(9)]
    found = parser_error("m.onnx", 17, errors, [], lambda: many("Det", 9), "tensorrt-rtx")
    lines = found.message.splitlines()
    assert len(lines) == 2 and lines[1].startswith("  node 0 (Det 'n0'), which reads 'x': TensorRT does not have this operator")
    assert lines[1].endswith("; the same of 8 more Det: 'n1', 'n2', 'n3', 'n4', 'n5' and 3 more") and len(found.nodes) == 9


def test_a_parser_that_stops_at_the_first_node_leaves_out_none():
    nodes = [*many("NonZero", 3), NodeInfo("other", "Relu", "", ("x",), True), NodeInfo("theirs", "NonZero", "acme", ("x",), True)]
    found = parser_error("m.onnx", 17, [of(0, "NonZero", "n0", MISSING, "INVALID_NODE")], [], lambda: nodes, "tensorrt-rtx")
    assert "; the same of 2 more NonZero: 'n1', 'n2'" in found.message and "other" not in found.message and "theirs" not in found.message
    assert found.nodes.keys() == {"n0"}, "what is refused is what the parser has named"


def test_other_reasons_are_those_of_the_node_alone():
    """That one Resize has the wrong form says nothing of the others."""
    nodes = many("Resize", 3)
    found = parser_error("m.onnx", 17, [of(1, "Resize", "n1", "mode of n1 is odd")], [], lambda: nodes, "tensorrt-rtx")
    assert "n0" not in found.message and "the same" not in found.message
    two = [of(index, "Resize", f"n{index}", f"mode of n{index} is odd") for index in (0, 2)]
    assert "the same of 1 more Resize: 'n2'" in parser_error("m.onnx", 17, two, [], lambda: nodes, "tensorrt-rtx").message


def test_the_hint_tells_a_gap_of_the_library_from_an_operator_that_needs_a_plugin():
    gap = [of(0, "NonZero", "n0", MISSING, "INVALID_NODE")]
    rtx, full = (parser_error("m.onnx", 17, gap, [], lambda: many("NonZero", 1), backend).hint for backend in ("tensorrt-rtx", "tensorrt"))
    assert "known gap of TensorRT-RTX" in rtx and "--backend tensorrt" in rtx and "RTX" not in full and "--plugins" in full
    own = [of(0, "Mystery", "n0", 'creator && "Plugin not found, are the plugin name, version, and namespace correct?"')]
    rtx, full = (
        parser_error("m.onnx", 17, own, [], lambda: many("Mystery", 1, "acme"), backend).hint for backend in ("tensorrt-rtx", "tensorrt")
    )
    assert "lacks acme.Mystery" in rtx and "--backend tensorrt" in rtx and "--plugins." in full and "gap" not in rtx + full


def test_what_is_refused_inside_of_a_branch_is_refused_of_the_node_that_has_it():
    nodes = [NodeInfo("choice", "If", "", ("c",), True), NodeInfo("inner", "Relu", "", ("x",), False)]
    error = of(0, "Relu", "inner", "odd", inside=["choice (If)", "th (then_branch)"])
    found = parser_error("m.onnx", 17, [error], [], lambda: nodes, "tensorrt-rtx")
    assert found.nodes.keys() == {"choice"} and "leave one branch only" in found.hint
