"""model/external_data.py: every tensor has its bytes, and no file outside the model's folder is touched."""

import os

import numpy as np
import onnx
import pytest
from helpers import adder, build_model, external, inside_if, pipe_at, refused, save
from onnx import TensorProto, helper, numpy_helper

from onnx2trt.base.errors import ExitCode
from onnx2trt.model.external_data import ELEMENT_BITS, all_tensors, check_tensors
from onnx2trt.model.preflight import preflight

W = np.arange(4, dtype=np.float32)  # 16 bytes
MODEL = ExitCode.MODEL


def check(folder, model: onnx.ModelProto) -> tuple[str, ...]:
    return check_tensors(model, str(folder / "m.onnx"))


def data_file(folder, name: str = "w.bin", size: int = 16) -> str:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(bytes(size))
    return str(folder / name)


# ---- external data that is fine


@pytest.mark.parametrize(
    ("entries", "size"),
    [({}, 16), ({"offset": 0, "length": 16}, 16), ({"offset": 16}, 32), ({"offset": 100, "length": 16}, 116), ({"checksum": "x"}, 16)],
)
def test_data_that_is_there(tmp_path, entries, size):
    path = data_file(tmp_path, size=size)
    assert check(tmp_path, adder(external("w", W, "w.bin", **entries))) == (path,)


@pytest.mark.parametrize("shape", [(4,), (1, 2), ()])
def test_without_a_length_the_shape_tells_how_much_is_read(tmp_path, shape):
    """onnx reads on to the end of the file, and a conversion ended as unforeseen (seed 12, case 9)."""
    (tmp_path / "w.bin").write_bytes(np.arange(16, dtype=np.float32).tobytes())
    tensor = external("w", np.zeros(shape, np.float32), "w.bin", offset=8)
    loaded, _ = preflight(save(adder(tensor), tmp_path / "m.onnx"))
    found = numpy_helper.to_array(loaded.graph.initializer[0])
    assert found.shape == shape and np.array_equal(found.ravel(), np.arange(2, 2 + found.size))


def test_files_are_listed_once_and_sorted(tmp_path):
    paths = [data_file(tmp_path, name, 32) for name in ("a.bin", "sub/b.bin")]
    tensors = [external("u", W, "sub/b.bin"), external("v", W, "a.bin"), external("w", W, "a.bin", offset=16)]
    assert check(tmp_path, build_model([], weights=tensors)) == tuple(paths)


def test_a_model_without_external_data_has_no_files(tmp_path):
    assert check(tmp_path, adder(("w", W))) == ()


