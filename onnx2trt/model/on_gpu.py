"""Sessions of ONNX Runtime on the GPU, where its package is one for GPUs (onnxruntime-gpu) and that GPU computes; else on the CPU."""

from __future__ import annotations

import contextlib
import io
import os
import re
import threading
from collections.abc import Callable

import numpy as np
import onnx

# From 1.32 on, it reports home about every model that it runs, and keeps a device ID and a database in ~/.cache/Microsoft
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime as ort

from onnx2trt.base.computed_on import COMPUTED_ON
from onnx2trt.base.driver import probe_driver

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
CUDA_OPTIONS = {
    "use_tf32": "0",  # FP32 is what is asked for
    "cudnn_conv_algo_search": "HEURISTIC",  # EXHAUSTIVE, its own choice, times kernels: other sums in every run
    "arena_extend_strategy": "kSameAsRequested",  # the rest of the memory is TensorRT's
}
TRIAL_ERROR = 1e-5  # of the largest value; TF32 would give 1e-3
Load = Callable[[list], ort.InferenceSession]


class Gpu:
    """Whether ONNX Runtime computes on the GPU; asked once, when the first session is loaded."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._works: bool | None = None
        self._failed = False

    @property
    def works(self) -> bool:
        with self._lock:
            if self._works is None:
                offered = _offered()
                why = _why_not() if offered else ""
                self._works = offered and not why
                if why:
                    COMPUTED_ON.remarks.append(f"ONNX Runtime computes on the CPU, though its package is one for GPUs: {why}")
        return self._works

    def failed(self, error: Exception) -> None:
        """Some session went on on the CPU; the first is told."""
        if not self._failed:
            self._failed = True
            COMPUTED_ON.remarks.append(f"ONNX Runtime computed some of the model on the CPU, since the GPU failed: {first_line(error)}")


GPU = Gpu()  # the process's


class OnGpu:
    """A session that goes on on the CPU when the GPU fails: lacking memory, or a kernel."""

    def __init__(self, load: Load):
        """
        Args:
            load: makes the session for some providers; called again for the CPU where the GPU fails.

        Raises:
            Exception: of ONNX Runtime, where the CPU cannot load it either.
        """
        self._load, self._lock = load, threading.Lock()
        try:
            self._session, self._fell_back = load([(CUDA, CUDA_OPTIONS), CPU]), False
        except Exception as error:  # onnxruntime raises classes of its own, by status code
            self._session, self._fell_back = load([CPU]), True
            GPU.failed(error)

    def get_inputs(self) -> list:
        return self._session.get_inputs()

    def get_outputs(self) -> list:
        return self._session.get_outputs()

    def run(self, names: list[str], feed: dict[str, np.ndarray]) -> list:
        """
        Raises:
            Exception: of ONNX Runtime, where the CPU fails, too.
        """
        session = self._session
        COMPUTED_ON.used.add("CPU" if self._fell_back else "GPU")
        try:
            return session.run(names, feed)
        except Exception as error:
            if self._fell_back and session is self._session:
                raise
            why = error
        with self._lock:
            if not self._fell_back:
                self._session, self._fell_back = self._load([CPU]), True
        found = self._session.run(names, feed)
        COMPUTED_ON.used.add("CPU")
        GPU.failed(why)
        return found


def load(make: Load, on_gpu: bool) -> ort.InferenceSession | OnGpu:
    """A session.

    Args:
        make: of providers.
        on_gpu: where that is possible.
    """
    if not on_gpu:
        return make([CPU])
    if GPU.works:
        return OnGpu(make)
    COMPUTED_ON.used.add("CPU")
    return make([CPU])


def first_line(error: Exception) -> str:
    """What ONNX Runtime says, without where in its source and in which C++ function it says so."""
    line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return re.sub(r"/onnxruntime_src/\S+:\d+ .*?\) (?=[A-Z])", "", line)[:500]


def _offered() -> bool:
    """The package has code for GPUs, and the machine has one."""
    return CUDA in ort.get_available_providers() and not probe_driver().problem


def _why_not() -> str:
    """Why the GPU cannot be used, found by a convolution and a product on it; empty where it can."""
    said = io.StringIO()
    ort.set_default_logger_severity(4)  # what it says of libraries is on stderr, and several lines long
    with contextlib.redirect_stdout(said):  # where it says which libraries it has not found
        if hasattr(ort, "preload_dlls"):  # from 1.21 on: those of PyPI's nvidia packages
            ort.preload_dlls()
    missing = next((line.split(":")[0] for line in said.getvalue().splitlines() if line.startswith("Failed to load")), "")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    model, feed = _trial()
    try:
        session = ort.InferenceSession(model, options, providers=[(CUDA, CUDA_OPTIONS), CPU], enable_fallback=0)
        if CUDA not in session.get_providers():
            return f"{missing or 'libraries of CUDA and cuDNN are missing'} (pip install 'onnxruntime-gpu[cuda,cudnn]' brings them)"
        (found,) = session.run(None, feed)
    except Exception as error:  # whatever it is, the CPU is there
        return first_line(error)
    (expected,) = ort.InferenceSession(model, options, providers=[CPU]).run(None, feed)
    error = np.abs(found - expected).max() / np.abs(expected).max()
    return "" if error < TRIAL_ERROR else f"a convolution and a product on the GPU were wrong by {error:.1e}"


def _trial() -> tuple[bytes, dict[str, np.ndarray]]:
    """A model with one convolution and one product, and its input."""
    random, types = np.random.default_rng(0), onnx.TensorProto
    weights = {"w": random.random((8, 8, 3, 3), np.float32), "m": random.random((16, 16), np.float32)}
    shape, helper = [1, 8, 16, 16], onnx.helper
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]), helper.make_node("MatMul", ["c", "m"], ["y"])]
    ends = [[helper.make_tensor_value_info(name, types.FLOAT, shape)] for name in "xy"]
    graph = helper.make_graph(nodes, "trial", *ends, [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString(), {"x": random.random(shape, np.float32)}
