"""Why TensorRT's parser cannot read a model: the nodes at fault by operator, with what they read, and the next step."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.model_info import STANDARD_DOMAINS, NodeInfo
from onnx2trt.base.words import listed

INPUTS_SHOWN = 6
ALIKE_SHOWN = 5  # nodes at fault for one reason, besides the first
CONTROL_FLOW = ("If", "Loop", "Scan")
WELL_KNOWN_OPSET = 20  # what TensorRT lacks of this one and older ones is not lacking because it is new


class Refusal(ConversionError):
    """The parser does not read a model.

    Attributes:
        nodes: node of the main graph (that with the branch or body at fault in it) -> what is wrong with it.
    """

    def __init__(self, message: str, hint: str, nodes: dict[str, str]):
        super().__init__(message, hint=hint, code=ExitCode.MODEL)
        self.nodes = nodes


@dataclass(frozen=True)
class _Problem:
    cause: str  # a key of HINTS
    what: str  # operator with its domain
    name: str  # of the node at fault
    outer: str  # of the node of the main graph
    where: str
    text: str
    inside: bool  # of If, Loop or Scan


OPERATOR, GAP, CONTROL, TYPE, DYNAMIC, FORM, DATA, OTHER = "operator", "gap", "control", "type", "dynamic", "form", "data", "other"
OLD = "old"
CAUSES = (  # words in TensorRT's description -> cause; the first that fits
    (
        r"plugin creator version .* was not found|plugin was not found in the plugin registry|failed to load .* plugin",
        GAP,
    ),  # the importer is there, TensorRT's own plugin is not
    (r"plugin not found|no importer registered|checkFallbackPluginImporter", OPERATOR),
    (r"unsupported (onnx )?data ?type|unsupported data type|must have type|requires inputs with type|UNSUPPORTED_NODE_DATATYPE", TYPE),
    (r"kUINT8|UINT8 types|does not support (double|uint8|int64)|INT64.*(overflow|range)", TYPE),
    (
        r"must be (an initializer|a constant|static)|shape tensor|\bdynamic\b|UNSUPPORTED_NODE_DYNAMIC|: -1\b|not known at build time",
        DYNAMIC,
    ),
    (r"pre-opset 7", OLD),
    (r"failed to (open|load|read).*(file|weight)|external data|MODEL_DESERIALIZE_FAILED", DATA),
)
HINTS = {
    CONTROL: "TensorRT reads If, Loop and Scan, but not everything inside them. Where the condition is always the same for you, leave one "
    "branch only: fix the input that it hangs on with --bind-input, or export without the other.",
    TYPE: "TensorRT calculates in FP32, FP16, INT32 and INT64 (UINT8 only as an input or output next to a Cast, never in DOUBLE, UINT16 or "
    "STRING): cast to one of these before the node, or export the model in FP32.",
    DYNAMIC: "A size or value that is free there has to be fixed: export with fixed dimensions, or make that input a constant "
    "(onnxsim does, where it can be calculated).",
    FORM: "TensorRT has the operator, but not in this form: export it with the attributes or inputs that the message names.",
    OLD: "TensorRT reads opset 7 and newer: export the model again, with opset 17 or so, or raise it with onnx.version_converter.",
    DATA: "The file or the external data beside it is missing or damaged: copy the model whole, or export it again.",
    OTHER: "Check the model with onnx.checker and shape inference; what ONNX Runtime runs and TensorRT refuses can often be simplified.",
}


def parser_error(path: str, opset: int, errors: list, said: list[str], nodes: Callable[[], Iterable[NodeInfo]], backend: str) -> Refusal:
    """All errors of the parser as one, those of one operator together.

    Args:
        opset: of the model.
        errors: what parser.get_error gave.
        said: the library's other messages, where the parser names no error.
        nodes: the nodes of the model that was parsed.
        backend: tensorrt | tensorrt-rtx, which lacks more.
    """
    known = list(nodes()) if errors else []
    problems = list(dict.fromkeys(_problem(error, known) for error in errors))
    lines = _lines(problems, known) or [_clean(text) for text in said] or ["no reason was given"]
    causes = dict.fromkeys(problem.cause for problem in problems) or dict.fromkeys({_cause(" ".join(said))})
    operators = list(dict.fromkeys(problem.what for problem in problems if problem.cause == OPERATOR))
    hints = _operator_hints(operators, opset, backend) if operators else []
    hints += [_gap_hint(backend)] if GAP in causes else []
    hints += [HINTS[cause] for cause in causes if cause in HINTS]
    hints += [HINTS[CONTROL]] if any(problem.inside for problem in problems) else []
    message = f"TensorRT's parser cannot read {path}:\n  " + "\n  ".join(lines)
    return Refusal(message, "\n      ".join(hints), {problem.outer: problem.text for problem in problems if problem.outer})


def _lines(problems: list[_Problem], known: list[NodeInfo]) -> list[str]:
    """One for each operator and reason: the first node in full, of the others the names.

    Args:
        known: all nodes; the parser may stop at the first of an operator that TensorRT lacks.
    """
    groups: dict[tuple[str, str], list[_Problem]] = {}
    for problem in problems:
        groups.setdefault((problem.what, problem.text.replace(problem.name or "\n", "")), []).append(problem)
    lines = []
    for first, *others in groups.values():
        names = [other.name for other in others]
        if first.cause in (OPERATOR, GAP):
            names += [node.name for node in known if _named(node) == first.what and node.name not in (first.name, *names)]
        shown = listed([repr(name) for name in names], ALIKE_SHOWN)
        lines.append(f"{first.where}: {first.text}" + (f"; the same of {len(names)} more {first.what}: {shown}" if names else ""))
    return lines


def _named(node: NodeInfo) -> str:
    """The operator, with its domain where that is not ONNX's."""
    return f"{node.domain}.{node.operator}" if node.domain not in STANDARD_DOMAINS else node.operator