def test_the_folder_is_the_models_and_not_the_current_one(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    data_file(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path / "elsewhere")
    with refused(MODEL, "'w.bin' does not exist"):
        check(tmp_path, adder(external("w", W, "w.bin")))
    monkeypatch.chdir(tmp_path)
    data_file(tmp_path)
    assert check_tensors(adder(external("w", W, "w.bin")), "m.onnx") == (str(tmp_path / "w.bin"),)


def test_a_tensor_without_values_needs_no_bytes(tmp_path):
    data_file(tmp_path, size=0)
    assert check(tmp_path, adder(external("w", np.zeros((0, 3), np.float32), "w.bin", length=0)))


# ---- external data that is not


def test_a_missing_file_is_named_with_what_to_do(tmp_path):
    with refused(
        MODEL, "m.onnx: 1 tensor cannot be read", "tensor 'w'", "'w.bin' does not exist", hint="Copy the external data files beside"
    ):
        check(tmp_path, adder(external("w", W, "w.bin")))


def test_every_missing_file_is_listed(tmp_path):
    tensors = [external(name, W, f"{name}.bin") for name in "abc"]
    with refused(MODEL, "3 tensors", "'a': external data file 'a.bin'", "'b.bin'", "'c.bin'"):
        check(tmp_path, build_model([], weights=tensors))


def test_a_long_list_is_shortened(tmp_path):
    tensors = [external(f"t{i:02}", W, "w.bin") for i in range(25)]
    with refused(MODEL, "25 tensors", "'t09'", "... and 15 more"):
        check(tmp_path, build_model([], weights=tensors))


@pytest.mark.parametrize(
    ("entries", "fragments"),
    [
        ({}, ["'w.bin' has 15 bytes, but bytes 0 to 16 are needed: truncated?"]),
        ({"length": 16}, ["bytes 0 to 16 are needed"]),
        ({"offset": 4}, ["bytes 4 to 20 are needed"]),
        ({"offset": 16}, ["bytes 16 to 32"]),
        ({"offset": 10**30}, [str(10**30)]),
        ({"offset": -1}, ["offset is '-1', not a whole number"]),
        ({"length": -16}, ["length is '-16', not a whole number"]),
        ({"offset": "0x10"}, ["offset is '0x10'"]),
        ({"offset": "1.5"}, ["offset is '1.5'"]),
        ({"offset": "٣"}, ["offset is"]),
        ({"offset": ""}, ["offset is ''"]),
        ({"length": 12}, ["[4] needs 16 bytes", "length 12"]),
        ({"length": 15}, ["needs 16 bytes"]),
        ({"length": 20}, ["[4] needs 16 bytes", "length 20"]),
    ],
)
def test_a_range_that_does_not_fit(tmp_path, entries, fragments):
    data_file(tmp_path, size=15)
    with refused(MODEL, "tensor 'w'", *fragments, hint="complete"):
        check(tmp_path, adder(external("w", W, "w.bin", **entries)))


@pytest.mark.parametrize("offset", [17, 32, 1000])
def test_an_offset_too_near_the_end(tmp_path, offset):
    data_file(tmp_path, size=32)
    assert check(tmp_path, adder(external("w", W, "w.bin", offset=16)))
    with refused(MODEL, f"has 32 bytes, but bytes {offset} to {offset + 16} are needed"):
        check(tmp_path, adder(external("w", W, "w.bin", offset=offset)))


@pytest.mark.parametrize(
    "location",
    ["", "/etc/passwd", "../w.bin", "sub/../../w.bin", "..", "sub/..", "\\\\host\\w.bin", "..\\w.bin", "C:w.bin", "C:\\w.bin", "w\0.bin"],
)
def test_a_path_out_of_the_folder_is_not_followed(tmp_path, location):
    data_file(tmp_path)
    data_file(tmp_path, "inner/sub/w.bin")
    with refused(MODEL, "tensor 'w'", repr(location), "not a path inside the model's folder"):
        check(tmp_path / "inner", adder(external("w", W, location)))


def test_two_dots_inside_a_name_are_no_way_out(tmp_path):
    path = data_file(tmp_path, "a..b")
    assert check(tmp_path, adder(external("w", W, "a..b"))) == (path,)


def test_no_location_at_all(tmp_path):
    tensor = external("w", W, "w.bin")
    del tensor.external_data[:]
    with refused(MODEL, "location ''"):
        check(tmp_path, adder(tensor))


def test_a_symbolic_link_is_not_followed(tmp_path):
    (tmp_path / "w.bin").symlink_to(data_file(tmp_path, "real.bin"))
    with refused(MODEL, "'w.bin' goes through a symbolic link", "copy the file itself"):
        check(tmp_path, adder(external("w", W, "w.bin")))


def test_a_linked_folder_is_not_followed(tmp_path):
    data_file(tmp_path, "real/w.bin")
    (tmp_path / "sub").symlink_to(tmp_path / "real")
    with refused(MODEL, "'sub/w.bin' goes through a symbolic link"):
        check(tmp_path, adder(external("w", W, "sub/w.bin")))


def test_a_dangling_link_is_a_link(tmp_path):
    (tmp_path / "w.bin").symlink_to("nowhere")
    with refused(MODEL, "symbolic link"):
        check(tmp_path, adder(external("w", W, "w.bin")))


def test_a_hard_link_is_not_read(tmp_path):
    os.link(data_file(tmp_path, "real.bin"), tmp_path / "w.bin")
    with refused(MODEL, "'w.bin' has 2 hard links"):
        check(tmp_path, adder(external("w", W, "w.bin")))


def test_a_folder_a_pipe_and_a_file_as_a_folder(tmp_path):
    (tmp_path / "folder").mkdir()
    data_file(tmp_path, "file")
    with pipe_at(tmp_path / "pipe"), refused(MODEL, "'folder' is not a regular file", "'pipe' is not a regular", "'file/w' does not exist"):
        check(tmp_path, build_model([], weights=[external("w", W, name) for name in ("folder", "pipe", "file/w")]))


# ---- where tensors stand


def constant(name: str, tensor: TensorProto) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], name=name, value=tensor)


