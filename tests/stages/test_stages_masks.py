"""stages/masks.py: masks of attention that FP16 does not hold, on every way to a network of 16 bits, with layers in 8 bits and without."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from attention_forms import Form
from helpers import LIBRARIES, planned
from models import random

from onnx2trt.model.graph import Graph
from onnx2trt.pipeline import int8
from onnx2trt.pipeline.prepare import choose
from onnx2trt.rewrite.masks import CLIPPED

HUGE = float(np.finfo(np.float32).min)
WAYS = [
    ("fp16", "weak", ()),
    ("fp16", "rtx", ()),
    ("int8", "weak", ("--quantization", "calibrator", "--no-baseline")),
    ("int8", "weak", ("--quantization", "qdq", "--no-baseline")),
    ("int8", "weak", ()),
    ("int8", "strong", ()),
    ("int8", "rtx", ()),
    ("fp8", "rtx", ()),
]


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """prepared(whole row masked, precision, library, flags): what is to be built of a network whose masks hold -3.4e38."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(LIBRARIES, "rtx", replace(LIBRARIES["rtx"], fp8=True))
    (tmp_path / "data").mkdir()

    def prepare(all_masked: bool, precision: str, library: str, flags: tuple[str, ...]):
        form = Form("behind mul", "add constant", batch=1, heads=2, size=16, tokens=12, mlp=True)
        source = form.network(2)
        for tensor in source.graph.initializer:
            if tensor.name.endswith("_mask"):
                values = onnx.numpy_helper.to_array(tensor).copy()
                values[values < 0] = HUGE
                if all_masked:  # softmax of what is all masked by -3.4e38 is even, by -1e4 it follows the scores
                    values[3] = HUGE
                tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        onnx.save(source, "model.onnx")
        for index in range(6):
            np.save(tmp_path / "data" / f"{index}.npy", random(form.batch, form.tokens, form.width, seed=index))
        data = ("--calibration-dir", "data") if precision != "fp16" else ("--validation-dir", "data")
        job, run = planned("--precision", precision, *data, "--quantization-effort", "fast", *flags, library=library)
        return (int8.choose(job, run) if job.quantizes else choose(job, run)).prepared(run)

    return prepare


def largest(graph: Graph) -> float:
    return max(float(np.abs(array.astype(np.float32)).max()) for array in graph.weights.values() if array.dtype.kind == "f")


@pytest.mark.parametrize("precision, library, flags", WAYS)
def test_no_way_to_16_bits_keeps_a_mask_in_fp32(prepared, precision, library, flags):
    made = prepared(False, precision, library, flags)
    assert [row for row in made.fallback if row[1] == "fp32"] == []
    assert "fp32" not in made.constraints.values()
    assert all(largest(graph) <= CLIPPED for graph in (made.graph, made.equivalent) if graph), "what is built, and what --save-onnx writes"


@pytest.mark.parametrize("precision, library, flags", WAYS[2:5:2])
def test_where_it_would_change_the_outputs_the_mask_stays(prepared, precision, library, flags):
    made = prepared(True, precision, library, flags)
    assert {row[0] for row in made.fallback if row[1] == "fp32"} >= {"l0_masked", "l0_probabilities"}
    assert largest(made.graph) > CLIPPED
