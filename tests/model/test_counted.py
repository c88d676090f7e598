"""model/counted.py: what a small file may not ask for, refused before anything of it is done."""

import random

import numpy as np
import onnx
import pytest
from helpers import refused
from onnx import helper, numpy_helper

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.model.counted import MOST_NESTED, MOST_NODES, check_functions, check_sizes, check_sparse
from onnx2trt.model.graph import Graph

F = onnx.TensorProto.FLOAT


def built(nodes, weights=(), functions=(), sparse=()):
    values = [helper.make_tensor_value_info(name, F, [1, 4]) for name in "xy"]
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in weights]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], tensors)
    graph.sparse_initializer.extend(sparse)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("d", 1)]
    return helper.make_model(graph, opset_imports=opsets, functions=list(functions))


def function(name, *calls):
    """A chain of calls, or a Relu."""
    inner = [("Relu", "")] if not calls else [(call, "d") for call in calls]
    names = ["a", *(f"t{index}" for index in range(len(inner) - 1)), "b"]
    nodes = [helper.make_node(call, [names[i]], [names[i + 1]], domain=domain) for i, (call, domain) in enumerate(inner)]
    return helper.make_function("d", name, ["a"], ["b"], nodes, [helper.make_opsetid("", 17), helper.make_opsetid("d", 1)])


def call(name):
    return [helper.make_node(name, ["x"], ["y"], domain="d")]


def test_functions_that_double_are_counted_without_being_written_out():
    doubling = [function("f0"), *(function(f"f{index}", *[f"f{index - 1}"] * 2) for index in range(1, 41))]
    with refused(ExitCode.MODEL, f"has {2**40} nodes", f"{MOST_NODES} are taken"):
        check_functions(built(call("f40"), functions=doubling), "m.onnx")
    check_functions(built(call("f15"), functions=doubling), "m.onnx")


def test_random_functions_are_counted_as_onnx_writes_them_out():
    draw = random.Random(3)
    for _ in range(25):
        functions = [function("f0")]
        for index in range(1, 6):
            functions.append(function(f"f{index}", *(f"f{draw.randrange(index)}" for _ in range(draw.randrange(1, 4)))))
        model = built(call("f5"), functions=functions)
        count = len(onnx.inliner.inline_local_functions(model).graph.node)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("onnx2trt.model.counted.MOST_NODES", count)
            check_functions(model, "m.onnx")
            patch.setattr("onnx2trt.model.counted.MOST_NODES", count - 1)
            with refused(ExitCode.MODEL, f"has {count} nodes"):
                check_functions(model, "m.onnx")


@pytest.mark.parametrize("calls", [{"f0": ["f0"]}, {"f0": ["f1"], "f1": ["f0"]}, {"f0": ["f1"], "f1": ["f2"], "f2": ["f1"]}], ids=str)
def test_functions_that_call_themselves_are_named(calls):
    with refused(ExitCode.MODEL, "calls itself"):
        check_functions(built(call("f0"), functions=[function(name, *inner) for name, inner in calls.items()]), "m.onnx")


@pytest.mark.parametrize("depth, good", [(MOST_NESTED, True), (MOST_NESTED + 1, False), (5000, False)])
def test_functions_may_be_nested_as_deeply_as_onnx_takes_them(depth, good):
    chain = [function("f1"), *(function(f"f{index}", f"f{index - 1}") for index in range(2, depth + 1))]
    model = built(call(f"f{depth}"), functions=chain)
    if good:
        check_functions(model, "m.onnx")
        Graph.from_model(model)
    else:
        with refused(ExitCode.MODEL, f"{depth} deep"):
            check_functions(model, "m.onnx")


def test_a_diamond_of_functions_is_no_cycle():
    functions = [function("f0"), function("f1", "f0"), function("f2", "f0", "f1"), function("f3", "f2", "f1", "f0")]
    check_functions(built(call("f3"), functions=functions), "m.onnx")


def sparse(dims, indices):
    tensor = onnx.SparseTensorProto()
    tensor.values.CopyFrom(numpy_helper.from_array(np.ones(len(indices), np.float32), "w"))
    tensor.indices.CopyFrom(numpy_helper.from_array(np.array(indices, np.int64), "i"))
    tensor.dims.extend(dims)
    return tensor


