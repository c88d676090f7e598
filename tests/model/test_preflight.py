"""model/preflight.py: what is refused of an --onnx file before any long work, and how it is said."""

import hashlib
import os
import warnings

import numpy as np
import onnx
import pytest
from helpers import adder, build_model, ends_within, external, inside_if, pipe_at, refused, save, value
from onnx import TensorProto, helper, numpy_helper

from onnx2trt.base.errors import ExitCode
from onnx2trt.base.model_info import TensorSpec
from onnx2trt.model.preflight import PROTOBUF_LIMIT, check_file, default_opset, dtype_name, look_again, preflight
from onnx2trt.model.structure import describe

MODEL = ExitCode.MODEL
W = np.arange(4, dtype=np.float32)
RELU = helper.make_node("Relu", ["x"], ["y"], name="act")


def info_of(tmp_path, model):
    return preflight(save(model, tmp_path / "m.onnx"))[1]


def file(tmp_path, data: bytes, name: str = "m.onnx") -> str:
    (tmp_path / name).write_bytes(data)
    return str(tmp_path / name)


# ---- a good model


@pytest.mark.parametrize("elem_type", [TensorProto.DOUBLE, TensorProto.BFLOAT16])
def test_types_that_tensorrt_has_not_are_fp32_in_the_engine(tmp_path, elem_type):
    info = info_of(tmp_path, build_model([RELU], [value("x", [4], elem_type)], [value("y", [4], elem_type)]))
    assert [spec.dtype for spec in (*info.inputs, *info.outputs)] == ["float32", "float32"]


def test_an_output_that_is_listed_twice_is_one(tmp_path):
    assert [spec.name for spec in info_of(tmp_path, build_model([RELU], outputs=[value("y", [4])] * 2)).outputs] == ["y"]


def test_what_is_known_of_a_rewritten_model(tmp_path):
    info = info_of(tmp_path, build_model([RELU]))
    quantized = build_model(
        [helper.make_node("QuantizeLinear", ["x", "s"], ["q"]), helper.make_node("DequantizeLinear", ["q", "s"], ["z"])],
        outputs=[value("z", [4])],
        weights=[("s", np.float32(1))],
        opset=13,
    )
    found = look_again(info, quantized, ("a remark",))
    assert (found.opset, found.quantized, found.adopted, found.warnings) == (17, True, True, ("a remark",)), "the opset is the file's"
    assert [spec.name for spec in found.outputs] == ["z"] and (found.path, found.sha256) == (info.path, info.sha256)


def test_what_is_found_in_a_good_model(tmp_path):
    model = adder(("w", W), inputs=[value("x", ["N", None, 4])], outputs=[value("y", ["N", 3, 4])], opset=18)
    loaded, info = preflight(save(model, tmp_path / "m.onnx"))
    data = (tmp_path / "m.onnx").read_bytes()
    assert loaded == model
    assert info.path == str(tmp_path / "m.onnx")
    assert (info.sha256, info.bytes) == (hashlib.sha256(data).hexdigest(), len(data))
    assert info.inputs == (TensorSpec("x", ("N", None, 4), "float32"),)
    assert info.outputs == (TensorSpec("y", ("N", 3, 4), "float32"),)
    assert (info.opset, info.nodes, info.quantized, info.half, info.warnings) == (18, 1, False, False, ())


def test_external_data_is_loaded_and_counted(tmp_path):
    (tmp_path / "w.bin").write_bytes(W.tobytes())
    loaded, info = preflight(save(adder(external("w", W, "w.bin")), tmp_path / "m.onnx"))
    assert np.array_equal(numpy_helper.to_array(loaded.graph.initializer[0]), W)
    model = (tmp_path / "m.onnx").read_bytes()
    assert info.bytes == len(model) + 16
    assert info.sha256 == hashlib.sha256(model + W.tobytes()).hexdigest()


