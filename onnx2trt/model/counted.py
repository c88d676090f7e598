"""What a model asks for, counted before it is done: a few kB can stand for more nodes and larger tensors than there is room for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from itertools import chain

import numpy as np
import onnx
from onnx import numpy_helper

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.model_info import Profile
from onnx2trt.model.graph import Graph, array_of, constant_value
from onnx2trt.model.infer import infer_shapes
from onnx2trt.model.inference_memory import peak_bytes
from onnx2trt.model.nodes import captured, reads, subgraphs, with_inner_nodes
from onnx2trt.model.observe import static_shapes
from onnx2trt.model.structure import true_inputs

MOST_NODES = 50_000  # once local functions are written out; the largest exports of language models have some 20 000
MOST_NESTED = 100  # functions that call one another: onnx itself writes out no more
MOST_IO = 5_000  # inputs and outputs; what is said of each, and TensorRT's time, adds up
MOST_OPERANDS = 5_000  # that one node reads, or makes
MOST_NAME = 10_000  # characters; exports join the names of nested modules to some hundreds
# from which on a build takes minutes: TensorRT-RTX 1.7 took 1 s of one core for a chain of 1000 nodes, 4 s for 2000, 240 s for 10 000
MANY_NODES = 5_000
MANY_IO = 1_000  # also of the operands of one node
MOST_CONSTANT_BYTES = 2**31  # of what nodes make out of constants alone
MANY_CONSTANT_BYTES = 2**28  # from which on it is said
MANY_ALIVE_BYTES = 2**28  # of the tensors of one inference; the model, what is made of it, and calibration hold them several times
MOST_RUNS = 10**7  # of nodes in loops, within one inference; ONNX Runtime takes some 20 seconds for so many
MANY_RUNS = 10**6  # from which on it is said
MOST_ALIVE_BYTES = 2**37  # of one tensor: no GPU has room for more
BYTES = 4  # of a value; most are float32
SHOWN = 60  # characters of a name that is too long
MOST_DIMS = 64  # values of a constant that may be a shape


def check_names(model: onnx.ModelProto, path: str) -> None:
    """
    Raises:
        ConversionError: MODEL, for a name too long to stand in a message.
    """
    for what, name in _names(model):
        if len(name) > MOST_NAME:
            raise ConversionError(
                f"{path}: the name {name[:SHOWN]!r}... of {what} has {len(name)} characters; {MOST_NAME} are taken",
                hint="Export the model with shorter names.",
                code=ExitCode.MODEL,
            )


def _names(model: onnx.ModelProto) -> Iterator[tuple[str, str]]:
    """(what is called so, name)"""
    for entry in model.opset_import:
        yield "a domain", entry.domain
    for value in (*model.graph.input, *model.graph.output):
        yield "an input or output", value.name
        yield from (("a dimension", dim.dim_param) for dim in value.type.tensor_type.shape.dim)
    yield from (("a tensor", tensor.name) for tensor in model.graph.initializer)
    yield from (("a tensor", tensor.values.name) for tensor in model.graph.sparse_initializer)
    for function in model.functions:
        yield from (("a function", name) for name in (function.name, function.domain))
    for node in _with_inner((*model.graph.node, *(node for function in model.functions for node in function.node))):
        yield from (("a node", name) for name in (node.name, node.op_type, node.domain))
        yield from (("a tensor", name) for name in (*node.input, *node.output))
        yield from (("an attribute", entry.name) for entry in node.attribute)


def check_functions(model: onnx.ModelProto, path: str) -> None:
    """
    Raises:
        ConversionError: MODEL, for local functions that call themselves, are nested too deeply, or stand for too many nodes.
    """
    bodies = {(function.domain, function.name): function.node for function in model.functions}
    known: dict[tuple[str, str], tuple[int, int]] = {}  # function -> (nodes that a call stands for, calls that are nested in it)

    def called(nodes) -> list[tuple[str, str]]:
        return [(node.domain, node.op_type) for node in _with_inner(nodes) if (node.domain, node.op_type) in bodies]

    def total(nodes) -> tuple[int, int]:
        calls = [known[name] for name in called(nodes)]
        own = sum(1 for _ in _with_inner(nodes)) - len(calls)
        return own + sum(count for count, _ in calls), 1 + max((depth for _, depth in calls), default=0)

    calls, waiting = {}, called(model.graph.node)
    while waiting:  # of those that nobody calls nothing is asked
        name = waiting.pop()
        if name not in calls:
            calls[name] = called(bodies[name])
            waiting += calls[name]
    try:
        for name in TopologicalSorter(calls).static_order():
            known[name] = total(bodies[name])
    except CycleError as error:
        raise ConversionError(
            f"{path}: local function {error.args[1][0][1]!r} calls itself", hint="Export the model again.", code=ExitCode.MODEL
        ) from None
    count, depth = total(model.graph.node)
    if depth - 1 > MOST_NESTED:
        raise ConversionError(
            f"{path}: local functions call one another {depth - 1} deep; {MOST_NESTED} are taken",
            hint="Export the model without them (onnx.inliner writes them out).",
            code=ExitCode.MODEL,
        )
    if count > MOST_NODES:
        written_out = ", its local functions written out," if known else ""
        raise ConversionError(
            f"{path}: the model{written_out} has {count} nodes; {MOST_NODES} are taken",
            hint="Convert it in parts, or export it with fewer, larger operators.",
            code=ExitCode.MODEL,
        )


def check_counts(model: onnx.ModelProto, path: str) -> None:
    """
    Raises:
        ConversionError: MODEL, for more inputs and outputs, or more operands of one node, than anybody would wait for.
    """
    inputs, outputs = len(true_inputs(model.graph)), len(model.graph.output)
    if inputs + outputs > MOST_IO:
        raise ConversionError(
            f"{path}: the model has {inputs} inputs and {outputs} outputs; {MOST_IO} are taken together",
            hint="Join them into fewer, larger tensors, or convert the model in parts.",
            code=ExitCode.MODEL,
        )
    functions = (node for function in model.functions for node in function.node)
    for node in _with_inner((*model.graph.node, *functions)):
        if len(node.input) + len(node.output) > MOST_OPERANDS:
            raise ConversionError(
                f"{path}: node {node.name!r} ({node.op_type}) has {len(node.input)} inputs and {len(node.output)} outputs; "
                f"{MOST_OPERANDS} are taken together",
                hint="Join them in several steps.",
                code=ExitCode.MODEL,
            )


def what_takes_long(graph: Graph) -> str:
    """What of a graph makes TensorRT work for minutes, as a sentence; empty where nothing does."""
    operands = max((len(node.input) + len(node.output) for node in graph.nodes), default=0)
    found = []
    if len(graph.nodes) > MANY_NODES:
        found.append(f"{len(graph.nodes)} nodes")
    if len(graph.input_names) + len(graph.output_names) > MANY_IO:
        found.append(f"{len(graph.input_names)} inputs and {len(graph.output_names)} outputs")
    if operands > MANY_IO:
        found.append(f"a node with {operands} operands")
    if not found:
        return ""
    return f"the model has {' and '.join(found)}: TensorRT's time grows with the square of their number, so the build may take many minutes"


def _with_inner(nodes) -> Iterator[onnx.NodeProto]:
    """The nodes, and those of graphs inside them."""
    return chain.from_iterable(map(with_inner_nodes, nodes))


def check_sparse(model: onnx.ModelProto, path: str) -> None:
    """
    Args:
        model: with all its data in memory.

    Raises:
        ConversionError: MODEL, for sizes that are none or that nobody has room for (sparse tensors are written out), and for values that
            stand outside.
    """
    for sparse in _sparse_tensors(model):
        dims, name = tuple(sparse.dims), sparse.values.name
        count, shown = math.prod(dims), "x".join(map(str, dims))
        if any(size < 0 for size in dims):
            raise ConversionError(f"{path}: sparse tensor {name!r} has a negative size: {shown}", code=ExitCode.MODEL)
        if count * BYTES > MOST_CONSTANT_BYTES:
            raise ConversionError(
                f"{path}: sparse tensor {name!r} of {shown} would take {_giga(count * BYTES)} written out, and TensorRT takes no other",
                hint=f"At most {_giga(MOST_CONSTANT_BYTES)} are taken.",
                code=ExitCode.MODEL,
            )
        indices = array_of(sparse.indices)
        limits = np.array(dims if indices.ndim == 2 else (count,))
        if indices.ndim not in (1, 2) or indices.ndim == 2 and indices.shape[1] != len(dims) or len(indices) != sparse.values.dims[0]:
            raise ConversionError(f"{path}: sparse tensor {name!r} has {list(indices.shape)} indices for {shown}", code=ExitCode.MODEL)
        if ((indices < 0) | (indices >= limits)).any():
            raise ConversionError(f"{path}: sparse tensor {name!r} has values outside of {shown}", code=ExitCode.MODEL)


def _sparse_tensors(model: onnx.ModelProto) -> Iterator[onnx.SparseTensorProto]:
    graphs = [model.graph]
    nodes = [*_with_inner(model.graph.node), *(node for function in model.functions for node in _with_inner(function.node))]
    graphs += [graph for node in nodes for graph in subgraphs(node)]
    for graph in graphs:
        yield from graph.sparse_initializer
    for node in nodes:
        for attribute in node.attribute:
            yield from ((attribute.sparse_tensor,) if attribute.HasField("sparse_tensor") else ())
            yield from attribute.sparse_tensors


def check_sizes(graph: Graph, profiles: tuple[Profile, ...], path: str) -> tuple[str, ...]:
    """Tensors at the opt shapes, as far as onnx can infer them without computing any.

    Returns:
        What will take long or much memory, a sentence each.

    Raises:
        ConversionError: MODEL, for constants that nodes would blow up, and for a tensor that no GPU has room for.
    """
    repeated = _check_loops(graph, path)
    known = _known_inside(graph)
    shapes = static_shapes(known, profiles) | _scanned(known) | {name: array.shape for name, array in graph.weights.items()}
    constant, made, grown, largest = set(graph.weights), 0, 0, (0, None, "")
    for node in graph.nodes:
        read = reads(node)
        fixed = bool(read) and constant.issuperset(read) and not node.op_type.startswith("Random")
        for name in filter(None, node.output):
            if fixed:
                constant.add(name)
            size = BYTES * math.prod(shapes.get(name, (0,)))
            made += size if fixed else 0
            grown += max(size - sum(BYTES * math.prod(shapes.get(other, (0,))) for other in set(read)), 0) if fixed else 0
            if fixed and size > largest[0]:
                largest = size, node, name
            if made > MOST_CONSTANT_BYTES:
                _, node, name = largest
                raise _too_large(path, node, f"{_giga(made)} out of constants alone", (name, shapes[name]), MOST_CONSTANT_BYTES)
            if size > MOST_ALIVE_BYTES:
                raise _too_large(path, node, f"a tensor of {_giga(size)}", (name, shapes[name]), MOST_ALIVE_BYTES)
    remarks = [what_takes_long(graph)]
    if repeated > MANY_RUNS:
        remarks.append(f"one inference runs nodes {repeated} times, most of them in loops: it takes seconds, and a run needs several")
    if grown > MANY_CONSTANT_BYTES:
        remarks.append(f"nodes make {_giga(grown)} out of small constants: the conversion takes several times that much memory")
    alive = peak_bytes(graph, shapes)
    if alive > MANY_ALIVE_BYTES:
        remarks.append(f"one inference holds tensors of {_giga(alive)} at a time: the conversion takes several times that much memory")
    return tuple(filter(None, remarks))


def _too_large(path: str, node: onnx.NodeProto, what: str, tensor: tuple[str, tuple[int, ...]], limit: int) -> ConversionError:
    """
    Args:
        tensor: (name, shape) of the largest.
    """
    name, shape = tensor
    return ConversionError(
        f"{path}: node {node.name!r} ({node.op_type}) would make {what}: {name!r} has {'x'.join(map(str, shape))} values",
        hint=f"At most {_giga(limit)} are taken: smaller shapes, or another form of the model.",
        code=ExitCode.MODEL,
    )


def _known_inside(graph: Graph) -> Graph:
    """The same, its bodies with the small constants that they read from outside: onnx follows no value into a body."""
    known = graph.copy()

    def give(node: onnx.NodeProto) -> None:
        for body in subgraphs(node):
            small = [name for name in sorted(captured(body)) if name in graph.weights and graph.weights[name].size <= MOST_DIMS]
            body.initializer.extend(numpy_helper.from_array(graph.weights[name], name) for name in small)
            for inner in body.node:
                give(inner)

    for node in known.nodes:
        give(node)
    return known


def _scanned(graph: Graph) -> dict[str, tuple[int, ...]]:
    """The shapes of what Loops of a constant number of steps put together, as far as onnx knows what a step makes."""
    loops = {name: steps for node in graph.nodes if (steps := _trips(node, graph.weights)) > 1 for name in node.output}
    found = {}
    for value in infer_shapes(graph.skeleton(), values=True).graph.value_info if loops else ():
        first, *rest = [dim.dim_value for dim in value.type.tensor_type.shape.dim] or [1]
        if value.name in loops and not first and all(rest):
            found[value.name] = (loops[value.name], *rest)
    return found


def _check_loops(graph: Graph, path: str) -> int:
    """How often one inference runs nodes, those of bodies included, as far as numbers of steps are constant.

    Raises:
        ConversionError: MODEL, for Loops that nothing ends before a constant number of runs that nobody would wait for.
    """
    constant = dict(graph.weights)
    hint = f"Nodes in loops may be run {MOST_RUNS} times in one inference: export it with fewer steps, or with a condition."

    def runs(nodes, often: int) -> int:
        """How often nodes are run where each of these is run so often."""
        total = 0
        for node in nodes:
            trips = _trips(node, constant)
            inner = sum(runs(body.node, often * trips) for body in subgraphs(node))
            total += often + inner
            if trips > 1 and inner > MOST_RUNS:
                raise ConversionError(
                    f"{path}: Loop {node.name!r} has a constant number of {trips} steps, of which each inference would run all",
                    hint=hint,
                    code=ExitCode.MODEL,
                )
        return total

    total = runs(graph.nodes, 1)
    if total > MOST_RUNS:
        raise ConversionError(
            f"{path}: each inference would run nodes {total} times, most of them in loops", hint=hint, code=ExitCode.MODEL
        )
    return total


def _trips(node: onnx.NodeProto, constant: dict[str, np.ndarray]) -> int:
    """Steps of a Loop whose number is constant and whose condition never changes; 1 for any other node."""
    if node.op_type != "Loop" or len(node.input) < 2 or node.input[0] not in constant:
        return 1
    body = subgraphs(node)[0]
    inside = {tensor.name: array_of(tensor) for tensor in body.initializer}
    inside |= {inner.output[0]: value for inner in body.node if (value := constant_value(inner)) is not None}
    made = {inner.output[0]: inner.input[0] for inner in body.node if inner.op_type == "Identity"}
    condition = body.output[0].name
    while condition in made:
        condition = made.pop(condition)
    known = inside.get(condition, constant.get(condition))
    goes_on = condition == body.input[1].name or known is not None and bool(known.all())
    return max(int(constant[node.input[0]].reshape(-1)[0]), 1) if goes_on else 1


def _giga(count: int) -> str:
    return f"{count / 2**30:.1f} GB"
