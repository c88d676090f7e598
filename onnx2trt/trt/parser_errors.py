"""Why TensorRT's parser cannot read a model: every node at fault with what it reads, and the next step."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.model_info import STANDARD_DOMAINS, NodeInfo

INPUTS_SHOWN = 6
WELL_KNOWN_OPSET = 20  # what TensorRT lacks of this one and older ones is not lacking because it is new


@dataclass(frozen=True)
class _Problem:
    cause: str  # a key of HINTS
    what: str  # operator with its domain, where the operator is the cause
    line: str


OPERATOR, TYPE, DYNAMIC, FORM, DATA, OTHER = "operator", "type", "dynamic", "form", "data", "other"
CAUSES = (  # words in TensorRT's description -> cause; the first that fits
    (r"plugin not found|no importer registered|checkFallbackPluginImporter", OPERATOR),
    (r"unsupported (onnx )?data ?type|unsupported data type|must have type|requires inputs with type|UNSUPPORTED_NODE_DATATYPE", TYPE),
    (r"kUINT8|UINT8 types|does not support (double|uint8|int64)|INT64.*(overflow|range)", TYPE),
    (
        r"must be (an initializer|a constant|static)|shape tensor|\bdynamic\b|UNSUPPORTED_NODE_DYNAMIC|: -1\b|not known at build time",
        DYNAMIC,
    ),
    (r"failed to (open|load|read).*(file|weight)|external data|MODEL_DESERIALIZE_FAILED", DATA),
)
HINTS = {
    TYPE: "TensorRT calculates in FP32, FP16, INT32 and INT64 (UINT8 only as an input or output next to a Cast, never in DOUBLE, UINT16 or "
    "STRING): cast to one of these before the node, or export the model in FP32.",
    DYNAMIC: "A size or value that is free there has to be fixed: export with fixed dimensions, or make that input a constant "
    "(onnxsim does, where it can be calculated).",
    FORM: "TensorRT has the operator, but not in this form: export it with the attributes or inputs that the message names.",
    DATA: "The file or the external data beside it is missing or damaged: copy the model whole, or export it again.",
    OTHER: "Check the model with onnx.checker and shape inference; what ONNX Runtime runs and TensorRT refuses can often be simplified.",
}


def parser_error(path: str, opset: int, errors: list, said: list[str], nodes: Callable[[], Iterable[NodeInfo]]) -> ConversionError:
    """All errors of the parser as one.

    Args:
        opset: of the model.
        errors: what parser.get_error gave.
        said: the library's other messages, where the parser names no error.
        nodes: the nodes of the model that was parsed.
    """
    known = list(nodes()) if errors else []
    problems = list(dict.fromkeys(_problem(error, known) for error in errors))
    lines = [problem.line for problem in problems] or [_clean(text) for text in said] or ["no reason was given"]
    causes = dict.fromkeys(problem.cause for problem in problems) or dict.fromkeys({_cause(" ".join(said))})
    operators = list(dict.fromkeys(problem.what for problem in problems if problem.cause == OPERATOR))
    hints = [_operator_hint(operators, opset)] if operators else []
    hints += [HINTS[cause] for cause in causes if cause != OPERATOR]
    return ConversionError(
        f"TensorRT's parser cannot read {path}:\n  " + "\n  ".join(lines), hint="\n      ".join(hints), code=ExitCode.MODEL
    )


def _problem(error, known: list[NodeInfo]) -> _Problem:
    index = error.node()
    name = error.node_name() if hasattr(error, "node_name") else ""
    operator = error.node_operator() if hasattr(error, "node_operator") else ""  # since 10
    inside = list(error.local_function_stack()) if hasattr(error, "local_function_stack") else []
    node = _find(known, index, name, operator, bool(inside))
    operator = operator or (node.operator if node else "")
    description = error.desc()
    text = _clean(description)
    code = getattr(error.code(), "name", str(error.code()))
    cause = _cause(f"{description} {code} {error.func()}")
    if code == "UNSUPPORTED_NODE" and text in ("", "false"):
        cause, text = OPERATOR, "TensorRT does not have this operator"
    elif cause == OPERATOR:
        text = "TensorRT does not know this operator, and no plugin of that name is loaded"
    elif cause == OTHER and code.startswith("UNSUPPORTED_NODE"):
        cause = FORM
    what = f"{node.domain}.{operator}" if node and node.domain not in STANDARD_DOMAINS else operator
    where = f"node {index} ({what} {name!r})" if operator else f"node {index}" if index >= 0 else "the file"
    if inside:
        where += f" inside {' > '.join(inside)}"
    if node and node.inputs:
        more = len(node.inputs) - INPUTS_SHOWN
        where += f", which reads {', '.join(map(repr, node.inputs[:INPUTS_SHOWN]))}" + (f" and {more} more" if more > 0 else "")
    return _Problem(cause, what, f"{where}: {text}")


def _find(known: list[NodeInfo], index: int, name: str, operator: str, inside: bool) -> NodeInfo | None:
    """The node of an error, by its name, else by its place in the graph."""
    for node in known:
        if name and (node.name, node.operator) == (name, operator):
            return node
    outermost = [node for node in known if node.outermost]
    if not inside and 0 <= index < len(outermost) and operator in ("", outermost[index].operator):
        return outermost[index]
    return None


def _cause(text: str) -> str:
    return next((cause for words, cause in CAUSES if re.search(words, text, re.IGNORECASE)), OTHER)


def _clean(description: str) -> str:
    """TensorRT's description without C++ conditions, source positions and complaints about the GPU that parsing does not need."""
    kept = []
    for line in description.strip().splitlines():
        if "catchCudaError" in line or re.fullmatch(r"Invalid Node - .*", line):
            continue
        quoted = re.findall(r'"((?:[^"\\]|\\.)*)"', line.split("&&")[-1]) if "&&" in line else []
        line = "".join(quoted) if quoted else line
        line = re.sub(r"\.? In \w+ at \S+:\d+\)?$", "", line)
        line = re.sub(r"^[\w:]+: Error Code \d+: [\w ]+\((.*)", r"\1", line)
        line = re.sub(r"Parameter check failed, condition: .*?\)\. ", "", line)
        kept.append(line.strip())
    return "; ".join(dict.fromkeys(filter(None, kept))) or description.strip()


def _operator_hint(operators: list[str], opset: int) -> str:
    names = ", ".join(operators)
    text = f"TensorRT lacks {names}: replace {'it' if len(operators) == 1 else 'them'} by other operators before exporting"
    if opset > WELL_KNOWN_OPSET and any("." not in name for name in operators):
        text += f", export with an older opset than {opset}, which writes newer operators out in older ones"
    return text + ", or give the library that has a plugin of that name with --plugins (full TensorRT)."