def test_a_bit_flip_in_the_weights_changes_the_hash(tmp_path):
    flipped = W.copy()
    flipped.view(np.uint32)[2] ^= 1
    assert info_of(tmp_path, adder(("w", W))).sha256 != info_of(tmp_path, adder(("w", flipped))).sha256


def test_initializers_listed_as_inputs_are_none(tmp_path):
    """IR version 3 asked for it."""
    info = info_of(tmp_path, adder(("w", W), inputs=[value("w", [4]), value("x", [4])], ir=3, opset=8))
    assert [spec.name for spec in info.inputs] == ["x"]


@pytest.mark.parametrize("dim", [-1, -5])
def test_a_negative_dimension_of_an_input_is_a_free_one(tmp_path, dim):
    assert info_of(tmp_path, build_model([RELU], inputs=[value("x", [dim, 3])])).inputs[0].shape == (None, 3)


def test_an_input_of_unknown_rank_and_a_scalar(tmp_path):
    info = info_of(tmp_path, build_model([RELU], inputs=[value("x", None), value("k", [])]))
    assert [spec.shape for spec in info.inputs] == [None, ()]


@pytest.mark.parametrize("op", ["QuantizeLinear", "DequantizeLinear"])
def test_quantized_models_are_recognised(tmp_path, op):
    assert info_of(tmp_path, build_model([helper.make_node(op, ["x", "x"], ["y"])])).quantized
    inside = inside_if(helper.make_node(op, ["x", "x"], ["c"]))
    assert info_of(tmp_path, inside).quantized


def test_half_models_are_recognised(tmp_path):
    assert info_of(tmp_path, adder(("w", W.astype(np.float16)))).half
    assert info_of(tmp_path, build_model([RELU], inputs=[value("x", [4], TensorProto.FLOAT16)])).half
    assert info_of(tmp_path, build_model([RELU], outputs=[value("y", [4], TensorProto.FLOAT16)])).half


def test_infinite_weights_are_a_warning(tmp_path):
    assert info_of(tmp_path, adder(("w", np.array([0, -np.inf, np.inf, 1], np.float32)))).warnings == (
        "weights 'w' hold 2 infinite values",
    )


def test_infinite_weights_are_one_warning_however_many_hold_them(tmp_path):
    endless = np.array([-np.inf], np.float32)
    assert info_of(tmp_path, adder(("w", endless))).warnings == ("weights 'w' hold 1 infinite value",)
    (told,) = info_of(tmp_path, build_model([RELU], weights=[(f"w{number}", endless) for number in range(5)])).warnings
    assert told == "weights 'w0', 'w1', 'w2' and 2 more hold 5 infinite values"


def test_an_input_that_holds_nothing_is_a_warning(tmp_path):
    info = info_of(tmp_path, build_model([RELU], inputs=[value("x", ["N", 0])]))
    assert info.inputs[0].shape == ("N", 0)
    assert info.warnings == ("input 'x' is Nx0, so it holds nothing: if a size shall be free, export the model with a name for it",)


def test_newer_versions_are_a_warning(tmp_path):
    told = info_of(tmp_path, build_model([RELU], opset=99, ir=98)).warnings
    assert len(told) == 2
    assert told[0].startswith(f"opset 99 is newer than {onnx.defs.onnx_opset_version()}")
    assert told[1].startswith(f"ONNX IR version 98 is newer than {onnx.IR_VERSION}")


def test_default_opset_is_that_of_the_standard_domain():
    model = build_model([RELU], opset=13)
    model.opset_import.append(helper.make_opsetid("custom", 77))
    assert default_opset(model) == 13
    del model.opset_import[:]
    assert default_opset(model) == 0


# ---- no model at all

