"""Network -> serialized engine. Every None, refused setting and logged error becomes a ConversionError."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

from onnx2trt.base.driver import probe_driver
from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.memory import HELD, limited
from onnx2trt.base.model_info import ModelInfo, Profile, dims, groups_of
from onnx2trt.base.words import to_type
from onnx2trt.plan.plan import Plan, Route
from onnx2trt.trt.config import configure
from onnx2trt.trt.constraints import Constraints, constrain
from onnx2trt.trt.kernels import refuse_missing_kernels
from onnx2trt.trt.library import Library
from onnx2trt.trt.logger import make_logger
from onnx2trt.trt.network import ParserInput, check_io, parse, set_io_types, typed_layers
from onnx2trt.trt.parser_errors import parser_error
from onnx2trt.trt.progress import watch


@dataclass(frozen=True)
class BuiltEngine:
    """A serialized engine, and what is known of it without loading it."""

    data: object  # TensorRT's IHostMemory: has the buffer protocol and nbytes
    layers: dict[str, int] | None  # int8, fp16, fp32 -> layers of the typed network; None where only the engine can tell
    constrained: dict[str, str]  # layer -> ONNX node, of the constraints that were set
    timing_cache: bytes | None  # the timings that were given and those that were made
    timing_cache_refused: bool  # what was given could not be used
    warnings: tuple[tuple[str, int], ...]  # (kind, how often)
    whole: object | None = None  # the same with its weights, where `data` was stripped of them

    @property
    def runnable(self) -> object:
        """What can be executed."""
        return self.data if self.whole is None else self.whole

    @property
    def nbytes(self) -> int:
        return self.data.nbytes


class EngineBuilder:
    """One network from parsing to the serialized engine. Use once."""

    def __init__(self, library: Library, plan: Plan, show: Callable[[str, bool], None]):
        """Raises ConversionError MACHINE where TensorRT does not start, BUILD where it refuses to go on."""
        self._library, self._trt, self._plan = library, library.trt, plan
        self.step: Callable[[int, int], None] | None = None  # is told the steps done of a build, and of how many
        self._logger, self._messages = make_logger(library.trt, show)
        self._builder = self._made(self._start(), "Builder")
        flags = library.network_flags(strongly_typed=plan.route is Route.STRONG)
        self._network = self._made(self._builder.create_network(flags), "create_network")

    def parse(self, source: ParserInput, model: ModelInfo) -> dict[str, int]:
        """Read the ONNX into the network.

        Returns:
            Output -> rank, where it is not the declared one.

        Raises:
            ConversionError: MODEL, with every error of the parser; BUILD for layers that this library has no kernel for.
        """
        io_types = dict(self._plan.io_types) if self._plan.route is Route.WEAK else {}
        self._source = source  # the network may point into it
        self._parser, parsed = parse(self._trt, self._network, self._logger, source)
        if not parsed:
            errors = [self._parser.get_error(index) for index in range(self._parser.num_errors)]
            raise parser_error(model.path, model.opset, errors, self._messages.take_errors(), source.nodes, self._library.backend)
        set_io_types(self._trt, self._network, io_types)
        ranks = check_io(self._network, model)
        refuse_missing_kernels(self._library, self._builder, self._network)
        self._messages.take_errors()  # of what was tried for that
        return ranks

    def build(
        self,
        profiles: tuple[Profile, ...],
        dynamic: bool,
        constraints: Constraints | None = None,
        calibrator=None,
        timing_cache: bytes | None = None,
    ) -> BuiltEngine:
        """Configure and build.

        Args:
            dynamic: the model has free dimensions, or inputs whose values decide about shapes, so an optimization profile is added.
            constraints: layer precisions, for weakly typed networks.
            calibrator: for INT8 by TensorRT's own calibration; its `error` is raised where it stopped the build.
            timing_cache: contents of a timing cache; b"" starts one; None goes without.

        Raises:
            ConversionError: BUILD, with TensorRT's own errors.
        """
        config = self._made(self._builder.create_builder_config(), "create_builder_config")
        configure(self._trt, self._builder, config, self._plan)
        self.check_shape_inputs(profiles)
        groups = groups_of(profiles) if dynamic else ()
        for group in groups:
            self._add_profile(config, group)
        if config.num_optimization_profiles != len(groups):
            raise self._failure(f"TensorRT took {config.num_optimization_profiles} of {len(groups)} optimization profiles")
        if calibrator is not None:
            self._set_calibrator(config, calibrator, profiles, dynamic)
        constrained = constrain(self._trt, self._network, constraints) if constraints else {}
        self._refuse_errors("configuring the build")
        refused = timing_cache is not None and not self._set_timing_cache(config, timing_cache)
        self._refuse_errors("setting the timing cache")
        monitor = watch(self._trt, config, self.step) if self.step else None
        engine = self._builder.build_serialized_network(self._network, config)
        del monitor
        if calibrator is not None and calibrator.error is not None:
            raise calibrator.error
        if engine is None or not engine.nbytes:
            raise self._failure("TensorRT could not build the engine")
        self._refuse_errors("building the engine")
        layers = typed_layers(self._network) if self._plan.route is Route.STRONG else None
        timings = None if timing_cache is None else bytes(config.get_timing_cache().serialize())
        return BuiltEngine(engine, layers, constrained, timings, refused, tuple(self._messages.warnings.items()))

    def merge_timing_caches(self, ours: bytes, theirs: bytes) -> bytes:
        """Both caches in one; ours where an entry is in both, and ours alone where TensorRT does not take theirs."""
        config = self._made(self._builder.create_builder_config(), "create_builder_config")
        caches = [self._timing_cache(config, contents) for contents in (ours, theirs)]
        if None in caches or not caches[0].combine(caches[1], False):
            self._messages.take_errors()
            return ours
        return bytes(caches[0].serialize())

    def _add_profile(self, config, profiles: tuple[Profile, ...]) -> None:
        profile = self._profile(profiles)
        if config.add_optimization_profile(profile) < 0:
            shapes = ", ".join(f"{p.name} {' / '.join(map(dims, p.values or (p.min, p.opt, p.max)))}" for p in profiles)
            raise self._failure(f"the optimization profile (min / opt / max) {shapes} was not accepted")

    def _profile(self, profiles: tuple[Profile, ...]):
        profile = self._made(self._builder.create_optimization_profile(), "create_optimization_profile")
        tensors = {tensor.name: tensor for tensor in (self._network.get_input(i) for i in range(self._network.num_inputs))}
        for entry in profiles:
            if tensors[entry.name].is_shape_tensor:
                profile.set_shape_input(entry.name, *entry.values)
            else:
                profile.set_shape(entry.name, entry.min, entry.opt, entry.max)
        return profile

    def check_shape_inputs(self, profiles: tuple[Profile, ...]) -> None:
        """TensorRT needs the values of inputs that decide about shapes when it builds.

        Raises:
            ConversionError: USAGE, naming those that have none.
        """
        known = {entry.name for entry in profiles if entry.values is not None}
        inputs = (self._network.get_input(index) for index in range(self._network.num_inputs))
        lacking = [tensor.name for tensor in inputs if tensor.is_shape_tensor and tensor.name not in known]
        if lacking:
            flags = " ".join(to_type(name, "MIN:OPT:MAX") for name in lacking)
            raise ConversionError(
                f"values of {', '.join(map(repr, lacking))} decide about shapes; TensorRT needs to know between which they lie",
                hint=f"Add --shape-values {flags}, or make it a constant with --bind-input.",
                code=ExitCode.USAGE,
            )

    def _set_calibrator(self, config, calibrator, profiles: tuple[Profile, ...], dynamic: bool) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated since 10.1
            config.int8_calibrator = calibrator
            if dynamic:
                fixed = self._profile(tuple(map(_at_opt, profiles)))
                if not config.set_calibration_profile(fixed):
                    raise self._failure("the calibration profile was not accepted")

    def _set_timing_cache(self, config, contents: bytes) -> bool:
        """Put a timing cache into the config; False where an empty one had to take its place."""
        cache = self._timing_cache(config, contents)
        if cache is not None and config.set_timing_cache(cache, False) and not self._messages.take_errors():
            return True
        self._messages.take_errors()
        empty = self._made(config.create_timing_cache(b""), "create_timing_cache")
        if not config.set_timing_cache(empty, False):
            raise self._failure("TensorRT did not take an empty timing cache")
        return False

    def _timing_cache(self, config, contents: bytes):
        """A timing cache with these contents; None where TensorRT does not take them, which it says in an error or a warning only."""
        said = self._messages.warnings.copy()
        cache = config.create_timing_cache(contents)
        complaints = [text for text in self._messages.warnings - said if "timing cache" in text.lower()]
        return None if self._messages.take_errors() or complaints else cache

    def _start(self):
        try:
            with HELD.library_starts():
                return self._trt.Builder(self._logger)
        except TypeError as error:  # pybind11 got nothing from the library, which has nothing from CUDA
            errors = "\n  ".join(["", *self._messages.take_errors()])
            raise ConversionError(
                f"TensorRT {self._library.version} does not start with this driver (for CUDA {probe_driver().version}): {error}{errors}",
                hint="Update the driver, or install a TensorRT for its CUDA version (see NVIDIA's support matrix).",
                code=ExitCode.MACHINE,
            ) from error

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


def _at_opt(entry: Profile) -> Profile:
    """Nothing but the usual shape and values."""
    return Profile(entry.name, *(entry.opt,) * 3, entry.values and (entry.values[1],) * 3)


def _build_hint(errors: list[str]) -> str:
    text = " ".join(errors).lower()
    if "workspace" in text:  # "could not find any implementation for node ... due to insufficient workspace"
        return "Raise --workspace-size: no kernel of a layer fits into it; or lower --max-batch-size or the max shapes."
    if "bad_alloc" in text:  # of the system's memory
        return limited() or "Free memory: end other programs, or lower --max-batch-size or the max shapes."
    if "memory" in text:
        return "Lower --max-batch-size or the max shapes, and close other programs on this GPU."
    if "profile" in text:
        return "Check --min-shapes, --opt-shapes and --max-shapes."
    return "Run again with -vv for all of TensorRT's messages."
