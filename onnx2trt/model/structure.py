"""Whether a model hangs together: its texts, its nodes, the tensors between them, the operators they name."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from google.protobuf.message import Message

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.model_info import STANDARD_DOMAINS
from onnx2trt.model.nodes import all_nodes, reads

RUNTIME_DOMAINS = ("ai.onnx.ml", "ai.onnx.training", "com.microsoft", "com.ms.internal.nhwc")  # operators that ONNX Runtime brings
RUNTIME_OPERATORS = ("SimplifiedLayerNormalization",)  # that it has without a domain, as its optimizers write them
MOST_NAMED = 10  # nodes in one message


def check_structure(model: onnx.ModelProto, path: str, plugins: bool) -> None:
    """
    Args:
        plugins: TensorRT will get plugin libraries, which may bring operators that nobody else knows.

    Raises:
        ConversionError: MODEL, naming node or tensor.
    """
    _check_text(model, path)
    _check_graph(model, path)
    if not plugins:
        _check_operators(model, path)


def _check_text(model: onnx.ModelProto, path: str) -> None:
    """protobuf loads text that is no UTF-8 and gives bytes for it, or raises where somebody reads it, which may be much later."""
    try:
        broken = next((text for text in _texts(model) if isinstance(text, bytes)), None)
    except UnicodeDecodeError as error:
        broken = error.object
    if broken is not None:
        raise ConversionError(
            f"{path} is damaged: a name or another text in it is not UTF-8: {broken[:80]!r}",
            hint="Export or download the model again, and compare its size and checksum with the source.",
            code=ExitCode.MODEL,
        )


def _texts(message: Message) -> Iterator[str | bytes]:
    """Every string in a message and in those inside it."""
    if isinstance(message, onnx.TensorProto):  # ListFields would copy its data
        yield from (message.name, message.doc_string)
        yield from (text for entry in message.external_data for text in (entry.key, entry.value))
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in (value,) if isinstance(value, Message) else value:
                yield from _texts(inner)
        elif field.type == field.TYPE_STRING:
            yield from (value,) if isinstance(value, (str, bytes)) else value


def true_inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """Graph inputs that are not initializers (IR version 3 listed those as inputs, too)."""
    initializers = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in initializers]


def _check_graph(model: onnx.ModelProto, path: str) -> None:
    """TensorRT's parser answers True for an empty graph, so what must be there is checked here."""
    graph = model.graph
    for what, there in (("nodes", graph.node), ("outputs", graph.output)):
        if not there:
            raise ConversionError(
                f"{path} holds a graph without {what}: {len(graph.node)} nodes, {len(graph.input)} inputs, {len(graph.output)} outputs",
                hint="This is an empty or damaged file, or no inference model: export it again.",
                code=ExitCode.MODEL,
            )
    imported = {"" if entry.domain in STANDARD_DOMAINS else entry.domain for entry in model.opset_import}
    imported |= {function.domain for function in model.functions}
    for index, node in enumerate(graph.node):
        domain = "" if node.domain in STANDARD_DOMAINS else node.domain
        if domain not in imported:
            raise ConversionError(
                f"{path} declares no opset for {f'operators of domain {domain!r}' if domain else 'the operators of ONNX'}, "
                f"but has {describe(index, node)}",
                hint="opset_import was lost: export the model again.",
                code=ExitCode.MODEL,
            )
    weights = [tensor.name for tensor in graph.initializer] + [tensor.values.name for tensor in graph.sparse_initializer]
    known = set(weights)
    if len(known) != len(weights):
        twice = next(name for name in weights if weights.count(name) > 1)
        raise ConversionError(f"{path}: there are two weights of the name {twice!r}", code=ExitCode.MODEL)
    known |= {value.name for value in graph.input}
    produced: dict[str, str] = {}
    for index, node in enumerate(graph.node):
        for name in filter(None, node.output):
            if name in produced or name in known:
                other = produced.get(name, "an input or initializer")
                raise ConversionError(f"{path}: tensor {name!r} is made twice, by {other} and {describe(index, node)}", code=ExitCode.MODEL)
            produced[name] = describe(index, node)
    known |= produced.keys()
    for index, node in enumerate(graph.node):
        for name in reads(node):
            if name not in known:
                raise ConversionError(
                    f"{path}: {describe(index, node)} reads tensor {name!r}, which nothing makes",
                    hint="The graph is incomplete: export it again.",
                    code=ExitCode.MODEL,
                )
    for value in graph.output:
        if value.name not in known:
            raise ConversionError(f"{path}: output {value.name!r} is made by no node", code=ExitCode.MODEL)


def _check_operators(model: onnx.ModelProto, path: str) -> None:
    own = {(function.domain, function.name) for function in model.functions}
    unknown = [
        f"{describe(index, node)}, which reads {', '.join(map(repr, filter(None, node.input))) or 'nothing'}"
        for index, node in enumerate(all_nodes(model.graph))
        if (node.domain, node.op_type) not in own and not _is_known(node)
    ]
    if unknown:
        more = f"\n  and {len(unknown) - MOST_NAMED} more" if len(unknown) > MOST_NAMED else ""
        raise ConversionError(
            f"{path} uses operators that neither ONNX nor its CPU runtime knows:\n  " + "\n  ".join(unknown[:MOST_NAMED]) + more,
            hint="Replace them before exporting, or bring them as TensorRT plugins with --plugins (full TensorRT)." + _newer(model),
            code=ExitCode.MODEL,
        )


def _newer(model: onnx.ModelProto) -> str:
    """More to do, where the model is of a later ONNX than the one installed here."""
    newest, own = onnx.defs.onnx_opset_version(), max((e.version for e in model.opset_import if e.domain in STANDARD_DOMAINS), default=0)
    return f" Its opset {own} is newer than {newest}, the newest known here: export it with an older one." if own > newest else ""


def _is_known(node: onnx.NodeProto) -> bool:
    if node.domain in STANDARD_DOMAINS:
        return onnx.defs.has(node.op_type, "") or node.op_type in RUNTIME_OPERATORS
    return node.domain in RUNTIME_DOMAINS


def describe(index: int, node: onnx.NodeProto) -> str:
    """A node as a user finds it again: node 12 (Conv 'stem/conv')."""
    domain = f"{node.domain}." if node.domain not in STANDARD_DOMAINS else ""
    name = f" {node.name!r}" if node.name else ""
    return f"node {index} ({domain}{node.op_type}{name})"