FILES = [  # content, fragment, hint
    (b"", "is empty", "Export or download the model again"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "Git LFS pointer", "git lfs pull"),
    (b"<!DOCTYPE html><html>404</html>", "web page", "download again"),
    (b"\n\n  <html><body>Not Found</body></html>", "web page", "download again"),
    (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "web page", "download again"),
    (b"Entry not found", "not an ONNX model", "checksum"),
    (b"404: Not Found", "not an ONNX model", "checksum"),
    (b'{"error": "gone"}', "not an ONNX model", "checksum"),
    (bytes(100), "not an ONNX model", "checksum"),
    (b"\x89PNG\r\n\x1a\n" + bytes(50), "not an ONNX model", "checksum"),
    (np.random.default_rng(0).bytes(500), "not an ONNX model", "checksum"),
    (b"PK\x03\x04" + bytes(100), "not an ONNX model", "checksum"),
]


@pytest.mark.parametrize(("data", "fragment", "hint"), FILES, ids=[repr(data[:20]) for data, _, _ in FILES])
def test_a_file_that_is_no_model(tmp_path, data, fragment, hint):
    path = file(tmp_path, data)
    with refused(MODEL, path, fragment, hint=hint):
        preflight(path)


def test_a_model_that_is_cut_off_anywhere(tmp_path):
    data = adder(("w", np.arange(100, dtype=np.float32)), inputs=[value("x", [100])]).SerializeToString()
    for size in range(1, len(data), 9):
        with refused(MODEL, "m.onnx"):
            preflight(file(tmp_path, data[:size]))


def test_a_file_that_is_not_there(tmp_path):
    with refused(MODEL, str(tmp_path / "no.onnx"), "No such file", hint="--onnx"):
        preflight(str(tmp_path / "no.onnx"))


def test_a_folder_and_a_pipe(tmp_path):
    with refused(MODEL, "is a folder"):
        preflight(str(tmp_path))
    with pipe_at(tmp_path / "pipe") as path:
        assert ends_within(2, lambda: check_file(path))
        with refused(MODEL, "not a regular file"):
            check_file(path)


def test_more_than_protobuf_can_hold(tmp_path):
    path = file(tmp_path, b"\x08\x08")
    os.truncate(path, PROTOBUF_LIMIT)  # sparse: takes no room on the disk
    check_file(path)
    os.truncate(path, PROTOBUF_LIMIT + 1)
    with refused(MODEL, f"{path} has {2**31} bytes", hint="external data"):
        preflight(path)


@pytest.mark.parametrize("suffix", ["json", "onnxtxt", "textproto"])
def test_the_suffix_does_not_decide_the_format(tmp_path, suffix):
    path = save(build_model([RELU]), tmp_path / f"m.{suffix}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert preflight(path)[1].nodes == 1


# ---- models with something wrong

STRINGS = value("x", [4], TensorProto.STRING)
NOTHING = onnx.ValueInfoProto(name="x")
OPTIONAL = helper.make_value_info("x", helper.make_optional_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [2])))
NAN_WEIGHT = ("w", np.array([1, np.nan, np.nan, 2], np.float32))


def relu(*names: str, name: str = "") -> onnx.NodeProto:
    return helper.make_node("Relu", [names[0]], [names[1]], name=name)


