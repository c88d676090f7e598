"""stages/observe.py: which data the shapes of inner tensors are observed on, and what hangs on them."""

import numpy as np
import onnx
import pytest
from command import onnx2trt
from exported_transformers import TOKENS, transformer
from helpers import planned
from models import model, node

from onnx2trt.conversion.candidate import OnnxCandidate
from onnx2trt.model.operators import WEIGHTED
from onnx2trt.rewrite.shares import mac_share, macs_of
from onnx2trt.stages import observe as observing
from onnx2trt.stages.observe import observed, observed_candidate
from onnx2trt.stages.read_back import describe_onnx

SHAPES = ("--min-shapes", "x:1x1", "--opt-shapes", "x:2x5", "--max-shapes", "x:4x9")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    onnx.save(transformer(layers=3), "model.onnx")
    return tmp_path


def layers(graph) -> int:
    return sum(one.op_type in WEIGHTED for one in graph.nodes)


def test_all_layers_of_a_transformer_with_free_sizes_are_counted(here):
    job, run = planned("--precision", "fp16", *SHAPES)
    assert len(macs_of(job.graph(), job.profiles)) < layers(job.graph()), "onnx follows all of it: this is no case"
    job = observed(job, run)
    assert len(macs_of(job.graph(), job.profiles)) == layers(job.graph()) and "shapes" in run.console.timings


def test_the_counts_grow_with_the_opt_shapes(here):
    """Of batch and sequence, the shapes that the data happen to have play no part."""
    totals = []
    (here / "data").mkdir()
    np.save(here / "data" / "a.npy", np.full((1, 3), TOKENS - 1))
    for opt in ("2x5", "4x5"):
        flags = ("--precision", "int8", "--calibration-dir", "data", "--opt-shapes", f"x:{opt}", "--max-shapes", "x:4x9")
        job, run = planned(*flags, "--min-shapes", "x:1x1")
        totals.append(sum(macs_of(observed(job, run).graph(), job.profiles).values()))
    assert totals[1] == 2 * totals[0]


def test_data_is_used_before_made_up_values(here, monkeypatch):
    """Values that only the user knows: made-up ones would not run."""
    nodes = [node("Gather", "table x", "g"), node("NonZero", "g", "n"), node("Cast", "n", "y", to=1)]
    table = np.zeros(4, np.float32)
    table[3] = 1
    onnx.save(model(nodes, {"x": (onnx.TensorProto.INT64, ["n"])}, {"y": None}, {"table": table}), "model.onnx")
    (here / "data").mkdir()
    np.save(here / "data" / "a.npy", np.int64([3, 3]))
    flags = ("--opt-shapes", "x:5", "--min-shapes", "x:1", "--max-shapes", "x:8")
    job, run = planned("--validation-dir", "data", *flags)
    assert observed(job, run).observed == {"n": (1, 5), "y": (1, 5)}
    job, run = planned(*flags)
    assert observed(job, run).observed == {"n": (1, 0), "y": (1, 0)}


def test_data_that_does_not_run_is_no_reason_to_know_nothing(here):
    (here / "data").mkdir()
    np.save(here / "data" / "a.npy", np.full((1, 3), TOKENS))
    job, run = planned("--validation-dir", "data", *SHAPES)
    assert len(macs_of(observed(job, run).graph(), job.profiles)) == layers(job.graph())


def test_a_model_that_does_not_run_at_all_is_left_to_who_needs_it(here):
    onnx.save(model([node("Gather", "t x", "g"), node("Reshape", "g to", "y")], {"x": (onnx.TensorProto.INT64, ["n"])}, {"y": None},
                    {"t": np.zeros(1, np.float32), "to": np.int64([7])}), "model.onnx")  # fmt: skip
    job, run = planned("--opt-shapes", "x:5", "--min-shapes", "x:1", "--max-shapes", "x:8")
    assert observed(job, run).observed == {}


@pytest.mark.parametrize("flags", [("--precision", "fp32"), ("--plugins", "p.so")])
def test_nothing_is_run_where_nobody_asks_or_onnx_runtime_cannot(here, flags, monkeypatch):
    monkeypatch.setattr(observing, "without_shape", lambda *_: pytest.fail("looked at"))
    job, run = planned(*flags, *SHAPES)
    assert observed(job, run) is job


def test_nothing_is_run_where_all_shapes_are_known(here):
    onnx.save(model([node("Relu", "x", "y")], {"x": ["n", 4]}, {"y": ["n", 4]}), "model.onnx")
    job, run = planned("--precision", "fp16")
    assert observed(job, run).observed == {} and "shapes" not in run.console.timings


def test_of_a_candidate_its_own_tensors_are_observed(here):
    """A prepared ONNX names its tensors as it likes."""
    job, run = planned("--precision", "fp16", *SHAPES)
    graph = job.graph()
    for one in graph.nodes:
        for names in (one.input, one.output):
            names[:] = [name if name in ("x", "y", "", *graph.weights) else f"other/{name}" for name in names]
    candidate = OnnxCandidate(job.info, graph)
    seen = observed_candidate(job, candidate, run)
    assert len(macs_of(seen.graph, job.profiles)) == layers(graph)
    assert mac_share(seen.graph, job.profiles, {one.name for one in graph.nodes}) == 1
    assert describe_onnx(job, seen).fp16_mac_share == 0


@pytest.mark.real
@pytest.mark.parametrize("tokens", [True, False], ids=["bert", "vit"])
def test_int8_of_a_transformer_with_free_sizes_is_what_it_says(here, tokens):
    """As users call it: nearly all of the work is in matrix products whose shapes nobody could infer."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    onnx.save(transformer(layers=2, heads=4, size=16, tokens=tokens), "model.onnx")
    (here / "data").mkdir()
    for index in range(4):
        random_ = np.random.default_rng(index)
        x = random_.integers(0, TOKENS, (1, 12)) if tokens else random_.standard_normal((1, 3, 16, 16)).astype(np.float32)
        np.save(here / "data" / f"{index}.npy", x)
    shape = "1x12" if tokens else "1x3x16x16"
    flags = ("--precision", "int8", "--calibration-dir", "data", "--quantization-effort", "fast", "--max-accuracy-drop", "100")
    done = onnx2trt(here, "--onnx", "model.onnx", *flags, "--opt-shapes", f"x:{shape}", "--json", "out.json")
    assert done.code == 0, done.stderr
    precision = done.json("out.json")["precision"]
    assert 0.8 < precision["int8_mac_share"] < 1, "two matrix products in each layer have no constant weights"
    assert precision["layers"]["int8"] >= 2 * 6
