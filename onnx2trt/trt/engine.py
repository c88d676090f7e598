"""Load an engine and run it, by tensor names only: one code path for TensorRT 8.6 to 11 and TensorRT-RTX."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.memory import HELD
from onnx2trt.base.model_info import Profile
from onnx2trt.trt import refusal
from onnx2trt.trt.library import Library
from onnx2trt.trt.logger import make_logger
from onnx2trt.trt.memory import Cuda

# numpy has no name for these; nothing of ours is fed or read in them
DTYPES = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT8": np.int8,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
    "UINT8": np.uint8,
}


UNTOLD = "N/A due to dynamic shapes"  # TensorRT 8.6, of types, as long as the inputs have no sizes


@dataclass(frozen=True)
class EngineTensor:
    """An input or output as the engine declares it."""

    name: str
    is_input: bool
    shape: tuple[int, ...]  # -1 for a dimension of the profile
    dtype: str  # numpy's name, or TensorRT's in lower case where numpy has none
    format: str
    profile: Profile | None  # of inputs


class Engine:
    """A deserialized engine with one execution context. Close it before the CUDA that it uses."""

    def __init__(self, library: Library, data, cuda: Cuda, show: Callable[[str, bool], None], host_code: bool = False):
        """Load a plan.

        Args:
            data: the serialized engine, bytes-like.
            host_code: allow the plan to bring host code along, as version-compatible plans do; only for plans of our own.

        Raises:
            ConversionError: MACHINE, where the plan does not load here.
        """
        self._trt, self._cuda = library.trt, cuda
        self._logger, self._messages = make_logger(library.trt, show)
        with HELD.library_starts():
            self._runtime = self._trt.Runtime(self._logger)
            if host_code:
                self._runtime.engine_host_code_allowed = True
            self._engine = self._runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            raise self._failure("the engine does not load on this machine")
        self._context = None
        self._stream = cuda.new_stream()
        self._buffers: dict[str, tuple[int, int]] = {}  # tensor -> (address, bytes)
        self._host: dict[str, np.ndarray] = {}  # inputs in the host's memory
        self._allocators: dict[str, object] = {}
        self.tensors = tuple(self._describe(index) for index in range(self._engine.num_io_tensors))

    def _describe(self, index: int) -> EngineTensor:
        engine, trt = self._engine, self._trt
        name = engine.get_tensor_name(index)
        is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        kind = engine.get_tensor_dtype(name).name
        dtype = np.dtype(DTYPES[kind]).name if kind in DTYPES else kind.lower()
        profile = self._profile(name, 0) if is_input else None
        return EngineTensor(name, is_input, tuple(engine.get_tensor_shape(name)), dtype, engine.get_tensor_format_desc(name), profile)

    def _profile(self, name: str, index: int) -> Profile | None:
        """Shapes of an input in a profile, and its values where they decide about shapes; None where TensorRT 8.6 does not tell these."""
        engine = self._engine
        if not self._on_host(name):
            return Profile(name, *(tuple(shape) for shape in engine.get_tensor_profile_shape(name, index)))
        if not hasattr(engine, "get_tensor_profile_values"):
            return None
        # by position: the binding has swapped the names of the two
        values = tuple(tuple(map(int, row)) for row in engine.get_tensor_profile_values(index, name))
        return Profile(name, *(tuple(engine.get_tensor_shape(name)),) * 3, values or None)

    def _on_host(self, name: str) -> bool:
        """Whether TensorRT reads the values of an input itself, to know shapes, and so wants them in the host's memory."""
        return self._engine.get_tensor_location(name) == self._trt.TensorLocation.HOST

    def describe(self) -> dict:
        """Ends and memory, for the result."""
        return {
            "tensors": [
                {
                    "name": tensor.name,
                    "input": tensor.is_input,
                    "dtype": tensor.dtype,
                    "shape": list(tensor.shape),
                    "format": tensor.format,
                    "profile": None if tensor.profile is None else tensor.profile.to_dict(),
                }
                for tensor in self.tensors
            ],
            "profiles": self.profiles,
            "device_memory_bytes": self.device_memory_bytes,
        }

    @property
    def device_memory_bytes(self) -> int:
        """Scratch memory of one execution context."""
        return getattr(self._engine, "device_memory_size_v2", None) or self._engine.device_memory_size

    @property
    def profiles(self) -> int:
        return self._engine.num_optimization_profiles

    @property
    def layers(self) -> int:
        return self._engine.num_layers

    def profile(self, index: int) -> tuple[Profile, ...]:
        """Shapes of the inputs in one of the profiles."""
        return tuple(self._profile(tensor.name, index) for tensor in self.tensors if tensor.profile is not None)

    def inspect(self) -> str:
        """The inspector's JSON on all layers; detailed where the engine was built with detailed verbosity."""
        inspector = self._engine.create_engine_inspector()
        text = inspector.get_engine_information(self._trt.LayerInformationFormat.JSON)
        if UNTOLD not in text:
            return text
        context = self._ready_context()
        for tensor in self.tensors:
            if tensor.profile is not None and not self._on_host(tensor.name):
                context.set_input_shape(tensor.name, tensor.profile.opt)
        context.infer_shapes()
        inspector.execution_context = context
        return inspector.get_engine_information(self._trt.LayerInformationFormat.JSON)

    def run(self, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One inference.

        Args:
            feed: input -> array; cast to the engine's type.

        Returns:
            Output -> array; sizes that depend on the data are those that the data gave.

        Raises:
            ConversionError: VALIDATION, where the engine refuses shapes or fails.
        """
        self.load(feed)
        self.execute()
        return self.fetch()

    def attempt(self, feed: dict[str, np.ndarray]) -> None:
        """One inference whose outputs stay on the device.

        Raises:
            ConversionError: as run; MACHINE, where the GPU has no room.
        """
        self.load(feed)
        self.execute()
        self._cuda.synchronize(self._stream)

    def load(self, feed: dict[str, np.ndarray]) -> None:
        """Set shapes, make room, and copy the inputs to the device."""
        context = self._ready_context()
        if self.profiles > 1:
            self._select_profile({tensor.name: np.shape(feed[tensor.name]) for tensor in self.tensors if tensor.is_input})
        for tensor in self.tensors:
            if tensor.is_input:
                array = np.asarray(feed[tensor.name], tensor.dtype, order="C")  # a scalar stays one
                if not context.set_input_shape(tensor.name, array.shape):
                    raise self._failure(f"the engine refuses shape {list(array.shape)} for input {tensor.name!r}", ExitCode.VALIDATION)
                if self._on_host(tensor.name):
                    self._bind_host(tensor.name, array)
                else:
                    self._bind(tensor.name, array.nbytes)
                    self._cuda.upload(self._buffers[tensor.name][0], array, self._stream)
        missing = context.infer_shapes()
        if missing:
            raise self._failure(f"the engine has no shape for {list(missing)}", ExitCode.VALIDATION)
        for tensor in self.tensors:
            if not tensor.is_input:
                self._bind_output(tensor)
        self._cuda.synchronize(self._stream)

    def _select_profile(self, shapes: dict[str, tuple[int, ...]]) -> None:
        """Make the first optimization profile that takes these shapes the active one; where none does, the inputs are refused as ever."""
        takes = (i for i in range(self.profiles) if all(one.takes(shapes[one.name]) for one in self.profile(i)))
        wanted = next(takes, self._context.active_optimization_profile)
        if wanted != self._context.active_optimization_profile:
            if not self._context.set_optimization_profile_async(wanted, self._stream):
                raise self._failure(f"the engine does not switch to optimization profile {wanted}")
            self._cuda.synchronize(self._stream)

    def _ready_context(self):
        if self._context is None:
            with HELD.library_starts():  # the kernels are loaded, and by TensorRT-RTX compiled
                self._context = self._engine.create_execution_context()
            if self._context is None:
                raise self._failure("the engine gives no execution context (out of device memory?)")
        return self._context

    def _bind(self, name: str, nbytes: int) -> None:
        """A device buffer of at least `nbytes` for a tensor."""
        address, size = self._buffers.get(name, (0, -1))
        if size < nbytes:
            if address:
                self._cuda.free(address)
            address = self._cuda.allocate(nbytes)
            self._buffers[name] = (address, nbytes)
        if not self._context.set_tensor_address(name, address):
            raise self._failure(f"the engine refuses the address of {name!r}", ExitCode.VALIDATION)

    def _bind_host(self, name: str, array: np.ndarray) -> None:
        """Values that decide about shapes; TensorRT reads them when it infers the shapes, and again when it runs."""
        self._host[name] = array  # it keeps the address alone
        if not self._context.set_tensor_address(name, array.ctypes.data):
            raise self._failure(f"the engine refuses the values of {name!r}", ExitCode.VALIDATION)

    def _bind_output(self, tensor: EngineTensor) -> None:
        shape = tuple(self._context.get_tensor_shape(tensor.name))
        if all(dim >= 0 for dim in shape):
            self._allocators.pop(tensor.name, None)
            self._bind(tensor.name, int(np.prod(shape, dtype=np.int64)) * np.dtype(tensor.dtype).itemsize)
            return
        if tensor.name not in self._allocators:  # the size depends on the data: TensorRT asks for it while it runs
            self._allocators[tensor.name] = _make_allocator(self._trt, self._cuda)
        self._context.set_output_allocator(tensor.name, self._allocators[tensor.name])

    def execute(self) -> None:
        """Run on the inputs that are loaded; returns when the work is queued."""
        if not self._context.execute_async_v3(self._stream):
            raise self._failure("the engine failed to run", ExitCode.VALIDATION)

    def fetch(self) -> dict[str, np.ndarray]:
        """Wait, and copy the outputs to the host."""
        self._cuda.synchronize(self._stream)
        arrays = {}
        for tensor in self.tensors:
            if tensor.is_input:
                continue
            allocator = self._allocators.get(tensor.name)
            shape = tuple(allocator.shape) if allocator else tuple(self._context.get_tensor_shape(tensor.name))
            address = allocator.address if allocator else self._buffers[tensor.name][0]
            arrays[tensor.name] = np.empty(shape, tensor.dtype)
            self._cuda.download(arrays[tensor.name], address, self._stream)
        self._cuda.synchronize(self._stream)
        return arrays

    def time_ms(self, runs: int) -> list[float]:
        """Milliseconds of each of `runs` inferences on loaded inputs, between CUDA events: no copies, no host work."""
        events = [self._cuda.record(self._stream)]
        for _ in range(runs):
            self.execute()
            events.append(self._cuda.record(self._stream))
        self._cuda.synchronize(self._stream)
        return [self._cuda.milliseconds(start, end) for start, end in zip(events, events[1:])]

    def layer_ms(self, runs: int) -> dict[str, float]:
        """Median milliseconds of each layer over some inferences on loaded inputs; layers run one by one for that, so they sum to more."""
        times: dict[str, list[float]] = {}
        context = self._ready_context()
        context.profiler = _make_profiler(self._trt, times)
        try:
            for _ in range(runs):
                self.execute()
                self._cuda.synchronize(self._stream)
        finally:
            self._context = None  # a profiler cannot be taken off a context
        return {layer: float(np.median(values)) for layer, values in times.items()}

    def close(self) -> None:
        """Release context, engine and buffers, in the order that TensorRT needs."""
        self._context = None
        self._allocators.clear()
        for address, _ in self._buffers.values():
            self._cuda.free(address)
        self._buffers.clear()
        self._engine = None
        self._runtime = None

    def _failure(self, message: str, code: ExitCode = ExitCode.MACHINE) -> ConversionError:
        errors = self._messages.take_errors()
        return ConversionError(
            "\n  ".join([message + (":" if errors else ""), *errors]), hint=refusal.explain(" ".join(errors))[1], code=code
        )


def _make_profiler(trt, times: dict[str, list[float]]):
    """A profiler that collects milliseconds by layer."""

    class Profiler(trt.IProfiler):
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            times.setdefault(layer_name, []).append(ms)

    return Profiler()


def _make_allocator(trt, cuda: Cuda):
    """An output allocator for a tensor whose size depends on the data."""

    class Allocator(trt.IOutputAllocator):
        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)
            self.address, self.size, self.shape = 0, -1, ()

        def reallocate_output(self, name: str, memory: int, size: int, alignment: int) -> int:
            if size > self.size:
                if self.address:
                    cuda.free(self.address)
                self.address, self.size = cuda.allocate(size), size
            return self.address

        def reallocate_output_async(self, name: str, memory: int, size: int, alignment: int, stream: int) -> int:
            return self.reallocate_output(name, memory, size, alignment)

        def notify_shape(self, name: str, shape) -> None:
            self.shape = tuple(shape)

    return Allocator()