MODELS = {  # title: (model, fragments, hint)
    "no nodes": (build_model([]), ["without nodes", "0 nodes, 1 inputs, 1 outputs"], "export it again"),
    "no inputs": (build_model([RELU], inputs=[]), ["node 0 (Relu 'act')", "'x', which nothing makes"], "export it again"),
    "no outputs": (build_model([RELU], outputs=[]), ["without outputs", "1 nodes, 1 inputs, 0 outputs"], "export it again"),
    "made twice": (build_model([RELU, relu("x", "y")]), ["'y' is made twice", "node 0 (Relu 'act')", "node 1 (Relu)"], ""),
    "made by a node and given": (build_model([relu("x", "x"), RELU]), ["'x' is made twice", "an input or initializer", "node 0"], ""),
    "made by a node and stored": (build_model([relu("x", "w"), RELU], weights=[("w", W)]), ["'w' is made twice"], ""),
    "dangling input": (
        build_model([RELU, relu("ghost", "z", name="late")]),
        ["node 1 (Relu 'late')", "'ghost', which nothing makes"],
        "export it again",
    ),
    "dangling output": (build_model([RELU], outputs=[value("z", [4])]), ["output 'z' is made by no node"], ""),
    "input twice": (build_model([RELU], inputs=[value("x", [4])] * 2), ["input name 'x'", "twice"], ""),
    "string": (build_model([RELU], inputs=[STRINGS]), ["input 'x' is string"], "without text processing"),
    "uint16": (build_model([RELU], inputs=[value("x", [4], TensorProto.UINT16)]), ["input 'x' is uint16"], "Insert a Cast at that input"),
    "sequence": (
        build_model([RELU], inputs=[helper.make_tensor_sequence_value_info("x", 1, [2])]),
        ["'x' is a sequence, not a tensor"],
        "tensors only",
    ),
    "optional": (build_model([RELU], inputs=[OPTIONAL]), ["optional, not a tensor"], "tensors only"),
    "no type": (build_model([RELU], inputs=[NOTHING]), ["'x' is without a type"], ""),
    "huge size": (build_model([RELU], inputs=[value("x", [2**31])]), ["2147483648", "from 0 to 2147483647"], ""),
    "NaN weights": (adder(NAN_WEIGHT), ["'w'", "2 NaN among 4 values"], "export the model again"),
    "NaN half weights": (adder(("w", np.array([np.nan], np.float16))), ["1 NaN among 1"], ""),
    "NaN double weights": (adder(("w", np.array([np.nan, np.inf]))), ["1 NaN among 2"], ""),
    "NaN BF16 weights": (adder(helper.make_tensor("w", TensorProto.BFLOAT16, [2], [np.nan, 1.0])), ["1 NaN among 2"], ""),
    "NaN in a subgraph": (
        inside_if(helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(W * np.nan, "c"))),
        ["'c'", "4 NaN"],
        "",
    ),
    "raw data too short": (
        adder(TensorProto(name="w", dims=[4], data_type=1, raw_data=bytes(15))),
        ["'w'", "16 bytes, 15 are there"],
        "complete",
    ),
    "negative dimension": (adder(TensorProto(name="w", dims=[-4], data_type=1, raw_data=bytes(16))), ["negative dimension"], ""),
    "texts missing": (adder(TensorProto(name="w", dims=[4], data_type=8, raw_data=bytes(16))), ["'w'", "4 texts, 0 are there"], ""),
    "values of another type": (adder(TensorProto(name="w", dims=[4], data_type=1, int32_data=[1, 2, 3, 4])), ["4 values, 0 are there"], ""),
    "unknown element type": (
        adder(TensorProto(name="w", dims=[4], data_type=99, raw_data=bytes(16))),
        ["'w'", "element type 99 is unknown"],
        "",
    ),
    "external data missing": (adder(external("w", W, "w.bin")), ["'w'", "'w.bin' does not exist"], "beside the model"),
    "external data outside": (adder(external("w", W, "../w.bin")), ["'../w.bin' is not a path inside"], ""),
    "external data missing in a subgraph": (
        inside_if(helper.make_node("Constant", [], ["c"], value=external("c", W, "c.bin"))),
        ["'c.bin' does not exist"],
        "beside the model",
    ),
}


@pytest.mark.parametrize("title", MODELS)
def test_a_faulty_model_is_refused_with_the_fault_named(tmp_path, title):
    model, fragments, hint = MODELS[title]
    path = save(model, tmp_path / "m.onnx")
    with refused(MODEL, path, *fragments, hint=hint):
        preflight(path)


def test_a_graph_of_constants_is_taken_and_it_is_said(tmp_path):
    info = info_of(tmp_path, build_model([RELU], inputs=[value("x", [4])], weights=[("x", W)]))
    assert info.inputs == () and info.warnings == ("the graph has no inputs: its outputs are constants",)


def test_an_output_may_be_of_any_size_and_an_optional_input_left_out(tmp_path):
    clip = helper.make_node("Clip", ["x", "", "w"], ["y"])
    info = info_of(tmp_path, build_model([clip], weights=[("w", np.float32(1))], outputs=[value("y", [0, 2**40])]))
    assert info.outputs[0].shape == (0, 2**40)