def sparse(name: str, values: TensorProto) -> onnx.SparseTensorProto:
    values.name = name
    return helper.make_sparse_tensor(values, numpy_helper.from_array(np.arange(4), f"{name}_indices"), [4])


def with_sparse_weight(tensor: TensorProto) -> onnx.ModelProto:
    model = build_model([helper.make_node("Add", ["x", "w"], ["y"])])
    model.graph.sparse_initializer.append(sparse("w", tensor))
    return model


def with_function(tensor: TensorProto) -> onnx.ModelProto:
    nodes = [constant("c", tensor), helper.make_node("Add", ["a", "c"], ["b"])]
    function = helper.make_function("local", "F", ["a"], ["b"], nodes, [helper.make_opsetid("", 17)])
    return build_model([helper.make_node("F", ["x"], ["y"], domain="local")], functions=[function])


def with_tensor_list(tensor: TensorProto) -> onnx.ModelProto:
    node = helper.make_node("Odd", ["x"], ["y"], domain="custom")
    node.attribute.append(onnx.AttributeProto(name="list", type=onnx.AttributeProto.TENSORS, tensors=[tensor]))
    return build_model([node])


def with_graph_list(tensor: TensorProto) -> onnx.ModelProto:
    node = helper.make_node("Odd", ["x"], ["y"], domain="custom")
    inner = helper.make_graph([], "inner", [], [], initializer=[tensor])
    node.attribute.append(onnx.AttributeProto(name="list", type=onnx.AttributeProto.GRAPHS, graphs=[inner]))
    return build_model([node])


def nested_if(tensor: TensorProto) -> onnx.ModelProto:
    inner = inside_if(constant("c", tensor)).graph.node[0]
    return inside_if(helper.make_node("Identity", ["x"], ["k"]), inner)


PLACES = {
    "initializer": adder,
    "sparse initializer": with_sparse_weight,
    "Constant": lambda tensor: build_model([constant("y", tensor)]),
    "subgraph": lambda tensor: inside_if(constant("c", tensor)),
    "subgraph of a subgraph": nested_if,
    "local function": with_function,
    "list of tensors": with_tensor_list,
    "list of graphs": with_graph_list,
}


@pytest.mark.parametrize("place", PLACES)
def test_tensors_are_checked_wherever_they_stand(tmp_path, place):
    with refused(MODEL, "'../w.bin' is not a path inside"):
        check(tmp_path, PLACES[place](external("w", W, "../w.bin")))
    data_file(tmp_path)
    assert check(tmp_path, PLACES[place](external("w", W, "w.bin"))) == (str(tmp_path / "w.bin"),)
    assert any(tensor.name == "w" for tensor in all_tensors(PLACES[place](numpy_helper.from_array(W, "w"))))


def test_a_sparse_constant_is_checked(tmp_path):
    node = helper.make_node("Constant", [], ["y"], sparse_value=sparse("w", external("w", W, "../../etc/passwd")))
    with refused(MODEL, "'../../etc/passwd' is not a path inside"):
        check(tmp_path, build_model([node]))


def test_a_constant_is_named_by_its_node(tmp_path):
    with refused(MODEL, "stem/weights"):
        check(tmp_path, build_model([constant("stem/weights", external("", W, "w.bin"))]))


# ---- data inside the model


def typed(elem_type: int, dims, **fields) -> TensorProto:
    return TensorProto(name="w", data_type=elem_type, dims=dims, **fields)


