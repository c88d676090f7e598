"""trt/refit.py: what is said where TensorRT does not take the weights. The real library needs a GPU: tests/end_to_end/test_gpu_refit.py."""

import enum
from types import SimpleNamespace

import pytest
from helpers import refused

from onnx2trt.base.errors import ExitCode
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
            "refittable": True,
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
            refittable=told.answers["refittable"],
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
                get_all_weights=lambda: ["w", "b"],
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
        Told(refittable=False).refitter()


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
