"""Device memory, streams and events: a few checked verbs on arrays and integers. The only pycuda / cuda-python import.

Both work in the device's primary context, the one that TensorRT's runtime API and torch use, so nothing is left behind and
several libraries can share one process.
"""

from __future__ import annotations

import importlib.util
from typing import Protocol

import numpy as np

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.memory import HELD


class Cuda(Protocol):
    """What an engine needs of CUDA. Addresses, streams and events are opaque integers or handles; sizes are bytes."""

    name: str

    def allocate(self, nbytes: int) -> int: ...

    def free(self, address: int) -> None: ...

    def upload(self, address: int, array: np.ndarray, stream: int) -> None: ...

    def download(self, array: np.ndarray, address: int, stream: int) -> None: ...

    def new_stream(self) -> int: ...

    def synchronize(self, stream: int) -> None: ...

    def record(self, stream: int): ...

    def milliseconds(self, start, end) -> float: ...

    def memory(self) -> tuple[int, int]: ...

    def close(self) -> None: ...


def available() -> tuple[str, ...]:
    """Installed bindings in the order of preference."""
    found = []
    for name, module in (("pycuda", "pycuda"), ("cuda-python", "cuda.bindings")):
        try:
            if importlib.util.find_spec(module) is not None:
                found.append(name)
        except (ImportError, ValueError):
            continue
    return tuple(found)


def open_cuda(prefer: str | None = None) -> Cuda:
    """CUDA through pycuda where it is installed, else through cuda-python.

    Args:
        prefer: pycuda or cuda-python, to take just that one.

    Raises:
        ConversionError: MACHINE, where neither can be used.
    """
    problems = []
    for name in (prefer,) if prefer else available():
        try:
            with HELD.library_starts():
                return {"pycuda": PyCuda, "cuda-python": CudaPython}[name]()
        except (ImportError, OSError, RuntimeError) as error:
            problems.append(f"{name}: {error}")
    raise ConversionError(
        "the GPU cannot be used from Python: " + ("; ".join(problems) or "neither pycuda nor cuda-python is installed"),
        hint="pip install cuda-python, or pip install pycuda, which compiles it with a CUDA toolkit.",
        code=ExitCode.MACHINE,
    )


def _check_host(array: np.ndarray) -> None:
    if not array.flags.c_contiguous:
        raise ValueError(f"array of shape {array.shape} is not C-contiguous")


class PyCuda:
    """pycuda.driver in the primary context of the first device; no autoinit, which would make a context of its own."""

    name = "pycuda"

    def __init__(self) -> None:
        import pycuda.driver as driver

        self._driver = driver
        driver.init()
        self._context = driver.Device(0).retain_primary_context()
        self._context.push()
        self._allocations: dict[int, object] = {}
        self._streams: dict[int, object] = {}

    def allocate(self, nbytes: int) -> int:
        try:
            allocation = self._driver.mem_alloc(max(nbytes, 1))
        except self._driver.MemoryError:
            raise out_of_memory(nbytes, self.memory()) from None
        self._allocations[int(allocation)] = allocation
        return int(allocation)

    def free(self, address: int) -> None:
        allocation = self._allocations.pop(address, None)
        if allocation is not None:
            allocation.free()

    def upload(self, address: int, array: np.ndarray, stream: int) -> None:
        _check_host(array)
        if array.nbytes:
            self._driver.memcpy_htod_async(address, array, self._streams.get(stream))

    def download(self, array: np.ndarray, address: int, stream: int) -> None:
        _check_host(array)
        if array.nbytes:
            self._driver.memcpy_dtoh_async(array, address, self._streams.get(stream))

    def new_stream(self) -> int:
        stream = self._driver.Stream()
        self._streams[stream.handle] = stream
        return stream.handle

    def synchronize(self, stream: int) -> None:
        self._streams[stream].synchronize()

    def record(self, stream: int):
        event = self._driver.Event()
        event.record(self._streams[stream])
        return event

    def milliseconds(self, start, end) -> float:
        end.synchronize()
        return end.time_since(start)

    def memory(self) -> tuple[int, int]:
        """(free, total) bytes of the device."""
        return self._driver.mem_get_info()

    def close(self) -> None:
        """Free everything and give the primary context back; harmless a second time."""
        if self._context is None:
            return
        for address in list(self._allocations):
            self.free(address)
        self._streams.clear()
        self._context.pop()
        self._context.detach()
        self._context = None


class CudaPython:
    """cuda-python's runtime API, which is in the primary context by itself."""

    name = "cuda-python"

    def __init__(self) -> None:
        from cuda.bindings import runtime

        self._runtime = runtime
        self._allocations: dict[int, int] = {}
        self._streams: set[int] = set()
        self._check(runtime.cudaSetDevice(0))

    def _check(self, answer: tuple):
        """Value(s) of a call that returns (status, *values)."""
        status, *values = answer
        if int(status):
            raise RuntimeError(f"CUDA error {int(status)}: {getattr(status, 'name', status)}")
        return values[0] if len(values) == 1 else tuple(values)

    def allocate(self, nbytes: int) -> int:
        status, address = self._runtime.cudaMalloc(max(nbytes, 1))
        if int(status) == int(self._runtime.cudaError_t.cudaErrorMemoryAllocation):
            raise out_of_memory(nbytes, self.memory())
        self._check((status,))
        self._allocations[int(address)] = nbytes
        return int(address)

    def free(self, address: int) -> None:
        if self._allocations.pop(address, None) is not None:
            self._check(self._runtime.cudaFree(address))

    def upload(self, address: int, array: np.ndarray, stream: int) -> None:
        self._copy(address, array.ctypes.data, array, stream, self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice)

    def download(self, array: np.ndarray, address: int, stream: int) -> None:
        self._copy(array.ctypes.data, address, array, stream, self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost)

    def _copy(self, target: int, source: int, array: np.ndarray, stream: int, kind) -> None:
        _check_host(array)
        if array.nbytes:
            self._check(self._runtime.cudaMemcpyAsync(target, source, array.nbytes, kind, stream))

    def new_stream(self) -> int:
        stream = int(self._check(self._runtime.cudaStreamCreate()))
        self._streams.add(stream)
        return stream

    def synchronize(self, stream: int) -> None:
        self._check(self._runtime.cudaStreamSynchronize(stream))

    def record(self, stream: int):
        event = self._check(self._runtime.cudaEventCreate())
        self._check(self._runtime.cudaEventRecord(event, stream))
        return event

    def milliseconds(self, start, end) -> float:
        self._check(self._runtime.cudaEventSynchronize(end))
        return float(self._check(self._runtime.cudaEventElapsedTime(start, end)))

    def memory(self) -> tuple[int, int]:
        """(free, total) bytes of the device."""
        free, total = self._check(self._runtime.cudaMemGetInfo())
        return int(free), int(total)

    def close(self) -> None:
        """Free everything; harmless a second time."""
        for address in list(self._allocations):
            self.free(address)
        for stream in list(self._streams):
            self._check(self._runtime.cudaStreamDestroy(stream))
            self._streams.discard(stream)


def out_of_memory(nbytes: int, memory: tuple[int, int]) -> ConversionError:
    free, total = memory
    return ConversionError(
        f"the GPU has no room for {nbytes / 1e6:.0f} MB: {free / 1e6:.0f} of {total / 1e6:.0f} MB are free",
        hint="Lower --max-batch-size or the max shapes, or close other programs on this GPU.",
        code=ExitCode.MACHINE,
    )
