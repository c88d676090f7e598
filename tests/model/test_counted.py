"""model/counted.py: what a small file may not ask for, refused before anything of it is done."""

import random

import numpy as np
import onnx
import pytest
from helpers import refused
from onnx import helper, numpy_helper

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.model.counted import (
    MANY_IO,
    MANY_NODES,
    MOST_IO,
    MOST_NAME,
    MOST_NESTED,
    MOST_NODES,
    MOST_OPERANDS,
    MOST_RUNS,
    check_counts,
    check_functions,
    check_names,
    check_sizes,
    check_sparse,
    what_takes_long,
)
from onnx2trt.model.graph import Graph

F, INT64, BOOL = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.BOOL


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


def test_of_constants_that_are_too_large_together_the_largest_is_named():
    nodes = [helper.make_node("Expand", ["one", "s"], ["t"], "blows"), helper.make_node("Tile", ["one", "few"], ["u"], "tiles")]
    nodes += [helper.make_node("CumSum", ["t", "axis"], ["v"], "sums"), helper.make_node("ReduceSum", ["v"], ["r"], "ends", keepdims=0)]
    weights = [("one", np.ones(1, np.float32)), ("s", np.array([2**28])), ("few", np.array([3])), ("axis", np.int64(0))]
    model = built([*nodes, helper.make_node("Add", ["x", "r"], ["y"])], weights)
    with refused(ExitCode.MODEL, "node 'blows' (Expand) would make 2.0 GB out of constants alone: 't' has 268435456 values"):
        check_sizes(Graph.from_model(model), (), "m.onnx")


def test_a_tensor_that_no_gpu_has_room_for_is_named():
    nodes = [helper.make_node("Expand", ["x", "s"], ["t"], "blows"), helper.make_node("ReduceMax", ["t"], ["y"], keepdims=0)]
    with refused(ExitCode.MODEL, "node 'blows' (Expand)", "'t' has 2x17179869184x4 values"):
        check_sizes(Graph.from_model(built(nodes, [("s", np.array([2, 2**34, 4]))])), (), "m.onnx")


def test_usual_models_are_taken():
    nodes = [helper.make_node("Expand", ["w", "s"], ["t"]), helper.make_node("Add", ["x", "t"], ["y"])]
    check_sizes(Graph.from_model(built(nodes, [("w", np.ones(1, np.float32)), ("s", np.array([2**20, 4]))])), (), "m.onnx")


# ---- how many there are


def with_io(inputs, outputs):
    """So many inputs, of which the first is what all outputs are made of."""
    values = [
        [helper.make_tensor_value_info(f"{kind}{index}", F, [1, 4]) for index in range(count)]
        for kind, count in (("x", inputs), ("y", outputs))
    ]
    nodes = [helper.make_node("Relu", ["x0"], [value.name]) for value in values[1]]
    nodes += [helper.make_node("Identity", [value.name], [f"unused_{value.name}"]) for value in values[0]]
    return helper.make_model(helper.make_graph(nodes, "g", *values), opset_imports=[helper.make_opsetid("", 17)])


