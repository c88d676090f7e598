"""The weights of an ONNX model into an engine that is there already: no kernel is chosen or compiled anew."""

from __future__ import annotations

from collections.abc import Callable

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.memory import HELD
from onnx2trt.base.words import listed
from onnx2trt.trt import refusal
from onnx2trt.trt.library import Library
from onnx2trt.trt.logger import make_logger
from onnx2trt.trt.network import ParserInput

NAMED = 5  # weights in a message
BUILD = "Build the engine anew, with --refittable."


class EngineRefitter:
    """One engine on the GPU, which gets other weights. Use once, and close it.

    The parser's own refitter finds the weights by the names of the ONNX model's tensors, with what the parser itself computes of them
    (the factors of batch normalizations, say).
    """

    def __init__(self, library: Library, data, show: Callable[[str, bool], None], host_code: bool = False):
        """Load the engine.

        Args:
            data: the serialized engine, bytes-like, with or without its weights.
            host_code: as for Engine.

        Raises:
            ConversionError: MACHINE, where it does not load here, or cannot be refitted.
        """
        self._trt = trt = library.trt
        self._logger, self._messages = make_logger(trt, show)
        with HELD.library_starts():
            self._runtime = trt.Runtime(self._logger)
            if host_code:
                self._runtime.engine_host_code_allowed = True
            self._engine = self._runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            raise self._failure("the engine does not load on this machine")
        self._refitter = self._opened()

    def _opened(self):
        """The refitter of the engine; one without weights to take gives none, or one that lists none (`refittable` is not asked: it may
        speak of other weights alone, not of those that come back).
        """
        try:
            refitter = self._trt.Refitter(self._engine, self._logger)
        except TypeError:  # pybind11 got nothing from the library
            refitter = None
        if refitter is None or not refitter.get_all_weights():
            raise self._failure("the engine cannot take weights: it was built without --refittable", BUILD)
        return refitter

    @property
    def weights(self) -> frozenset[str]:
        """The names of all weights that the engine takes."""
        return frozenset(self._refitter.get_all_weights())

    def refit(self, source: ParserInput) -> None:
        """Put in every weight that the engine takes.

        Args:
            source: the network that the engine was built from, with the new weights.

        Raises:
            ConversionError: BUILD, naming the weights that are missing.
        """
        parser = self._trt.OnnxParserRefitter(self._refitter, self._logger)
        done = parser.refit_from_file(source.path) if source.path is not None else parser.refit_from_bytes(source.data)
        errors = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        missing = self._missing()
        if missing:
            raise self._failure(f"the model has no values for weights of the engine: {missing}", BUILD, errors)
        if not done or errors:
            raise self._failure("TensorRT's parser could not put the weights of the model into the engine", BUILD, errors)
        if not self._refitter.refit_cuda_engine():
            missing = self._missing()
            raise self._failure("TensorRT could not refit the engine" + (f"; it still lacks {missing}" if missing else ""), BUILD)
        if self._messages.errors:
            raise self._failure("TensorRT reported an error while refitting the engine")

    def _missing(self) -> str:
        """The weights that the engine needs besides those that it got, in words; empty where it has all."""
        return listed(sorted(map(repr, self._refitter.get_missing_weights())), NAMED)

    def serialize(self):
        """The engine with the weights that it has now; it stays refittable where the library can say so.

        Raises:
            ConversionError: BUILD.
        """
        flags, config = self._trt.SerializationFlag, self._engine.create_serialization_config()
        config.clear_flag(flags.EXCLUDE_WEIGHTS)  # set where the weights were stripped
        if hasattr(flags, "INCLUDE_REFIT"):
            config.set_flag(flags.INCLUDE_REFIT)
        data = self._engine.serialize_with_config(config)
        if data is None or not data.nbytes:
            raise self._failure("TensorRT could not serialize the refitted engine")
        return data

    def close(self) -> None:
        """Release everything, in the order that TensorRT needs."""
        self._refitter = None
        self._engine = None
        self._runtime = None

    def _failure(self, message: str, hint: str = "", more: list[str] | tuple = ()) -> ConversionError:
        errors = [*more, *self._messages.take_errors()]
        text = "\n  ".join([message + (":" if errors else ""), *errors])
        loads = self._engine is not None
        return ConversionError(text, hint=hint or refusal.explain(" ".join(errors))[1], code=ExitCode.BUILD if loads else ExitCode.MACHINE)
