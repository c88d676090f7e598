"""A model beyond the 2 GB of one protobuf message, end to end: its weights stand in external data from the file to the engine."""

import filecmp
import os
import shutil

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from command import onnx2trt
from helpers import external
from models import model, node

pytestmark = pytest.mark.slow
pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")

WIDTHS = (8192, 8448)  # of the activations, in turn
LAYERS = 8  # 8 x 277 MB of FP32 weights: 2.2 GB
GB = 10**9
NEEDED_DISK = 9 * GB  # the model, the prepared model, the engine, and a temporary of each
NEEDED_MEMORY = 14 * GB


@pytest.fixture
def large(tmp_path):
    """A folder with large.onnx, large.data and x.npy; emptied at the end, since pytest keeps the folders of three runs."""
    free, available = shutil.disk_usage(tmp_path).free, available_memory()
    if free < NEEDED_DISK:
        pytest.skip(f"{free / GB:.0f} GB of disk are free, {NEEDED_DISK / GB:.0f} are needed")
    if available < NEEDED_MEMORY:
        pytest.skip(f"{available / GB:.0f} GB of memory are available, {NEEDED_MEMORY / GB:.0f} are needed")
    write_model(tmp_path)
    np.save(tmp_path / "x.npy", np.random.default_rng(99).standard_normal((1, WIDTHS[0]), np.float32))
    yield tmp_path
    for path in tmp_path.iterdir():
        path.unlink()


def available_memory() -> int:
    """Bytes; 0 where the system does not say."""
    try:
        with open("/proc/meminfo") as stream:
            lines = dict(line.split(":") for line in stream)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return 0


def write_model(folder) -> None:
    """x -> MatMul, Relu, MatMul, Relu ... -> y, all weights one after another in large.data; each the first one, turned."""
    first = np.random.default_rng(0).standard_normal(WIDTHS[0] * WIDTHS[1], np.float32) * np.float32((2 / WIDTHS[0]) ** 0.5)
    nodes, tensors, source = [], [], "x"
    with open(folder / "large.data", "wb") as stream:
        for index in range(LAYERS):
            product = "y" if index == LAYERS - 1 else f"m{index}"
            tensors.append(external(f"w{index}", np.empty(0, np.float32), "large.data", offset=stream.tell(), length=first.nbytes))
            tensors[-1].dims[:] = (WIDTHS[index % 2], WIDTHS[1 - index % 2])
            for part in (first[1000 * index :], first[: 1000 * index]):
                stream.write(memoryview(part).cast("B"))
            nodes.append(node("MatMul", f"{source} w{index}", product, f"product{index}"))
            source = f"a{index}"
            if product != "y":
                nodes.append(node("Relu", product, source, f"relu{index}"))
    proto = model(nodes, {"x": [1, WIDTHS[0]]}, {"y": [1, WIDTHS[LAYERS % 2]]})
    proto.graph.initializer.extend(tensors)
    onnx.save(proto, folder / "large.onnx")
    assert os.path.getsize(folder / "large.data") > 2**31


def convert(folder, *flags) -> dict:
    done = onnx2trt(folder, "--onnx", "large.onnx", "--json", "r.json", *flags)
    assert done.code == 0, done.stderr
    result = done.json("r.json")
    assert result["model"]["bytes"] > 2**31 and result["engine"]["bytes"] == (folder / "large.engine").stat().st_size
    (folder / "large.engine").unlink()
    return result


def expected_output(folder) -> np.ndarray:
    """By numpy, straight from the data file."""
    value = np.load(folder / "x.npy")
    for index in range(LAYERS):
        shape = (WIDTHS[index % 2], WIDTHS[1 - index % 2])
        value = np.maximum(value, 0) if index else value
        value = value @ np.memmap(folder / "large.data", np.float32, "r", index * 4 * shape[0] * shape[1], shape)
    return value


def saved_output(folder) -> np.ndarray:
    """Of the saved model, by ONNX Runtime."""
    session = ort.InferenceSession(str(folder / "prepared.onnx"), providers=["CPUExecutionProvider"])
    x = np.load(folder / "x.npy")
    return session.run(None, {"x": x.astype(np.float16) if session.get_inputs()[0].type == "tensor(float16)" else x})[0]


def sqnr_db(expected: np.ndarray, found: np.ndarray) -> float:
    assert found.shape == expected.shape
    return -10 * np.log10(((found.astype(np.float64) - expected) ** 2).sum() / (expected.astype(np.float64) ** 2).sum())


def test_fp32_as_it_is(large):
    """The parser reads the user's own file."""
    result = convert(large, "--precision", "fp32", "--test-image", "x.npy")
    assert result["precision"]["delivered"] == "fp32" and result["engine"]["bytes"] > 2**31
    assert result["status"] == "not_validated" and result["accuracy"] == [], "compared with itself it would show nothing"


def test_a_changed_model_that_needs_external_data_itself(large):
    """An FP16 input changes the graph: the parser reads a copy of ours, and the saved model has its own data file."""
    flags = ("--io-types", "x:fp16", "--save-onnx", "prepared.onnx")
    result = convert(large, "--precision", "fp32", "--no-validate", *flags)
    assert result["precision"]["layers"]["fp16"] == 0 and result["engine"]["bytes"] > 2**31
    assert filecmp.cmp(large / "prepared.onnx.data", large / "large.data", shallow=False)
    assert sqnr_db(expected_output(large), saved_output(large)) > 50  # the input was rounded


def test_fp16(large):
    """The precision is written into a graph too large for one message; without ranges, which take another 20 s."""
    result = convert(large, "--no-validate", "--disable-strict-types", "--save-onnx", "prepared.onnx")
    assert result["precision"]["delivered"] == "fp16" and result["precision"]["layers"]["fp32"] == 0
    assert result["engine"]["bytes"] > 2**30
    assert sqnr_db(expected_output(large), saved_output(large)) > 50
