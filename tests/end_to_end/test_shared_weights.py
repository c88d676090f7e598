"""A weight of several layers, which torch.onnx.export hands on by Identity: one in INT8, too, and once in the engine."""

import numpy as np
import onnx
import pytest
from command import onnx2trt
from models import model, node, random

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")

WIDTH, LAYERS = 256, 4


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_weight_of_several_layers_is_stored_once(tmp_path, precision):
    nodes, weights = [], {"w": random(WIDTH, WIDTH, scale=WIDTH**-0.5), "b": random(WIDTH, seed=1, scale=0.1)}
    for index in range(LAYERS):
        read = "w" if index == 0 else f"w{index}"
        nodes += [node("Identity", "w", read)] if index else []
        nodes.append(node("MatMul", f"{'x' if index == 0 else f'r{index - 1}'} {read}", f"m{index}", f"product {index}"))
        nodes += [node("Add", f"m{index} b", f"a{index}"), node("Relu", f"a{index}", f"r{index}")]
    nodes.append(node("Identity", f"r{LAYERS - 1}", "y"))
    onnx.save(model(nodes, {"x": [16, WIDTH]}, {"y": [16, WIDTH]}, weights), tmp_path / "net.onnx")
    (tmp_path / "data").mkdir()
    for index in range(10):
        np.savez(tmp_path / "data" / f"{index}.npz", x=random(16, WIDTH, seed=10 + index))
    flags = ("--calibration-dir", "data", "--no-baseline", "--min-int8-share", "99") if precision == "int8" else ()
    done = onnx2trt(tmp_path, "--onnx", "net.onnx", "--precision", precision, *flags, "--save-onnx", "p.onnx", "--json", "r.json")
    assert done.code == 0, done.stderr
    prepared = onnx.load(tmp_path / "p.onnx")
    large = [one for one in prepared.graph.initializer if len(one.raw_data) >= WIDTH * WIDTH]
    assert len(large) == 1, [one.name for one in large]
    engine = done.json("r.json")["engine"]
    each = WIDTH * WIDTH * (1 if precision == "int8" else 2)
    assert each <= engine["weights_bytes"] < 1.2 * each and engine["weights_bytes"] < engine["bytes"]
