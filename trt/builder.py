"""ONNX -> serialized engine. Every None, refused setting and logged error becomes a ConversionError."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from core.errors import ConversionError, ExitCode
from core.model_info import ModelInfo, Profile
from core.plan import Plan, Route
from core.rules import dims
from trt.library import Library
from trt.logger import Messages, make_logger

FLOAT_TYPES = {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16", "FP8": "fp8"}
NO_WORK = ("CONSTANT", "QUANTIZE", "DEQUANTIZE", "CAST", "IDENTITY", "SHAPE", "SHUFFLE", "ASSERTION")
# TensorRT's name of a type -> numpy's, for the ends of a network
IO_TYPES = {"FLOAT": "float32", "HALF": "float16", "INT8": "int8", "INT32": "int32", "INT64": "int64", "BOOL": "bool", "UINT8": "uint8"}


@dataclass(frozen=True)
class ParserInput:
    """What the parser reads: a file (external data beside it), or the model's bytes."""

    path: str | None = None
    data: bytes | None = None


@dataclass(frozen=True)
class BuiltEngine:
    """A serialized engine, and the typed network that it was made from."""

    data: object  # TensorRT's IHostMemory: has the buffer protocol and nbytes
    layers: dict[str, int]  # int8, fp16, fp32 -> layers of the network that compute
    layers_source: str
    warnings: tuple[str, ...]

    @property
    def nbytes(self) -> int:
        return self.data.nbytes


class EngineBuilder:
    """One network from parsing to the serialized engine. Use once."""

    def __init__(self, library: Library, plan: Plan, show: Callable[[str], None]):
        """Raises ConversionError BUILD where TensorRT refuses to start."""
        self._library, self._trt, self._plan = library, library.trt, plan
        self._logger, self._messages = make_logger(library.trt, show)
        self._builder = self._made(self._trt.Builder(self._logger), "Builder")
        flags = library.network_flags(strongly_typed=plan.route is Route.STRONG)
        self._network = self._made(self._builder.create_network(flags), "create_network")

    def parse(self, source: ParserInput, model: ModelInfo) -> None:
        """Read the ONNX into the network and check that its ends are the model's.

        Raises:
            ConversionError: MODEL, with every error of the parser.
        """
        parser = self._made(self._trt.OnnxParser(self._network, self._logger), "OnnxParser")
        if source.path is not None:
            ok = self._parse_file(parser, source.path)
        else:
            ok = parser.parse(source.data)
        if not ok or parser.num_errors:
            raise _parser_error(model.path, [parser.get_error(i) for i in range(parser.num_errors)], self._messages)
        self._parser = parser  # weights of the network may point into it
        self._check_ends(model)

    def _parse_file(self, parser, path: str) -> bool:
        """By file name, or by content where TensorRT cannot take the name (bytes that are not UTF-8)."""
        try:
            path.encode()
            return parser.parse_from_file(path)
        except UnicodeEncodeError:
            with open(path, "rb") as stream:
                return parser.parse(stream.read(), os.fspath("model.onnx"))

    def _check_ends(self, model: ModelInfo) -> None:
        network = self._network
        found = {
            "input": [network.get_input(i) for i in range(network.num_inputs)],
            "output": [network.get_output(i) for i in range(network.num_outputs)],
        }
        for role, specs in (("input", model.inputs), ("output", model.outputs)):
            have = {tensor.name: tensor for tensor in found[role]}
            if set(have) != {spec.name for spec in specs}:
                raise ConversionError(
                    f"TensorRT's parser found the {role}s {sorted(have)}, the model declares {sorted(s.name for s in specs)}",
                    hint="An unused input is often left by an export: simplify the model, or export it again.",
                    code=ExitCode.MODEL,
                )
            for spec in specs:
                dtype = IO_TYPES.get(have[spec.name].dtype.name, have[spec.name].dtype.name)
                rank = len(have[spec.name].shape)
                if dtype != spec.dtype or spec.shape is not None and rank != len(spec.shape):
                    declared = f"{spec.dtype} {dims(spec.shape)}" if spec.shape is not None else spec.dtype
                    raise ConversionError(
                        f"TensorRT's parser made {role} {spec.name!r} {dtype} of rank {rank}; the model declares {declared}",
                        code=ExitCode.MODEL,
                    )

    def build(self, profiles: tuple[Profile, ...], dynamic: bool) -> BuiltEngine:
        """Configure and build.

        Args:
            dynamic: the model has free dimensions, so an optimization profile is added.

        Raises:
            ConversionError: BUILD, with TensorRT's own errors.
        """
        config = self._made(self._builder.create_builder_config(), "create_builder_config")
        self._configure(config)
        if dynamic:
            self._add_profile(config, profiles)
        self._refuse_errors("configuring the build")
        engine = self._builder.build_serialized_network(self._network, config)
        if engine is None or not engine.nbytes:
            raise self._failure("TensorRT could not build the engine")
        self._refuse_errors("building the engine")
        layers = typed_layers(self._network)
        return BuiltEngine(engine, layers, "network", _warnings(self._messages))

    def _configure(self, config) -> None:
        trt, plan = self._trt, self._plan
        pool = trt.MemoryPoolType.WORKSPACE
        config.set_memory_pool_limit(pool, plan.workspace_bytes)
        if config.get_memory_pool_limit(pool) != plan.workspace_bytes:
            raise self._failure(f"the workspace of {plan.workspace_bytes} bytes was not accepted")
        set_flag = config.set_flag if plan.tf32 else config.clear_flag
        set_flag(trt.BuilderFlag.TF32)
        if config.get_flag(trt.BuilderFlag.TF32) != plan.tf32:
            raise self._failure("the TF32 flag was not accepted")
        if plan.tactic_sources is not None:
            mask = sum(1 << int(getattr(trt.TacticSource, name)) for name in plan.tactic_sources)
            if not config.set_tactic_sources(mask) or config.get_tactic_sources() != mask:
                raise self._failure("the tactic sources were not accepted")
        if plan.gpu_archs:
            config.num_compute_capabilities = len(plan.gpu_archs)
            for index, arch in enumerate(plan.gpu_archs):
                capability = getattr(trt.ComputeCapability, "SM" + arch.replace(".", ""))
                if not config.set_compute_capability(capability, index) or config.get_compute_capability(index) != capability:
                    raise self._failure(f"compute capability {arch} was not accepted")

    def _add_profile(self, config, profiles: tuple[Profile, ...]) -> None:
        profile = self._made(self._builder.create_optimization_profile(), "create_optimization_profile")
        tensors = {tensor.name: tensor for tensor in (self._network.get_input(i) for i in range(self._network.num_inputs))}
        for entry in profiles:
            if tensors[entry.name].is_shape_tensor:
                raise ConversionError(
                    f"input {entry.name!r} holds a shape; TensorRT needs its values at build time",
                    hint="Export the model with that shape fixed.",
                    code=ExitCode.MODEL,
                )
            profile.set_shape(entry.name, entry.min, entry.opt, entry.max)
        if config.add_optimization_profile(profile) < 0:
            shapes = ", ".join(f"{p.name} {dims(p.min)} / {dims(p.opt)} / {dims(p.max)}" for p in profiles)
            raise self._failure(f"the optimization profile (min / opt / max) {shapes} was not accepted")

    def _made(self, value, what: str):
        if value is None:
            raise self._failure(f"TensorRT's {what} gave nothing")
        return value

    def _refuse_errors(self, doing: str) -> None:
        if self._messages.errors:
            raise self._failure(f"TensorRT reported an error while {doing}")

    def _failure(self, message: str) -> ConversionError:
        errors = self._messages.take_errors()
        text = "\n  ".join([message + (":" if errors else ""), *errors])
        return ConversionError(text, hint=_build_hint(errors), code=ExitCode.BUILD)


