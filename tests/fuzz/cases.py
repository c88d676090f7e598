"""What is thrown at the command: files and flags of one case, and what a success has to prove."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from models import conv_net, layer_norm, model, multiplication_chain, node, random

from onnx2trt.base.opencv import opencv
from onnx2trt.quant.calibration_cache import to_text
from tests.fuzz.mutate import mutate_bytes, mutate_cache, mutate_onnx

KINDS = ("onnx", "cache", "images", "flags")
LEAST_SQNR_DB = 15.0  # between the prepared FP16 model and the damaged one; damage of the numbers would be far below


def make(kind: str, rng: np.random.Generator, folder: Path) -> list[str]:
    """Write the files of a case; give its arguments."""
    return {"onnx": _onnx, "cache": _cache, "images": _images, "flags": _flags}[kind](rng, folder)


def _sources() -> list[bytes]:
    attention = model(
        [node("MatMul", "x w", "q"), node("Softmax", "q", "p", axis=-1), node("Add", "p x", "y")],
        {"x": ["n", 16, 16]},
        {"y": ["n", 16, 16]},
        {"w": random(16, 16)},
    )
    branches = model(
        [node("Conv", "x w", "a", pads=[1] * 4), node("MaxPool", "a", "b", kernel_shape=[2, 2], strides=[2, 2])]
        + [onnx.helper.make_node("Resize", ["b", "", "up"], ["c"], mode="nearest")]
        + [node("Concat", "a c", "d", axis=1), node("GlobalAveragePool", "d", "e"), node("Flatten", "e", "y")],
        {"x": [1, 3, 16, 16]},
        {"y": [1, 16]},
        {"w": random(8, 3, 3, 3), "up": np.float32([1, 1, 2, 2])},
    )
    return [m.SerializeToString() for m in (conv_net(), layer_norm(), multiplication_chain(), attention, branches)]


def _onnx(rng: np.random.Generator, folder: Path) -> list[str]:
    sources = _sources()
    data = mutate_onnx(sources[int(rng.integers(len(sources)))], rng)
    (folder / "net.onnx").write_bytes(data)
    (folder / "weights.bin").write_bytes(bytes(64))
    (folder / "link").symlink_to("/etc/hostname")
    precision = ("fp16", "fp32")[int(rng.integers(2))]
    return ["--onnx", "net.onnx", "--precision", precision, "--save-onnx", "prepared.onnx", "--max-accuracy-drop", "20", "--json", "r.json"]


def _cache(rng: np.random.Generator, folder: Path) -> list[str]:
    onnx.save(conv_net(), folder / "net.onnx")
    scales = {"x": 0.02, "c1": 0.03, "r1": 0.03, "c2": 0.05, "r2": 0.05, "y": 0.1}
    (folder / "c.cache").write_bytes(mutate_cache(to_text(scales, "entropy", "8601").encode(), rng))
    if rng.integers(3) == 0:
        (folder / "c.cache.json").write_bytes(mutate_bytes(b'{"schema_version": 1, "cache_sha256": "0", "model_sha256": "0"}', rng))
    return [
        "--onnx",
        "net.onnx",
        "--precision",
        "int8",
        "--calibration-cache",
        "c.cache",
        "--save-onnx",
        "prepared.onnx",
        "--json",
        "r.json",
    ]


def _images(rng: np.random.Generator, folder: Path) -> list[str]:
    onnx.save(conv_net(), folder / "net.onnx")
    (folder / "images").mkdir()
    for index in range(4):
        suffix = (".png", ".jpg", ".bmp", ".tiff", ".webp")[int(rng.integers(5))]
        pixels = rng.integers(0, 256, (24, 32, 3), np.uint8)
        data = opencv().imencode(suffix, pixels)[1].tobytes()
        damaged = mutate_bytes(data, rng) if index < 2 else data
        (folder / "images" / f"{index}{suffix}").write_bytes(damaged)
    where = ("--test-image", "images/0" + next((folder / "images").glob("0*")).suffix) if rng.integers(2) else ()
    flags = ("--precision", "int8", "--calibration-dir", "images", "--quantization-effort", "fast", "--max-accuracy-drop", "100")
    return ["--onnx", "net.onnx", *flags, *where, "--save-onnx", "prepared.onnx", "--json", "r.json"]


VALUES = (
    "",
    "0",
    "1",
    "-1",
    "1e309",
    "nan",
    "fp16",
    "*:fp32",
    "x:1x3x16x16",
    "x:0x3x16x16",
    "x:1x3x99999999x99999999",
    "images",
    "net.onnx",
)
VALUES += ("none", "a,b", "\udcff", "..", "/", "x" * 300, "89", "sm_999", "top1", "mask:0.5", "mask:2", "1,2,3", "c.cache", "-", "./-")


def _flags(rng: np.random.Generator, folder: Path) -> list[str]:
    """A handful of flags with values that may or may not fit them."""
    from onnx2trt.plan.arguments import build_parser

    onnx.save(conv_net(), folder / "net.onnx")
    (folder / "images").mkdir()
    for index in range(3):
        opencv().imwrite(str(folder / "images" / f"{index}.png"), rng.integers(0, 256, (16, 16, 3), np.uint8))
    (folder / "c.cache").write_text(to_text({"x": 0.02, "r1": 0.03, "r2": 0.05}, "entropy", "8601"))
    actions = [a for a in build_parser()._actions if a.dest not in ("help", "onnx", "output", "verbose")]
    arguments = ["--onnx", "net.onnx", "--output", "out.engine"]
    for action in rng.choice(len(actions), int(rng.integers(1, 6)), replace=False):
        arguments += _typed(actions[int(action)], rng)
    return arguments


def _typed(action, rng: np.random.Generator) -> list[str]:
    flag = max(action.option_strings, key=len)
    if action.nargs == 0:
        return [flag]
    if action.choices and rng.integers(4):
        return [flag, str(list(action.choices)[int(rng.integers(len(action.choices)))])]
    return [flag, VALUES[int(rng.integers(len(VALUES)))]]


def check_success(kind: str, folder: Path) -> list[str]:
    """Problems of a run with exit code 0."""
    if kind == "flags":
        return []
    result = json.loads((folder / "r.json").read_text())
    engine = folder / "net.engine"
    if result["status"] == "failed" or not engine.exists() or engine.stat().st_size != result["engine"]["bytes"]:
        return ["success without its engine"]
    if kind == "onnx":
        return _compare(folder, result["status"])
    return []


def _compare(folder: Path, status: str) -> list[str]:
    """The prepared model against the damaged one, both by ONNX Runtime; what that cannot load was not validated."""
    from onnx2trt.base.errors import ConversionError
    from onnx2trt.model.graph import Graph
    from onnx2trt.model.session import Session
    from onnx2trt.rewrite.simulate import simulation

    original = onnx.load(folder / "net.onnx")
    feed = {}
    rng = np.random.default_rng(0)
    for value in original.graph.input:
        if value.name in {tensor.name for tensor in original.graph.initializer}:
            continue
        shape = [dim.dim_value if dim.dim_value > 0 else 1 for dim in value.type.tensor_type.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        feed[value.name] = rng.random(shape).astype(dtype)
    try:
        reference = Session.from_path(str(folder / "net.onnx"))
    except ConversionError as error:
        return [] if status == "not_validated" else [f"{status}, but {error.message}"]
    expected = reference.run(feed)
    found = Session.from_graph(simulation(Graph.from_model(onnx.load(folder / "prepared.onnx")))).run(feed)
    for name, reference in expected.items():
        told = np.isfinite(reference.astype(np.float64))
        signal = float((reference[told].astype(np.float64) ** 2).sum())
        error = float(((found[name][told].astype(np.float64) - reference[told]) ** 2).sum())
        if error > 0 and not (signal > 0 and 10 * np.log10(signal / error) > LEAST_SQNR_DB):
            return [f"output {name} differs: signal {signal:.3g}, error {error:.3g}"]
    return []