def test_a_sparse_weight_can_be_read(tmp_path):
    model = build_model([helper.make_node("Add", ["x", "w"], ["y"])])
    values, indices = numpy_helper.from_array(W[:2], "w"), numpy_helper.from_array(np.array([0, 2]), "i")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))
    assert info_of(tmp_path, model).nodes == 1


def test_truncated_external_data(tmp_path):
    (tmp_path / "w.bin").write_bytes(W.tobytes()[:-1])
    with refused(MODEL, "'w.bin' has 15 bytes", "truncated"):
        info_of(tmp_path, adder(external("w", W, "w.bin")))


@pytest.mark.parametrize(
    ("domain", "name", "text"),
    [("", "stem/conv", "node 12 (Conv 'stem/conv')"), ("ai.onnx", "", "node 12 (Conv)"), ("my.ops", "a", "node 12 (my.ops.Conv 'a')")],
)
def test_describe(domain, name, text):
    assert describe(12, helper.make_node("Conv", [], [], name=name, domain=domain)) == text


@pytest.mark.parametrize(
    ("elem_type", "name"),
    [
        (TensorProto.FLOAT, "float32"),
        (TensorProto.BOOL, "bool"),
        (TensorProto.STRING, "string"),
        (TensorProto.BFLOAT16, "bfloat16"),
        (0, "of unknown type 0"),
        (99, "of unknown type 99"),
    ],
)
def test_dtype_name(elem_type, name):
    assert dtype_name(elem_type) == name


# ---- defects


def test_external_data_of_a_sparse_weight(tmp_path):
    (tmp_path / "w.bin").write_bytes(W.tobytes())
    model = build_model([helper.make_node("Add", ["x", "w"], ["y"])])
    indices = numpy_helper.from_array(np.arange(4), "i")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(external("w", W, "w.bin"), indices, [4]))
    assert info_of(tmp_path, model).nodes == 1


def test_nan_in_a_constant_names_the_node(tmp_path):
    node = helper.make_node("Constant", [], ["w"], name="the constant", value=numpy_helper.from_array(W * np.nan))
    with refused(MODEL, "the constant"):
        info_of(tmp_path, build_model([node, helper.make_node("Add", ["x", "w"], ["y"])]))


def test_two_weights_of_one_name(tmp_path):
    with refused(MODEL, "'w'"):
        info_of(tmp_path, build_model([helper.make_node("Add", ["x", "w"], ["y"])], weights=[("w", W), ("w", W + 1)]))


def test_a_dangling_input_in_a_subgraph(tmp_path):
    with refused(MODEL, "'ghost'"):
        info_of(tmp_path, inside_if(helper.make_node("Relu", ["ghost"], ["c"], name="inner")))


@pytest.mark.parametrize("text", [b"thename", b"theinput", b"thenote", b"theattribute"])
def test_text_that_is_no_text(tmp_path, text):
    """protobuf loads it, and complains when somebody reads it: in the middle of a conversion."""
    model = build_model([helper.make_node("LeakyRelu", ["x"], ["y"], name="thename", alpha=0.1)])
    model.graph.node[0].attribute.append(helper.make_attribute("theattribute", "a"))
    model.graph.node[0].doc_string = "thenote"
    model.graph.node.append(helper.make_node("Identity", ["x"], ["theinput"], name="other"))
    data = model.SerializeToString().replace(text, b"\xb4" + text[1:])
    (tmp_path / "m.onnx").write_bytes(data)
    with refused(MODEL, "m.onnx is damaged", "not UTF-8", hint="checksum"):
        preflight(str(tmp_path / "m.onnx"))


def test_no_opset_for_the_operators_of_onnx(tmp_path):
    model = build_model([RELU])
    del model.opset_import[:]
    with refused(MODEL, "declares no opset", "Relu", hint="export the model again"):
        info_of(tmp_path, model)