def typed_layers(network) -> dict[str, int]:
    """Layers of a strongly typed network by precision: INT8 where an operand is dequantised, else the type of the output."""
    made_by, counts = {}, {"int8": 0, "fp16": 0, "fp32": 0}
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        for output in range(layer.num_outputs):
            made_by[layer.get_output(output).name] = layer.type.name
        if layer.type.name in NO_WORK or not layer.num_outputs:
            continue
        precision = FLOAT_TYPES.get(layer.get_output(0).dtype.name)
        inputs = [layer.get_input(i) for i in range(layer.num_inputs)]
        if any(tensor is not None and made_by.get(tensor.name) == "DEQUANTIZE" for tensor in inputs):
            precision = "int8"
        if precision:
            counts[precision] = counts.get(precision, 0) + 1
    return counts


def _warnings(messages: Messages) -> tuple[str, ...]:
    return tuple(text if count == 1 else f"{text} ({count} times)" for text, count in messages.warnings.items())


def _parser_error(path: str, errors: list, messages: Messages) -> ConversionError:
    lines = []
    for error in errors:
        operator = error.node_operator() if hasattr(error, "node_operator") else ""
        name = error.node_name() if hasattr(error, "node_name") else ""
        node = f"node {error.node()}" if error.node() >= 0 else "the file"
        lines.append(f"{node}{f' ({operator} {name!r})' if operator else ''}: {error.desc()}")
    lines = list(dict.fromkeys(lines)) or messages.take_errors() or ["no reason was given"]
    return ConversionError(
        f"TensorRT's parser cannot read {path}:\n  " + "\n  ".join(lines),
        hint="An operator that TensorRT lacks must be replaced before exporting, or supplied as a plugin.",
        code=ExitCode.MODEL,
    )


def _build_hint(errors: list[str]) -> str:
    text = " ".join(errors).lower()
    if "memory" in text:
        return "Lower --max-batch-size or the max shapes, or raise --workspace-size."
    if "profile" in text:
        return "Check --min-shapes, --opt-shapes and --max-shapes."
    return "Run again with --verbose for all of TensorRT's messages."
