"""examples/run_engine.py: what can be tested of it without a GPU. Its preprocessing is ours, bit for bit; test_gpu.py runs engines."""

import ast
import ctypes
import hashlib
import itertools
import json
import subprocess
import sys
import types

import numpy as np
import pytest
from command import ROOT
from helpers import encode, image, prepared

from onnx2trt.data.reader import load_image

SCRIPT = ROOT / "examples" / "run_engine.py"

WAYS = [
    {
        "resize": way,
        "layout": layout,
        "dtype": dtype,
        "color": color,
        "channels": channels,
        "input_range": 255 if dtype == "uint8" else reach,
    }
    for way, layout, dtype, (color, channels), reach in itertools.product(
        ("stretch", "letterbox", "crop"),
        ("NCHW", "NHWC"),
        ("float32", "float16", "uint8"),
        (("rgb", 3), ("bgr", 3), ("gray", 1), ("rgb", 4), ("bgr", 4)),
        (1, 255),
    )
]


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    import run_engine

    return run_engine


@pytest.mark.parametrize("shape", [(50, 31), (20, 90), (24, 32)])
def test_its_preprocessing_is_ours_bit_for_bit(example, tmp_path, shape):
    for index, way in enumerate(WAYS):
        way, channels = dict(way), way["channels"]
        way["mean"] = (0.0,) * channels if way["dtype"] == "uint8" else (0.485, 0.456, 0.406, 0.3)[:channels]
        way["std"] = (1.0,) * channels if way["dtype"] == "uint8" else (0.229, 0.224, 0.225, 0.7)[:channels]
        pre = prepared(way.pop("channels"), **way)
        data = encode(".png", image(*shape, channels=(1, 3, 4)[index % 3], seed=index))
        (tmp_path / "p.png").write_bytes(data)
        expected = load_image(str(tmp_path / "p.png"), pre)
        found = example.preprocess(data, json.loads(json.dumps(pre.describe())))
        assert found.dtype == expected.dtype and found.flags.c_contiguous
        assert found.tobytes() == expected[None].tobytes() and found.shape == (1, *expected.shape), way


def write_engine(folder, preprocessing=None, **engine):
    result = {
        "preprocessing": preprocessing,
        "plan": {"profiles": [{"name": "x", "min": [2, 3, 24, 32]}], "build": {"version_compatible": False}},
        "environment": {"backend": "tensorrt"},
        "engine": {"sha256": hashlib.sha256(b"engine").hexdigest(), **engine},
    }
    (folder / "m.engine").write_bytes(b"engine")
    (folder / "m.engine.json").write_text(json.dumps(result))
    return result


def test_an_image_fills_the_smallest_batch_of_the_engine(example, tmp_path):
    result = write_engine(tmp_path, prepared().describe())
    (tmp_path / "p.png").write_bytes(encode(".png", image(20, 20)))
    feed = example.load_inputs(str(tmp_path / "p.png"), result)
    assert feed["x"].shape == (2, 3, 24, 32) and np.array_equal(feed["x"][0], feed["x"][1])


def test_arrays_are_taken_by_name(example, tmp_path):
    np.savez(tmp_path / "in.npz", x=np.ones(3), other=np.zeros(2))
    assert set(example.load_inputs(str(tmp_path / "in.npz"), write_engine(tmp_path))) == {"x", "other"}