@pytest.mark.parametrize(
    "dims, indices, said",
    [
        ((2**20, 2**20), [0], "4096.0 GB"),
        ((-4,), [0], "negative size"),
        ((4,), [10**9], "outside of 4"),
        ((4,), [-1], "outside of 4"),
        ((2, 3), [[1, 3]], "outside of 2x3"),
        ((2, 3), [[1]], "indices"),
    ],
)
def test_sparse_tensors_are_looked_at_before_they_are_written_out(dims, indices, said):
    with refused(ExitCode.MODEL, "sparse tensor 'w'", said):
        check_sparse(built([helper.make_node("Relu", ["x"], ["y"])], sparse=[sparse(dims, indices)]), "m.onnx")


@pytest.mark.parametrize("dims, indices", [((4,), [2]), ((2, 3), [5]), ((2, 3), [[1, 2], [0, 0]])])
def test_a_sparse_tensor_that_is_one_is_taken(dims, indices):
    check_sparse(built([helper.make_node("Relu", ["x"], ["y"])], sparse=[sparse(dims, indices)]), "m.onnx")


CONSTANTS = {  # operator -> (its inputs' arrays, attributes)
    "ConstantOfShape": ([np.array([2**20, 2**20])], {}),
    "Range": ([np.float32(0), np.float32(1e10), np.float32(1)], {}),
    "MatMul": ([np.ones((10**5, 1), np.float32), np.ones((1, 10**5), np.float32)], {}),
    "Add": ([np.ones((10**5, 1), np.float32), np.ones((1, 10**5), np.float32)], {}),
    "Expand": ([np.ones(1, np.float32), np.array([2**34])], {}),
    "Tile": ([np.ones(1000, np.float32), np.array([10**8])], {}),
    "Pad": ([np.ones(4, np.float32), np.array([10**11, 10**11])], {}),
    "OneHot": ([np.zeros(10**5, np.int64), np.int64(10**6), np.array([0, 1], np.float32)], {}),
    "Gather": ([np.ones((1, 10**5), np.float32), np.zeros(10**5, np.int64)], {}),
}


@pytest.mark.parametrize("op_type", CONSTANTS)
def test_what_nodes_would_make_of_constants_alone_is_counted(op_type):
    arrays, attributes = CONSTANTS[op_type]
    names = [f"c{index}" for index in range(len(arrays))]
    nodes = [helper.make_node(op_type, names, ["t"], "blows", **attributes), helper.make_node("ReduceSum", ["t"], ["r"], keepdims=0)]
    model = built([*nodes, helper.make_node("Add", ["x", "r"], ["y"])], list(zip(names, arrays)))
    with refused(ExitCode.MODEL, f"node 'blows' ({op_type})", "out of constants alone"):
        check_sizes(Graph.from_model(model), (), "m.onnx")


def test_a_chain_that_doubles_is_counted_in_no_time():
    nodes = [helper.make_node("Concat", [f"t{index}"] * 2, [f"t{index + 1}"], axis=0) for index in range(40)]
    nodes += [helper.make_node("ReduceSum", ["t40"], ["r"], keepdims=0), helper.make_node("Add", ["x", "r"], ["y"])]
    with pytest.raises(ConversionError, match="out of constants alone"):
        check_sizes(Graph.from_model(built(nodes, [("t0", np.ones(16, np.float32))])), (), "m.onnx")


def test_a_tensor_that_no_gpu_has_room_for_is_named():
    nodes = [helper.make_node("Expand", ["x", "s"], ["t"], "blows"), helper.make_node("ReduceMax", ["t"], ["y"], keepdims=0)]
    with refused(ExitCode.MODEL, "node 'blows' (Expand)", "'t' has 2x17179869184x4 values"):
        check_sizes(Graph.from_model(built(nodes, [("s", np.array([2, 2**34, 4]))])), (), "m.onnx")


def test_usual_models_are_taken():
    nodes = [helper.make_node("Expand", ["w", "s"], ["t"]), helper.make_node("Add", ["x", "t"], ["y"])]
    check_sizes(Graph.from_model(built(nodes, [("w", np.ones(1, np.float32)), ("s", np.array([2**20, 4]))])), (), "m.onnx")
