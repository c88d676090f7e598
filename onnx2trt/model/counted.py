"""What a model asks for, counted before it is done: a few kB can stand for more nodes and larger tensors than there is room for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter

import numpy as np
import onnx

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.model_info import Profile
from onnx2trt.model.graph import Graph, array_of
from onnx2trt.model.nodes import all_nodes, reads, subgraphs
from onnx2trt.model.observe import static_shapes

MOST_NODES = 50_000  # once local functions are written out; the largest exports of language models have some 20 000
MOST_NESTED = 100  # functions that call one another: onnx itself writes out no more
MOST_CONSTANT_BYTES = 2**31  # of what nodes make out of constants alone
MOST_ALIVE_BYTES = 2**37  # of one tensor: no GPU has room for more
BYTES = 4  # of a value; most are float32


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


def _with_inner(nodes) -> Iterator[onnx.NodeProto]:
    """The nodes, and those of graphs inside them."""
    for node in nodes:
        yield node
        for graph in subgraphs(node):
            yield from all_nodes(graph)


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


def check_sizes(graph: Graph, profiles: tuple[Profile, ...], path: str) -> None:
    """Tensors at the opt shapes, as far as onnx can infer them without computing any.

    Raises:
        ConversionError: MODEL, for constants that nodes would blow up, and for a tensor that no GPU has room for.
    """
    shapes = static_shapes(graph, profiles)
    constant, made = set(graph.weights), 0
    for node in graph.nodes:
        read = reads(node)
        fixed = bool(read) and constant.issuperset(read) and not node.op_type.startswith("Random")
        for name in filter(None, node.output):
            if fixed:
                constant.add(name)
            size = BYTES * math.prod(shapes.get(name, (0,)))
            made += size if fixed else 0
            limit = MOST_CONSTANT_BYTES if fixed else MOST_ALIVE_BYTES
            if size > limit or made > MOST_CONSTANT_BYTES and fixed:
                what = f"would make {_giga(max(size, made))} out of constants alone" if fixed else f"would make a tensor of {_giga(size)}"
                raise ConversionError(
                    f"{path}: node {node.name!r} ({node.op_type}) {what}: {name!r} has {'x'.join(map(str, shapes[name]))} values",
                    hint=f"At most {_giga(limit)} are taken: smaller shapes, or another form of the model.",
                    code=ExitCode.MODEL,
                )


def _giga(count: int) -> str:
    return f"{count / 2**30:.1f} GB"