@pytest.mark.parametrize(
    "prepare, words",
    [
        (lambda folder: (folder / "m.engine.json").unlink(), "m.engine.json"),
        (lambda folder: write_engine(folder, sha256="0"), "belongs to another engine"),
        (lambda folder: write_engine(folder), "takes no image; give an .npz with x"),
        (lambda folder: (folder / "p.png").write_bytes(b"no image"), "no image that OpenCV knows"),
        (lambda folder: (folder / "p.png").unlink(), "p.png"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(tmp_path, prepare, words):
    (tmp_path / "p.png").write_bytes(encode(".png", image(20, 20)))
    write_engine(tmp_path, prepared().describe())
    prepare(tmp_path)
    done = subprocess.run([sys.executable, str(SCRIPT), "m.engine", "p.png"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("error: ") and words in done.stderr and "Traceback" not in done.stderr


def test_it_is_short_and_needs_nothing_of_ours():
    text = SCRIPT.read_text()
    assert len(text.splitlines()) <= 150
    nodes = list(ast.walk(ast.parse(text)))
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imported} - sys.stdlib_module_names == {"numpy", "cv2"}


# ---- the way through CUDA and TensorRT, with made-up ones whose device memory is the host's


class FakeRuntime(types.ModuleType):
    """cuda.bindings.runtime, as far as it is used."""

    cudaMemcpyKind = types.SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)

    def __init__(self):
        super().__init__("cuda.bindings.runtime")
        self.blocks, self.calls = {}, []

    def cudaSetDevice(self, number):
        self.calls.append("device")
        return (0,)

    def cudaMalloc(self, nbytes):
        block = ctypes.create_string_buffer(nbytes)
        self.blocks[ctypes.addressof(block)] = block
        return 0, ctypes.addressof(block)

    def cudaMemcpy(self, target, source, nbytes, kind):
        self.calls.append({1: "up", 2: "down"}[kind])
        ctypes.memmove(target, source, nbytes)
        return (0,)

    def cudaStreamCreate(self):
        return 0, 7

    cudaStreamCaptureMode = types.SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)
    capturing, capture_status = False, 0

    def cudaStreamBeginCapture(self, stream, mode):
        self.calls.append("capture")
        self.capturing = True
        return (0,)

    def cudaStreamEndCapture(self, stream):
        self.calls.append("captured")
        self.capturing = False
        return (self.capture_status, "graph") if not self.capture_status else (self.capture_status,)

    def cudaGraphInstantiate(self, graph, flags):
        assert graph == "graph"
        return 0, "executable"

    def cudaGraphLaunch(self, graph, stream):
        assert graph == "executable" and stream == 7
        self.calls.append("launch")
        return (0,)

    def cudaStreamSynchronize(self, stream):
        self.calls.append("wait")
        return (0,)


class FakeTensorRT(types.ModuleType):
    """tensorrt with an engine of x [n, 3] -> y = 2 x, in FP16."""

    TensorIOMode = types.SimpleNamespace(INPUT="in", OUTPUT="out")
    num_io_tensors, loads, largest = 2, True, 4

    def __init__(self, cuda):
        super().__init__("tensorrt")
        self.cuda, self.addresses, self.shape = cuda, {}, None
        self.Logger = type("Logger", (), {"WARNING": 1, "__init__": lambda self, level: None})

    def Runtime(self, logger):
        self.cuda.calls.append("runtime")
        return self

    def deserialize_cuda_engine(self, data):
        return self if self.loads else None

    def create_execution_context(self):
        return self

    def get_tensor_name(self, index):
        return ("y", "x")[index]

    def get_tensor_mode(self, name):
        return {"x": "in", "y": "out"}[name]

    def get_tensor_dtype(self, name):
        return name

    def nptype(self, name):
        return {"x": np.float32, "y": np.float16}[name]

    def set_input_shape(self, name, shape):
        self.shape = tuple(shape)
        return shape[0] <= self.largest

    def get_tensor_shape(self, name):
        return self.shape

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return address in self.cuda.blocks

    def execute_async_v3(self, stream):
        assert stream == 7
        self.cuda.calls.append("run")
        count = int(np.prod(self.shape))
        x = np.ctypeslib.as_array((ctypes.c_float * count).from_address(self.addresses["x"]))
        ctypes.memmove(self.addresses["y"], (2 * x).astype(np.float16).tobytes(), 2 * count)
        return True


@pytest.fixture
def device(monkeypatch):
    cuda = FakeRuntime()
    fake = FakeTensorRT(cuda)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cuda)
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    return fake


def test_the_engine_is_fed_run_and_read(example, device, tmp_path, monkeypatch, capsys):
    write_engine(tmp_path)
    monkeypatch.chdir(tmp_path)
    np.savez("in.npz", x=np.arange(6).reshape(2, 3))
    example.main(["m.engine", "in.npz", "--save", "out.npz"])
    found = np.load("out.npz")["y"]
    assert found.dtype == np.float16 and np.array_equal(found, 2 * np.arange(6).reshape(2, 3))
    assert device.cuda.calls == ["device", "runtime", "up", "run", "wait", "down"], "the GPU is asked for before TensorRT is touched"
    assert capsys.readouterr().out == "y: float16 [2, 3], from 0 to 10, mean 5\n"
    assert device.engine_host_code_allowed is False


@pytest.mark.parametrize("runs", [0, 3])
def test_a_graph_is_captured_after_a_first_run_and_then_launched(example, device, tmp_path, monkeypatch, capsys, runs):
    write_engine(tmp_path)
    monkeypatch.chdir(tmp_path)
    np.savez("in.npz", x=np.arange(6).reshape(2, 3))
    example.main(["m.engine", "in.npz", "--cuda-graph", "--benchmark", str(runs)])
    launches = example.WARM_UP + runs if runs else 1
    assert device.cuda.calls == [
        "device",
        "runtime",
        "up",
        "run",
        "wait",
        "capture",
        "run",
        "captured",
        *["launch", "wait"] * launches,
        "down",
    ]
    printed = capsys.readouterr().out
    assert printed.startswith("y: float16 [2, 3], from 0 to 10, mean 5\n") and ("3 inferences: p50 " in printed) == bool(runs)


def test_without_a_graph_each_inference_is_launched(example, device, tmp_path, monkeypatch, capsys):
    write_engine(tmp_path)
    monkeypatch.chdir(tmp_path)
    np.savez("in.npz", x=np.arange(6).reshape(2, 3))
    example.main(["m.engine", "in.npz", "--benchmark", "5"])
    assert device.cuda.calls.count("run") == 1 + example.WARM_UP + 5 and "5 inferences: p50 " in capsys.readouterr().out


def test_what_cannot_be_captured_is_said(example, device, tmp_path, monkeypatch):
    write_engine(tmp_path)
    monkeypatch.chdir(tmp_path)
    np.savez("in.npz", x=np.zeros((2, 3)))
    device.cuda.capture_status = 901
    with pytest.raises(SystemExit) as caught:
        example.main(["m.engine", "in.npz", "--cuda-graph"])
    assert "cannot be captured as a CUDA graph" in str(caught.value) and not device.cuda.capturing


@pytest.mark.parametrize(
    "spoil, words",
    [
        ({"loads": False}, "--inspect says why"),
        ({"largest": 1}, "refuses shape (2, 3) for x"),
        ({"get_tensor_shape": lambda n: (2, -1)}, "IOutput"),
    ],
)
def test_what_the_engine_refuses_is_said(example, device, tmp_path, monkeypatch, spoil, words):
    write_engine(tmp_path)
    monkeypatch.chdir(tmp_path)
    np.savez("in.npz", x=np.zeros((2, 3)))
    for name, value in spoil.items():
        setattr(device, name, value)
    with pytest.raises(SystemExit) as caught:
        example.main(["m.engine", "in.npz"])
    assert str(caught.value).startswith("error: ") and words in str(caught.value)
