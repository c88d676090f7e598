"""Triton's own protobuf, which reads a config.pbtxt as the server does."""

import importlib.util
import warnings
from pathlib import Path

from google.protobuf import text_format


def _load():
    """model_config_pb2 alone: the package around it asks for grpc, whose wheels ask for an older protobuf than onnx has."""
    package = importlib.util.find_spec("tritonclient")
    assert package, "pip install -r requirements-dev.txt"
    path = Path(package.submodule_search_locations[0], "grpc", "model_config_pb2.py")
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():  # of code made for the protobuf before this one
        warnings.simplefilter("ignore")
        spec.loader.exec_module(module)
    return module


PROTO = _load()


def parsed(text: str):
    """The inference.ModelConfig of a text.

    Raises:
        google.protobuf.text_format.ParseError: the server would not read it either.
    """
    return text_format.Parse(text, PROTO.ModelConfig())


def type_name(number: int) -> str:
    return PROTO.DataType.Name(number)