def _problem(error, known: list[NodeInfo]) -> _Problem:
    index = error.node()
    name = error.node_name() if hasattr(error, "node_name") else ""
    operator = error.node_operator() if hasattr(error, "node_operator") else ""  # since 10
    inside = list(error.local_function_stack()) if hasattr(error, "local_function_stack") else []
    node = _find(known, index, name, operator, bool(inside))
    name = name or (node.name if node else "")
    operator = operator or (node.operator if node else "")
    description = error.desc()
    text = _clean(description)
    code = str(error.code()).rpartition(".")[2]  # not .name, which is a method on TensorRT 10.6
    cause = _cause(f"{description} {code} {error.func()}")
    if code == "UNSUPPORTED_NODE" and text in ("", "false"):
        cause, text = OPERATOR, "TensorRT does not have this operator"
    elif cause == GAP:
        text = "TensorRT reads this operator by a plugin of its own, which is not there"
    elif cause == OPERATOR:
        text = "TensorRT does not know this operator, and no plugin of that name is loaded"
    elif cause == OTHER and code.startswith("UNSUPPORTED_NODE"):
        cause = FORM
    what = _named(node) if node else operator
    where = f"node {index} ({what} {name!r})" if operator else f"node {index}" if index >= 0 else "the file"
    if inside:
        where += f" inside {' > '.join(inside)}"
    if node and node.inputs:
        where += f", which reads {listed([repr(name) for name in node.inputs], INPUTS_SHOWN)}"
    outer = re.sub(r" \(\w+\)$", "", inside[0]) if inside else name
    return _Problem(cause, what, name, outer, where, text, _in_control_flow(operator, inside))


def _in_control_flow(operator: str, inside: list[str]) -> bool:
    return operator in CONTROL_FLOW or any(entry.endswith(f" ({name})") for entry in inside for name in CONTROL_FLOW)


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


def _operator_hints(operators: list[str], opset: int, backend: str) -> list[str]:
    """What to do about operators that TensorRT lacks, of ONNX or of somebody's own."""
    theirs = [name for name in operators if "." in name]
    of_onnx = [name for name in operators if name not in theirs]
    full = "" if backend == "tensorrt" else " of the full TensorRT (--backend tensorrt), which takes plugins"
    hints = []
    if theirs:
        text = f": replace {_it(theirs)} by operators of ONNX before exporting"
        if any(name.startswith("com.microsoft.") for name in theirs):
            text = f", as ONNX Runtime's optimizers write {_it(theirs)}: give the model that was optimized"
        text = f"TensorRT lacks {', '.join(theirs)}{text}"
        hints.append(f"{text}, or give the library that has a plugin of that name with --plugins{full}.")
    if of_onnx:
        text = f"TensorRT lacks {', '.join(of_onnx)}: replace {_it(of_onnx)} by other operators before exporting"
        if opset > WELL_KNOWN_OPSET:
            text += f", or export with an older opset than {opset}, which writes newer operators out in older ones"
        hints.append(f"{text}; or give a plugin of that name with --plugins{full}.")
    return hints


def _gap_hint(backend: str) -> str:
    if backend == "tensorrt":
        return "Give TensorRT's plugin library with --plugins (libnvinfer_plugin.so), or replace it before exporting."
    return (
        "This is a known gap of TensorRT-RTX, which does not bring that plugin: the full TensorRT has the operator itself or in its plugin "
        "library (--backend tensorrt). Else replace it before exporting."
    )


def _it(names: list[str]) -> str:
    return "it" if len(names) == 1 else "them"
