"""What assignments in place cost, as ScatterND and by slices: boxes decoded like a YOLO's, `y[..., 0:2] = (y[..., 0:2] * 2 - 0.5) * 8`.

    python benchmarks/in_place.py [--cells 64] [--json FILE]

Both are engines of this tool, FP16, on TensorRT-RTX, which needs no GPU: one with the assignments left as they are, since
--layer-precisions names them, one as it is built else. Kernels, bytes that the engine moves and size of its file, by the engine's own plan;
nothing is timed.
No target: it says why rewrite/in_place.py is there.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

ROOT = Path(__file__).resolve().parent.parent
ANCHORS, VALUES = 3, 8  # boxes of a cell, values of a box
WAYS = {"ScatterND": ("--layer-precisions", "assign*:fp16"), "slices": ()}


def network(cells: int) -> onnx.ModelProto:
    """[1, 3, cells, cells] -> [1, ANCHORS, cells * cells, VALUES]: a convolution, a sigmoid, and two assignments, as torch exports them."""
    weights = {
        "w": np.random.default_rng(0).standard_normal((ANCHORS * VALUES, 3, 3, 3)).astype(np.float32),
        "sizes": np.array([1, ANCHORS, VALUES, cells * cells], np.int64),
        **{name: np.array(value, np.float32) for name, value in (("two", 2), ("half", 0.5), ("stride", 8))},
        **{name: np.array([value], np.int64) for name, value in (("i0", 0), ("i2", 2), ("i4", 4), ("last", 3))},
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1] * 4),
        helper.make_node("Reshape", ["c", "sizes"], ["r"], name="reshape"),
        helper.make_node("Transpose", ["r"], ["t"], name="transpose", perm=[0, 1, 3, 2]),
        helper.make_node("Sigmoid", ["t"], ["s"], name="sigmoid"),
        helper.make_node("Slice", ["s", "i0", "i2", "last"], ["xy"], name="xy"),
        helper.make_node("Mul", ["xy", "two"], ["xy2"], name="xy_doubled"),
        helper.make_node("Sub", ["xy2", "half"], ["xy3"], name="xy_centred"),
        helper.make_node("Mul", ["xy3", "stride"], ["places"], name="xy_scaled"),
        helper.make_node("ScatterND", ["s", "at0", "places"], ["a"], name="assign_xy"),
        helper.make_node("Slice", ["a", "i2", "i4", "last"], ["wh"], name="wh"),
        helper.make_node("Mul", ["wh", "two"], ["wh2"], name="wh_doubled"),
        helper.make_node("Mul", ["wh2", "wh2"], ["extents"], name="wh_squared"),
        helper.make_node("ScatterND", ["a", "at2", "extents"], ["y"], name="assign_wh"),
    ]
    for start in (0, 2):
        axes = (np.arange(1), np.arange(ANCHORS), np.arange(cells * cells), np.arange(start, start + 2))
        weights[f"at{start}"] = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in _shapes(cells).items()]
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    return helper.make_model(helper.make_graph(nodes, "boxes", ends[:1], ends[1:], constants), opset_imports=[helper.make_opsetid("", 17)])


def _shapes(cells: int) -> dict[str, list[int]]:
    return {"x": [1, 3, cells, cells], "y": [1, ANCHORS, cells * cells, VALUES]}


def measure(cells: int) -> dict[str, dict[str, int]]:
    """Way -> kernels, moved_bytes and bytes of its engine.

    Raises:
        RuntimeError: a conversion has failed.
    """
    found = {}
    with tempfile.TemporaryDirectory() as place:
        onnx.save(network(cells), Path(place) / "net.onnx")
        for way, flags in WAYS.items():
            command = [sys.executable, str(ROOT / "onnx2trt.py"), "net.onnx", "--precision", "fp16", "-o", "e.engine", "--json", "r.json"]
            done = subprocess.run([*command, "-q", *flags], cwd=place, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"{way}: {done.stderr}")
            engine = json.loads((Path(place) / "r.json").read_text())["engine"]
            found[way] = {name: engine[name] for name in ("kernels", "moved_bytes", "bytes")}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=64, help="rows and columns of cells (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write the figures as JSON")
    args = parser.parse_args()
    found = measure(args.cells)
    for way, row in found.items():
        print(f"{way:10} {row['kernels']:3} kernels  {row['moved_bytes'] / 1e6:6.2f} MB moved  engine {row['bytes'] / 1e6:5.2f} MB")
    if args.json:
        Path(args.json).write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
