"""trt/engine.py: how values reach an engine. Only a GPU runs one, so TensorRT is played here; end_to_end/test_gpu.py runs real ones."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import refused

from onnx2trt.base.errors import ExitCode
from onnx2trt.base.memory import HELD
from onnx2trt.base.model_info import Profile
from onnx2trt.trt.engine import Engine, EngineTensor
from onnx2trt.trt.library import Library

LOCATION = SimpleNamespace(HOST="host", DEVICE="device")


class Context:
    """Keeps what it is given, as an execution context does."""

    def __init__(self):
        self.shapes, self.addresses, self.read = {}, {}, None

    def set_input_shape(self, name, shape):
        self.shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return True

    def infer_shapes(self):
        if "size" not in self.addresses:
            return ["size"]
        values = (np.ctypeslib.ctypes.c_int64 * 2).from_address(self.addresses["size"])
        self.read = list(values)
        return []


class Cuda:
    uploaded = ()

    def allocate(self, size):
        return 4096

    def free(self, address):
        pass

    def upload(self, address, array, stream):
        self.uploaded += ((address, array.shape),)

    def synchronize(self, stream):
        pass


def engine_of(**members):
    """An engine with an image and a size that decides about shapes, as it is after loading."""
    engine = Engine.__new__(Engine)
    engine._trt, engine._cuda, engine._context, engine._stream = SimpleNamespace(TensorLocation=LOCATION), Cuda(), Context(), 0
    engine._buffers, engine._host = {}, {}
    engine._engine = SimpleNamespace(
        get_tensor_location=lambda name: LOCATION.HOST if name == "size" else LOCATION.DEVICE,
        get_tensor_profile_shape=lambda name, index: [(1, 3), (2, 3), (4, 3)],
        get_tensor_shape=lambda name: (2,),
        **{"num_optimization_profiles": 1, **members},
    )
    engine.tensors = tuple(EngineTensor(name, True, (2,), dtype, "", None) for name, dtype in (("x", "float32"), ("size", "int64")))
    return engine


def test_values_that_decide_about_shapes_are_given_in_the_hosts_memory():
    engine = engine_of()
    engine.load({"x": np.zeros((2, 3), np.float32), "size": np.array([24, 32], np.int32)})
    assert engine._context.read == [24, 32], "in the engine's type, and still there when it reads them"
    assert engine._context.shapes == {"x": (2, 3), "size": (2,)} and [shape for _, shape in engine._cuda.uploaded] == [(2, 3)]


def test_what_the_library_loads_with_an_engine_is_not_the_conversions_memory():
    kernels = []

    class Loaded:
        num_io_tensors = 0

        def create_execution_context(self):
            kernels.append(np.ones(2**26, np.uint8))
            return Context()

    class Runtime:
        def __init__(self, logger):
            kernels.append(np.ones(2**26, np.uint8))

        def deserialize_cuda_engine(self, data):
            return Loaded()

    class Logger:
        Severity = SimpleNamespace(WARNING=1, ERROR=2, INTERNAL_ERROR=3)

    before = HELD.without_libraries()
    library = Library("tensorrt", SimpleNamespace(Runtime=Runtime, ILogger=Logger))
    engine = Engine(library, b"plan", SimpleNamespace(new_stream=lambda: 0), lambda *_: None)
    engine._ready_context()
    assert len(kernels) == 2 and HELD.without_libraries() - before < 2**24


def test_a_scalar_is_given_as_one():
    """numpy.ascontiguousarray would make it an array of one value, whose shape TensorRT refuses."""
    engine = engine_of()
    engine.load({"x": np.float64(2.5), "size": np.array([24, 32])})
    assert engine._context.shapes["x"] == () and engine._cuda.uploaded[0][1] == ()


def test_their_profile_is_one_of_values():
    engine = engine_of(get_tensor_profile_values=lambda index, name: [[8, 8], [16, 16], [40, 40]])
    assert engine._profile("size", 0) == Profile("size", (2,), (2,), (2,), ((8, 8), (16, 16), (40, 40)))
    assert engine._profile("x", 0) == Profile("x", (1, 3), (2, 3), (4, 3))


def test_tensorrt_8_does_not_tell_them():
    assert engine_of()._profile("size", 0) is None


@pytest.mark.parametrize("values", [[], None])
def test_an_engine_without_a_profile_of_values(values):
    assert engine_of(get_tensor_profile_values=lambda index, name: values or [])._profile("size", 0).values is None


# ---- several optimization profiles


class Switching(Context):
    """A context that can be in one of several optimization profiles."""

    active_optimization_profile, switched, switches = 0, (), True

    def set_optimization_profile_async(self, index, stream):
        self.switched += (index,)
        self.active_optimization_profile = index
        return self.switches


def engine_of_two():
    """An engine of x, [1..4, 8] in profile 0 and [1, 16] in profile 1."""
    bounds = {0: [(1, 8), (2, 8), (4, 8)], 1: [(1, 16)] * 3}
    engine = engine_of(num_optimization_profiles=2)
    engine._engine.get_tensor_profile_shape = lambda name, index: bounds[index]
    engine.tensors = (EngineTensor("x", True, (-1, -1), "float32", "", Profile("x", *bounds[0])),)
    engine._context = Switching()
    engine._context.infer_shapes = lambda: []
    return engine


def test_the_profile_that_takes_the_shapes_is_selected_before_they_are_set():
    engine = engine_of_two()
    for shape in ((2, 8), (1, 16), (1, 16), (4, 8)):
        engine.load({"x": np.zeros(shape, np.float32)})
        assert engine._context.shapes == {"x": shape}
    assert engine._context.switched == (1, 0), "only where another one is needed"
    engine.load({"x": np.zeros((3, 16), np.float32)})
    assert engine._context.active_optimization_profile == 0, "none takes it: the engine itself refuses it, as ever"


def test_a_profile_that_cannot_be_selected_is_said():
    engine = engine_of_two()
    engine._context.switches = False
    engine._messages = SimpleNamespace(take_errors=lambda: ["busy"])
    with refused(ExitCode.MACHINE, "does not switch to optimization profile 1", "busy"):
        engine.load({"x": np.zeros((1, 16), np.float32)})


@pytest.mark.parametrize("before_10", [True, False])
def test_types_are_told_where_the_inputs_have_no_sizes_yet(before_10):
    class Inspector:  # as of TensorRT 8.6, whose library has these words; that of 10.6 has not
        execution_context = None

        def get_engine_information(self, form):
            sizes = self.execution_context is not None and self.execution_context.shapes
            return "Half" if sizes or not before_10 else "N/A due to dynamic shapes"

    engine = engine_of(create_engine_inspector=Inspector)
    engine._trt.LayerInformationFormat = SimpleNamespace(JSON=1)
    engine.tensors = tuple(replace(one, profile=Profile(one.name, (1, 3), (2, 3), (4, 3))) for one in engine.tensors)
    assert engine.inspect() == "Half"
    assert engine._context.shapes == ({"x": (2, 3)} if before_10 else {}), "the opt shape, and of nothing that is on the host"
