"""trt/refit.py: what is said where TensorRT does not take the weights. The real library needs a GPU: tests/end_to_end/test_gpu_refit.py."""

import enum
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import refused
from models import model, node, random

from onnx2trt.base.errors import ExitCode
from onnx2trt.model.graph import Graph
from onnx2trt.rewrite.prepare import working_graph
from onnx2trt.rewrite.strong_typing import strongly_typed
from onnx2trt.stages.refit import _check_taken
from onnx2trt.trt.library import Library
from onnx2trt.trt.network import ParserInput
from onnx2trt.trt.refit import EngineRefitter

SOURCE = ParserInput(data=b"onnx")


class Flag(enum.IntEnum):
    EXCLUDE_WEIGHTS = 0
    INCLUDE_REFIT = 1


class Told:
    """A TensorRT that answers as it was told, and remembers what it was asked."""

    def __init__(self, **answers):
        self.answers = {
            "loads": True,
            "weights": ["w", "b"],
            "read": True,
            "errors": [],
            "missing": [],
            "done": True,
            "data": b"engine",
            **answers,
        }
        self.flags, self.read = {Flag.EXCLUDE_WEIGHTS}, []

    def module(self):
        told = self
        config = SimpleNamespace(clear_flag=told.flags.discard, set_flag=told.flags.add)
        data = told.answers["data"]
        engine = SimpleNamespace(
            create_serialization_config=lambda: config,
            serialize_with_config=lambda given: None if data is None else memoryview(data),
        )

        class Logger:
            Severity = enum.IntEnum("Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE", start=0)

        def parser(refitter, logger):
            errors = told.answers["errors"]
            return SimpleNamespace(
                refit_from_bytes=lambda data: told.read.append(data) or told.answers["read"],
                refit_from_file=lambda path: told.read.append(path) or told.answers["read"],
                num_errors=len(errors),
                get_error=lambda index: SimpleNamespace(desc=lambda: errors[index]),
            )

        return SimpleNamespace(
            __version__="10.6.0",
            ILogger=type("ILogger", (), {"Severity": Logger.Severity, "__init__": lambda self: None}),
            Runtime=lambda logger: SimpleNamespace(deserialize_cuda_engine=lambda data: engine if told.answers["loads"] else None),
            Refitter=lambda engine, logger: SimpleNamespace(
                get_all_weights=lambda: told.answers["weights"],
                get_missing_weights=lambda: told.answers["missing"],
                refit_cuda_engine=lambda: told.answers["done"],
            ),
            OnnxParserRefitter=parser,
            SerializationFlag=Flag,
        )

    def refitter(self):
        return EngineRefitter(Library("tensorrt", self.module()), b"plan", lambda line: None)


def test_all_weights_come_from_the_model_and_the_engine_keeps_them():
    told = Told()
    refitter = told.refitter()
    assert refitter.weights == {"w", "b"}
    refitter.refit(SOURCE)
    refitter.refit(ParserInput(path="m.onnx"))
    assert told.read == [b"onnx", "m.onnx"]
    assert bytes(refitter.serialize()) == b"engine" and told.flags == {Flag.INCLUDE_REFIT}, "with weights, and to be refitted again"
    refitter.close()


def test_an_engine_that_does_not_load_or_is_not_refittable():
    with refused(ExitCode.MACHINE, "does not load on this machine"):
        Told(loads=False).refitter()
    with refused(ExitCode.BUILD, "built without --refittable", hint="--refittable"):
        Told(weights=[]).refitter()
    nothing = Told().module()
    nothing.Refitter = lambda engine, logger: tuple(1)  # as pybind11: TypeError
    with refused(ExitCode.BUILD, "built without --refittable"):
        EngineRefitter(Library("tensorrt", nothing), b"plan", lambda line: None)


@pytest.mark.parametrize(
    "answers, said",
    [
        ({"missing": ["stem.w", "head.b"]}, "no values for weights of the engine: 'head.b', 'stem.w'"),
        ({"missing": [f"w{i}" for i in range(9)], "read": False}, "and 4 more"),
        ({"read": False, "errors": ["wrong count of w"]}, "wrong count of w"),
        ({"read": False}, "could not put the weights"),
        ({"done": False}, "TensorRT could not refit the engine"),
    ],
)
def test_whatever_stays_out_is_an_error(answers, said):
    with refused(ExitCode.BUILD, said):
        Told(**answers).refitter().refit(SOURCE)