FITTING = [
    typed(TensorProto.FLOAT, [2, 2], raw_data=bytes(16)),
    typed(TensorProto.FLOAT, [], raw_data=bytes(4)),
    typed(TensorProto.FLOAT, [0, 3]),
    typed(TensorProto.FLOAT, [3], float_data=[1, 2, 3]),
    typed(TensorProto.FLOAT16, [3], int32_data=[1, 2, 3]),
    typed(TensorProto.BOOL, [3], int32_data=[1, 0, 1]),
    typed(TensorProto.INT4, [3], raw_data=bytes(2)),
    typed(TensorProto.INT4, [3], int32_data=[1, 2]),
    typed(TensorProto.DOUBLE, [2], double_data=[1, 2]),
    typed(TensorProto.INT64, [2], int64_data=[1, 2]),
    typed(TensorProto.UINT64, [2], uint64_data=[1, 2]),
    typed(TensorProto.COMPLEX64, [2], float_data=[1, 2, 3, 4]),
    typed(TensorProto.COMPLEX128, [2], double_data=[1, 2, 3, 4]),
    typed(TensorProto.STRING, [2], string_data=[b"a", b"b"]),
]
UNFITTING = [
    (typed(TensorProto.FLOAT, [2, 2], raw_data=bytes(15)), "shape [2, 2] needs 16 bytes, 15 are there"),
    (typed(TensorProto.FLOAT, [2, 2], raw_data=bytes(17)), "needs 16 bytes, 17 are there"),
    (typed(TensorProto.FLOAT, [2], raw_data=b""), "needs 8 bytes, 0 are there"),
    (typed(TensorProto.FLOAT, [3]), "needs 3 values, 0 are there"),
    (typed(TensorProto.FLOAT, [3], float_data=[1, 2]), "shape [3] needs 3 values, 2 are there"),
    (typed(TensorProto.INT4, [3], raw_data=bytes(3)), "needs 2 bytes, 3 are there"),
    (typed(TensorProto.COMPLEX64, [2], float_data=[1, 2]), "needs 4 values, 2 are there"),
    (typed(TensorProto.FLOAT, [-4], raw_data=bytes(16)), "negative dimension in [-4]"),
    (typed(TensorProto.FLOAT, [1] * 33, raw_data=bytes(4)), "33 dimensions"),
    (typed(TensorProto.FLOAT, [0, 2**62], raw_data=b""), "no array can have"),
    (typed(TensorProto.FLOAT, [2**40, 2**40, 0], raw_data=b""), "no array can have"),
    (typed(TensorProto.FLOAT, [-2, -2], float_data=[1, 2, 3, 4]), "negative dimension in [-2, -2]"),
    (typed(TensorProto.FLOAT, [2**40, 2**40], raw_data=bytes(16)), "no array can have"),
    (typed(TensorProto.FLOAT, [1], raw_data=bytes(4), segment=TensorProto.Segment(begin=0, end=1)), "segmented"),
]


@pytest.mark.parametrize("tensor", FITTING, ids=lambda tensor: str(tensor).replace("\n", " "))
def test_data_that_fits_its_shape(tmp_path, tensor):
    assert check(tmp_path, adder(tensor)) == ()


@pytest.mark.parametrize(("tensor", "fragment"), UNFITTING, ids=[fragment for _, fragment in UNFITTING])
def test_data_that_does_not_fit_its_shape(tmp_path, tensor, fragment):
    with refused(MODEL, "tensor 'w'", fragment, hint="again, complete"):
        check(tmp_path, adder(tensor))


@pytest.mark.parametrize("elem_type", ELEMENT_BITS, ids=TensorProto.DataType.Name)
def test_bits_of_an_element(tmp_path, elem_type):
    """As onnx stores 8 elements."""
    tensor = numpy_helper.from_array(np.zeros(8).astype(helper.tensor_dtype_to_np_dtype(elem_type)), "w")
    assert len(tensor.raw_data) == ELEMENT_BITS[elem_type]
    assert check(tmp_path, adder(tensor)) == ()