@pytest.mark.parametrize("inputs, outputs", [(1, MOST_IO), (MOST_IO, 1), (MOST_IO // 2, MOST_IO // 2 + 1)])
def test_inputs_and_outputs_are_counted(inputs, outputs):
    with refused(ExitCode.MODEL, f"has {inputs} inputs and {outputs} outputs; {MOST_IO} are taken", hint="Join them"):
        check_counts(with_io(inputs, outputs), "m.onnx")
    check_counts(with_io(inputs, MOST_IO - inputs), "m.onnx")


def wide(count, name="Sum"):
    return helper.make_node(name, ["x"] + ["w"] * (count - 1), ["y"], "wide")


def test_operands_of_one_node_are_counted_in_bodies_and_functions_too():
    body = helper.make_graph([wide(MOST_OPERANDS)], "body", [], [helper.make_tensor_value_info("y", F, None)])
    inner = helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)
    local = helper.make_function("d", "f", ["x", "w"], ["y"], [wide(MOST_OPERANDS)], [helper.make_opsetid("", 17)])
    for model in (built([wide(MOST_OPERANDS)]), built([inner]), built(call("f"), functions=[local])):
        with refused(ExitCode.MODEL, f"node 'wide' (Sum) has {MOST_OPERANDS} inputs and 1 outputs"):
            check_counts(model, "m.onnx")
    check_counts(built([wide(MOST_OPERANDS - 1)]), "m.onnx")


def long_node(place):
    return {
        "node": lambda name: built([helper.make_node("Relu", ["x"], ["y"], name)]),
        "operator": lambda name: built([helper.make_node(name, ["x"], ["y"])]),
        "domain": lambda name: built([helper.make_node("Relu", ["x"], ["y"], domain=name)]),
        "tensor": lambda name: built([helper.make_node("Relu", ["x"], [name]), helper.make_node("Relu", [name], ["y"])]),
        "attribute": lambda name: built([helper.make_node("Relu", ["x"], ["y"], **{name: 1})]),
        "weight": lambda name: built([helper.make_node("Relu", ["x"], ["y"])], [(name, np.ones(1, np.float32))]),
        "function": lambda name: built(
            [helper.make_node("Relu", ["x"], ["y"])], functions=[helper.make_function("d", name, ["x"], ["y"], [], [])]
        ),
        "in a body": lambda name: built([loop(inner=helper.make_node("Relu", ["v"], ["vo"], name))]),
    }[place]


@pytest.mark.parametrize("place", ["node", "operator", "domain", "tensor", "attribute", "weight", "function", "in a body"])
def test_a_name_that_fills_the_screen_is_refused_and_cut_off(place):
    make = long_node(place)
    check_names(make("n" * MOST_NAME), "m.onnx")
    with pytest.raises(ConversionError, match=f"has {MOST_NAME + 1} characters; {MOST_NAME} are taken") as caught:
        check_names(make("n" * (MOST_NAME + 1)), "m.onnx")
    assert len(caught.value.message) < 300 and caught.value.code == ExitCode.MODEL


def test_names_of_inputs_and_their_dimensions_are_looked_at():
    model = built([helper.make_node("Relu", ["x"], ["y"])])
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n" * (MOST_NAME + 1)
    with refused(ExitCode.MODEL, "of a dimension has 10001 characters"):
        check_names(model, "m.onnx")
    model.graph.input[0].name = "x" * (MOST_NAME + 1)
    with refused(ExitCode.MODEL, "of an input or output has 10001 characters"):
        check_names(model, "m.onnx")


def test_what_takes_minutes_is_said_and_nothing_else():
    relus = [helper.make_node("Relu", [f"t{index}" if index else "x"], [f"t{index + 1}"]) for index in range(MANY_NODES + 1)]
    relus[-1].output[0] = "y"
    (said,) = check_sizes(Graph.from_model(built(relus)), (), "m.onnx")
    assert f"has {MANY_NODES + 1} nodes: TensorRT's time" in said
    assert f"has a node with {MANY_IO + 1} operands" in what_takes_long(
        Graph.from_model(built([wide(MANY_IO)], [("w", np.ones(4, np.float32))]))
    )
    assert f"has 1 inputs and {MANY_IO} outputs" in what_takes_long(Graph.from_model(with_io(1, MANY_IO)))
    assert check_sizes(Graph.from_model(built([helper.make_node("Relu", ["x"], ["y"])])), (), "m.onnx") == ()


@pytest.mark.parametrize("op_type, said", [("Expand", True), ("Cast", False)])
def test_constants_that_grow_large_are_said_and_large_weights_are_not(op_type, said, monkeypatch):
    monkeypatch.setattr("onnx2trt.model.counted.MANY_CONSTANT_BYTES", 2**10)
    sizes, given = np.array([1000, 4]), np.ones((1, 4) if said else (1000, 4), np.float32)
    attributes, names = ({}, ["w", "s"]) if said else ({"to": F}, ["w"])
    nodes = [helper.make_node(op_type, names, ["t"], **attributes), helper.make_node("ReduceSum", ["t"], ["r"], keepdims=0)]
    model = built([*nodes, helper.make_node("Add", ["x", "r"], ["y"])], [("w", given), ("s", sizes)])
    assert bool(check_sizes(Graph.from_model(model), (), "m.onnx")) == said


GROWING = {  # operator -> (its other inputs' arrays, attributes), of a node that makes 2**16 values and more of four
    "Expand": ([np.array([2**14, 4])], {}),
    "Tile": ([np.array([2**14, 1])], {}),
    "Resize": ([np.array([], np.float32), np.array([1, 2**14], np.float32)], {"mode": "nearest"}),
    "Pad": ([np.array([0, 2**15, 0, 2**15])], {}),
    "Gather": ([np.zeros(2**16, np.int64)], {"axis": 1}),
    "Add": ([np.ones((2**14, 1), np.float32)], {}),
    "MatMul": ([np.ones((4, 2**16), np.float32)], {}),
}


@pytest.mark.parametrize("op_type", GROWING)
def test_tensors_that_grow_large_are_said(op_type, monkeypatch):
    arrays, attributes = GROWING[op_type]
    names = [f"c{index}" for index in range(len(arrays))]
    nodes = [
        helper.make_node(op_type, ["x", *names], ["t"], "blows", **attributes),
        helper.make_node("ReduceMax", ["t"], ["y"], keepdims=0),
    ]
    graph = Graph.from_model(built(nodes, list(zip(names, arrays))))
    assert check_sizes(graph, (), "m.onnx") == ()
    monkeypatch.setattr("onnx2trt.model.counted.MANY_ALIVE_BYTES", 2**17)
    (said,) = check_sizes(graph, (), "m.onnx")
    assert "one inference holds tensors of" in said


# ---- loops


def loop(ends=False, inner=None, steps="m"):
    """A Loop of as many steps as an input says, whose condition a step may make false."""
    values = [
        helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in (("i", INT64, []), ("c", BOOL, []), ("v", F, [1, 4]))
    ]
    condition = [helper.make_node("Identity", ["c"], ["c1"]), helper.make_node("Not" if ends else "Identity", ["c1"], ["co"])]
    made = [helper.make_tensor_value_info("co", BOOL, []), helper.make_tensor_value_info("vo", F, [1, 4])]
    body = helper.make_graph([*condition, inner or helper.make_node("Relu", ["v"], ["vo"])], "body", values, made)
    return helper.make_node("Loop", [steps, "", "x" if steps == "m" else "v"], ["y" if steps == "m" else "vo"], "round", body=body)


def looped(node, **steps):
    check_sizes(Graph.from_model(built([node], [(name, np.array(count)) for name, count in steps.items()])), (), "m.onnx")


@pytest.mark.parametrize("trips", [MOST_RUNS, 2**62])
def test_a_loop_that_nothing_ends_is_counted(trips):
    with refused(ExitCode.MODEL, f"Loop 'round' has a constant number of {trips} steps", hint=f"{MOST_RUNS} times"):
        looped(loop(), m=trips)


def test_loops_in_loops_are_multiplied():
    with refused(ExitCode.MODEL, "has a constant number of 10000 steps"):
        looped(loop(inner=loop(steps="k")), m=10**4, k=10**4)
    looped(loop(inner=loop(steps="k")), m=10**2, k=10**2)


def test_loops_one_behind_the_other_are_added_up():
    """Ten of three nodes each; from a million runs on it is said."""

    def remarks(loops, steps):
        names = ["x", *(f"y{index}" for index in range(loops - 1)), "y"]
        chain = [loop() for _ in range(loops)]
        for index, node in enumerate(chain):
            node.input[2], node.output[0], node.name = names[index], names[index + 1], f"round {index}"
        return check_sizes(Graph.from_model(built(chain, [("m", np.array(steps))])), (), "m.onnx")

    assert remarks(10, 600) == ()
    assert "one inference runs nodes 1800010 times, most of them in loops" in " ".join(remarks(10, 60_000))
    with refused(ExitCode.MODEL, "each inference would run nodes 18000010 times, most of them in loops"):
        remarks(10, 600_000)


def test_loops_that_end_by_a_condition_are_taken():
    looped(loop(ends=True), m=2**62)
    looped(loop(), m=1000)


def growing(how, size):
    """An If or a Loop of 1000 steps in whose bodies an Expand makes so many values; the size stands outside."""
    made = [helper.make_tensor_value_info("grown", F, None)]
    expand = helper.make_node("Expand", ["one", "size"], ["grown"], "blows")
    if how == "If":
        body = helper.make_graph([expand], "branch", [], made)
        node = helper.make_node("If", ["c"], ["t"], "outer", then_branch=body, else_branch=body)
    else:
        values = [helper.make_tensor_value_info(name, kind, []) for name, kind in (("i", INT64), ("ci", BOOL))]
        on = helper.make_node("Identity", ["ci"], ["co"])
        body = helper.make_graph([on, expand], "step", values, [helper.make_tensor_value_info("co", BOOL, []), *made])
        node = helper.make_node("Loop", ["steps", ""], ["t"], "outer", body=body)
    nodes = [helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0), helper.make_node("Cast", ["s"], ["c"], to=BOOL), node]
    nodes += [helper.make_node("ReduceMax", ["t"], ["r"], keepdims=0), helper.make_node("Add", ["x", "r"], ["y"])]
    weights = [("one", np.ones(1, np.float32)), ("size", np.array([size])), ("steps", np.array(1000))]
    return Graph.from_model(built(nodes, weights))


@pytest.mark.parametrize("how, size", [("If", 2**27), ("Loop", 2**17)])
def test_what_bodies_make_is_counted_by_constants_outside(how, size):
    said = check_sizes(growing(how, size), (), "m.onnx")
    assert any("one inference holds tensors of 0.5 GB" in text for text in said)
    assert check_sizes(growing(how, 2**10), (), "m.onnx") == ()


@pytest.mark.parametrize("how", ["If", "Loop"])
def test_what_bodies_make_of_constants_without_bound_is_refused(how):
    with refused(ExitCode.MODEL, "node 'outer'", "would make"):
        check_sizes(growing(how, 2**40), (), "m.onnx")