@pytest.mark.parametrize("data", [None, b""])
def test_nothing_serialized_is_an_error(data):
    refitter = Told(data=data).refitter()
    with refused(ExitCode.BUILD, "could not serialize"):
        refitter.serialize()


# ---- what the parser calls weights: --refit finds by it what an engine can take


def parsed_weights(graph) -> tuple[set[str], set[str]]:
    """(weights of the graph that the parser's network knows by their names, the others); by TensorRT-RTX, without a GPU"""
    trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    logger = trt.Logger(trt.Logger.INTERNAL_ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(graph.to_model().SerializeToString())
    names = {name for name, array in graph.weights.items() if array.dtype.kind == "f"}
    known = {name for name in names if network.mark_weights_refittable(name)}
    return known, names - known


def many_operators():
    """An operator of each kind that has weights, and one that has limits."""
    nodes = [
        node("Conv", "x w1 b1", "c1", "conv", pads=[1, 1, 1, 1]),
        node("BatchNormalization", "c1 s o m v", "n1", "norm"),
        node("PRelu", "n1 slope", "r1", "prelu"),
        node("Clip", "r1 low high", "k", "clip"),
        node("ConvTranspose", "k wt", "t", "transposed"),
        node("Mul", "t scale", "mm", "scaled"),
        node("InstanceNormalization", "mm is ib", "inn", "instance"),
        node("GlobalAveragePool", "inn", "p", "pool"),
        node("Flatten", "p", "fl", "flatten"),
        node("Gemm", "fl wg bg", "g", "gemm", transB=1),
        node("MatMul", "g wm", "q", "product"),
        node("LayerNormalization", "q lg lb", "ln", "layer_norm", axis=-1),
        node("Reshape", "ln shape", "rs", "reshape"),
        node("LSTM", "rs W R B", "Y", "lstm", hidden_size=4),
        node("Squeeze", "Y axis", "sq", "squeeze"),
        node("Add", "sq last", "y", "add"),
    ]
    shapes = {"w1": (8, 3, 3, 3), "b1": (8,), "o": (8,), "m": (8,), "slope": (8, 1, 1), "wt": (8, 8, 2, 2), "scale": (8, 1, 1), "is": (8,)}
    shapes |= {
        "ib": (8,),
        "wg": (10, 8),
        "bg": (10,),
        "wm": (10, 6),
        "lg": (6,),
        "lb": (6,),
        "W": (1, 16, 6),
        "R": (1, 16, 4),
        "last": (4,),
    }
    weights = {name: random(*shape, seed=seed) for seed, (name, shape) in enumerate({**shapes, "B": (1, 32)}.items())}
    weights |= {"s": 1 + random(8) ** 2, "v": 1 + random(8, seed=1) ** 2, "low": np.float32(-3), "high": np.float32(3)}
    weights |= {"shape": np.array([1, 1, 6]), "axis": np.array([1])}
    return Graph.from_model(model(nodes, {"x": [1, 3, 8, 8]}, {"y": [1, 1, 4]}, weights))


FORMS = {
    "as it is": lambda graph: graph,
    "folded": lambda graph: working_graph(graph, False, True),
    "in FP16": lambda graph: strongly_typed(working_graph(graph, False, True), {}, True, frozenset()),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_parser_calls_weights_by_the_names_of_the_tensors(form):
    """What it does not know: limits, which are in the kernels, and what it computes other weights of."""
    graph = FORMS[form](many_operators())
    known, others = parsed_weights(graph)
    readers = graph.consumers()
    assert len(known) > 10 and {reader.op_type for name in others for reader in readers[name]} <= {"Clip", "BatchNormalization"}
    _check_taken(graph, frozenset(known), frozenset(known | {name for name in others if readers[name][0].op_type == "BatchNormalization"}))
    with refused(ExitCode.MACHINE, "in its kernels", "low", "high"):
        _check_taken(graph, frozenset(known), frozenset(others))
