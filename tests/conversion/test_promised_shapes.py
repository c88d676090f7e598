"""conversion/promised_shapes.py: promised shapes are tried, and a batch that is written into the graph is named with its node."""

import numpy as np
import onnx
import pytest
from helpers import quiet_run, refused
from models import model, node, random

from onnx2trt.base import memory
from onnx2trt.base.errors import ExitCode
from onnx2trt.conversion import promised_shapes
from onnx2trt.conversion.promised_shapes import rows_are_independent, try_shapes
from onnx2trt.model.preflight import preflight
from onnx2trt.plan.parts import Shapes
from onnx2trt.plan.shapes import make_profiles

CHANNELS, TIME = 8, 6


def tried(folder, source: onnx.ModelProto, declared: bool = True, **shapes) -> tuple[bool, list[str]]:
    """(whether samples are independent, warnings)"""
    path = str(folder / "net.onnx")
    onnx.save(source, path)
    found, info = preflight(path)
    run = quiet_run()
    bounds = {"min": (), "opt": (), "max": (), "max_batch": 8, **shapes}
    return try_shapes(found, info, make_profiles(info.inputs, Shapes(**bounds)), declared, run), run.console.warnings


class Net:
    """A random network [N, TIME, CHANNELS] -> [N, TIME, CHANNELS], into one of whose nodes a batch may be written."""

    def __init__(self, seed: int, written: str | None = None):
        self.random = np.random.default_rng(seed)
        self.nodes, self.weights, self.now = [], {}, "x"
        blocks = [self.dense, self.flat, self.recurrent, self.attention, self.normalized, self.folded, self.token]
        for index in self.random.integers(0, len(blocks), self.random.integers(1, 4)):
            blocks[index]()
        if written:
            getattr(self, written)(fixed=True)
            self.dense()

    def model(self) -> onnx.ModelProto:
        self.add("Identity", "y")
        self.nodes[-1].output[0] = "y"
        return model(self.nodes, {"x": ["N", TIME, CHANNELS]}, {"y": ["N", TIME, CHANNELS]}, self.weights)

    def add(self, op: str, kind: str, *others: str, name: str = "", source: str | None = None, **attributes) -> str:
        out = f"{kind}{len(self.nodes)}"
        self.nodes.append(node(op, " ".join((source or self.now, *others)), out, name or f"{kind}_{len(self.nodes)}", **attributes))
        self.now = out
        return out

    def weight(self, *shape) -> str:
        name = f"w{len(self.weights)}"
        self.weights[name] = (0.5 * self.random.standard_normal(shape)).astype(np.float32)
        return name

    def sizes(self, *values) -> str:
        name = f"s{len(self.weights)}"
        self.weights[name] = np.array(values)
        return name

    def dense(self):
        self.add("MatMul", "dense", self.weight(CHANNELS, CHANNELS))
        self.add("Tanh", "tanh")

    def flat(self):
        """Time and batch in one axis, the batch last, as linear layers behind recurrent ones have it."""
        self.add("Transpose", "t", perm=[1, 0, 2])
        self.add("Reshape", "r", self.sizes(-1, CHANNELS))
        self.dense()
        self.add("Reshape", "r", self.sizes(TIME, -1, CHANNELS))
        self.add("Transpose", "t", perm=[1, 0, 2])

    def recurrent(self, fixed: bool = False):
        self.add("Transpose", "t", perm=[1, 0, 2])
        states = ("", self.weight(1, 1, CHANNELS)) if fixed else ()
        gates = self.weight(1, 3 * CHANNELS, CHANNELS), self.weight(1, 3 * CHANNELS, CHANNELS)
        made = node("GRU", "x", f"g{len(self.nodes)}", "written" if fixed else f"gru_{len(self.nodes)}", hidden_size=CHANNELS)
        del made.input[:]
        made.input.extend([self.now, *gates, *(("", *states) if fixed else ())])
        self.nodes.append(made)
        self.now = made.output[0]
        self.add("Squeeze", "q", self.sizes(1))
        self.add("Transpose", "t", perm=[1, 0, 2])

    def attention(self):
        source = self.now
        turned = self.add("Transpose", "t", perm=[0, 2, 1])
        self.add("MatMul", "m", turned, source=source)
        self.add("Softmax", "p", axis=-1)
        self.add("MatMul", "m", source)

    def normalized(self):
        self.add("Reshape", "r", self.sizes(0, 2, -1))
        self.add("InstanceNormalization", "n", self.ones(2), self.ones(2))
        self.add("Reshape", "r", self.sizes(-1, TIME, CHANNELS))

    def ones(self, count: int) -> str:
        name = f"o{len(self.weights)}"
        self.weights[name] = np.ones(count, np.float32)
        return name

    def folded(self):
        """The batch in the channels, as grouped layers of one inference have it."""
        self.add("Reshape", "r", self.sizes(1, -1, CHANNELS))
        self.dense()
        self.add("Reshape", "r", self.sizes(-1, TIME, CHANNELS))

    def token(self, fixed: bool = False):
        """Something learned before the first step, and the last step let go."""
        learned = self.weight(1, 1, CHANNELS)
        before = self.now
        if fixed:
            token = self.add("Expand", "e", self.sizes(1, 1, CHANNELS), source=learned)
        else:
            sliced = self.add("Slice", "e", self.sizes(0), self.sizes(1), self.sizes(1))
            self.add("Mul", "e", self.zero())
            token = self.add("Add", "e", learned)
            assert sliced
        joined = f"joined{len(self.nodes)}"
        name = "written" if fixed else joined
        self.nodes.append(node("Concat", f"{token} {before}", joined, name, axis=1))
        self.now = joined
        self.add("Slice", "l", self.sizes(0), self.sizes(TIME), self.sizes(1))

    def zero(self) -> str:
        self.weights["zero"] = np.float32(0)
        return "zero"

    def reshape(self, fixed: bool):
        """Fails for more samples than one."""
        self.add("Reshape", "r", self.sizes(1, TIME, CHANNELS), name="written")

    def mixing(self, fixed: bool):
        """Fails for none, and mixes them."""
        self.add("Reshape", "r", self.sizes(1, CHANNELS, -1), name="written")
        self.add("Transpose", "t", perm=[0, 2, 1])
        self.add("Reshape", "r", self.sizes(-1, TIME, CHANNELS))


@pytest.mark.parametrize("seed", range(40))
def test_networks_with_a_free_batch_pass(tmp_path, seed):
    independent, warnings = tried(tmp_path, Net(seed).model(), declared=bool(seed % 2))
    assert independent and not warnings


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("written", ["reshape", "mixing", "recurrent", "token"])
def test_a_batch_that_is_written_into_a_node_is_named_with_it(tmp_path, seed, written):
    source = Net(seed, written).model()
    with refused(ExitCode.MODEL, "batch 1 is written into", "'written'", hint="free batch"):
        tried(tmp_path, source, declared=bool(seed % 2))
    assert tried(tmp_path, source, max_batch=1) == (True, []), "for one sample it is a good model"


# ---- batches that are meant to influence each other, and axes that are no batch

STATISTICS = model([node("ReduceMean", "x", "m", "mean", axes=[0]), node("Sub", "x m", "y", "centred")], {"x": ["N", 8]}, {"y": ["N", 8]})
NORMALIZED = model(
    [
        node("Conv", "x w", "c", "conv"),
        node("BatchNormalization", "c s b m v", "y rm rv", "norm", training_mode=1),
    ],
    {"x": ["batch", 3, 6, 6]},
    {"y": ["batch", 4, 6, 6]},
    {"w": random(4, 3, 1, 1), "s": random(4, seed=1), "b": random(4, seed=2), "m": random(4), "v": np.ones(4, np.float32)},
)
SEQUENCE = model(
    [node("LSTM", "x W R", "Y", "lstm", hidden_size=8), node("Squeeze", "Y axis", "y", "squeeze")],
    {"x": ["T", 1, 8]},
    {"y": ["T", 1, 8]},
    {"W": random(1, 32, 8), "R": random(1, 32, 8, seed=1), "axis": np.array([1])},
)


@pytest.mark.parametrize("source, first", [(STATISTICS, "mean"), (NORMALIZED, "norm")], ids=["statistics", "training"])
@pytest.mark.parametrize("declared", [True, False])
def test_statistics_over_a_batch_are_said_and_not_refused(tmp_path, source, first, declared):
    independent, (warning,) = tried(tmp_path, source, declared)
    assert not independent and "influence each other" in warning and f"node {first!r}" in warning


def test_a_sequence_is_said_and_not_refused_where_its_lengths_are_given(tmp_path):
    independent, (warning,) = tried(
        tmp_path, SEQUENCE, declared=False, max_batch=1, min=(("x", (1, 1, 8)),), opt=(("x", (9, 1, 8)),), max=(("x", (20, 1, 8)),)
    )
    assert not independent and "node 'lstm' (LSTM)" in warning and "sequence" in warning


def test_a_sequence_is_no_batch_and_refused_where_it_is_called_one(tmp_path):
    with refused(ExitCode.MODEL, "--max-batch-size", "node 'lstm' (LSTM)", hint="--min-shapes"):
        tried(tmp_path, SEQUENCE, declared=True)


def test_the_first_of_a_batch_alone_is_no_answer_for_all(tmp_path):
    nodes = [node("Slice", "x from to", "f", "first"), node("Relu", "f", "y", "relu")]
    source = model(nodes, {"x": ["N", 8]}, {"y": ["N", 8]}, {"from": np.array([0]), "to": np.array([1])})
    with refused(ExitCode.MODEL, "--max-batch-size", "node 'first' (Slice)"):
        tried(tmp_path, source)


# ---- sizes beside the batch, and the cost


def image_net(*sizes) -> onnx.ModelProto:
    """Places in one axis, whose number is written down."""
    nodes = [node("Conv", "x w", "c", "conv"), node("Reshape", "c sizes", "y", "places")]
    weights = {"w": random(4, 3, 1, 1), "sizes": np.array(sizes)}
    return model(nodes, {"x": ["N", 3, "h", "w"]}, {"y": ["N", 4, None]}, weights)


RANGE = {"min": (("x", (1, 3, 8, 8)),), "opt": (("x", (1, 3, 8, 8)),), "max": (("x", (2, 3, 16, 16)),), "max_batch": 1}


def test_a_size_that_is_written_into_a_node_is_named_with_it(tmp_path):
    assert tried(tmp_path, image_net(0, 4, -1), **RANGE) == (True, [])
    with refused(
        ExitCode.MODEL, "x:1x3x8x8", "x:2x3x16x16", "a size is written into node 'places' (Reshape, to 0x4x64)", hint="--max-shapes"
    ):
        tried(tmp_path, image_net(0, 4, 64), **RANGE)
    with refused(ExitCode.MODEL, "not at x:1x3x8x8", "'places'"):
        tried(tmp_path, image_net(0, 4, 256), **RANGE)


def test_a_batch_that_is_promised_alone_is_explained_by_a_single_sample(tmp_path):
    with refused(ExitCode.MODEL, "batch 1 is written into node 'written'", "x:4x6x8"):
        tried(tmp_path, Net(0, "reshape").model(), min=(("x", (4, TIME, CHANNELS)),), opt=(("x", (4, TIME, CHANNELS)),))


def test_shapes_of_outputs_are_held_against_those_declared(tmp_path):
    source = image_net(0, 4, -1)
    source.graph.output[0].type.tensor_type.shape.dim[2].dim_value = 64
    _, (warning,) = tried(tmp_path, source, **RANGE)
    assert warning == "output 'y' is 2x4x256 at x:2x3x16x16; the model declares Nx4x64"


@pytest.mark.parametrize("what", ["time", "memory"])
def test_what_would_take_too_much_is_left_out_and_said(tmp_path, monkeypatch, what):
    if what == "time":
        monkeypatch.setattr(promised_shapes, "MOST_SECONDS", 1e-9)
    else:
        monkeypatch.setattr(promised_shapes, "available_bytes", lambda: 1000)
    independent, warnings = tried(tmp_path, image_net(0, 4, 64), **RANGE)
    assert independent and [("not tried" in text or "not checked" in text) for text in warnings] == [True, True]


def test_one_shape_alone_costs_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(promised_shapes.Session, "from_path", lambda _: pytest.fail("was loaded"))
    assert tried(tmp_path, image_net(0, 4, 64), opt=(("x", (1, 3, 8, 8)),), max_batch=1) == (True, [])


def test_inputs_that_run_nowhere_are_said(tmp_path):
    nodes = [node("Gather", "table x", "y", "lookup")]
    source = model(nodes, {"x": (onnx.TensorProto.INT64, ["N", 2])}, {"y": ["N", 2, 4]}, {"table": np.zeros((1, 4), np.float32)})
    _, (warning,) = tried(tmp_path, source)
    assert "were not tried" in warning and "lookup" in warning


# ---- fixed batches


@pytest.mark.parametrize(
    "nodes, weights, expected",
    [
        ([node("MatMul", "x w", "y")], {"w": random(8, 8)}, True),
        ([node("Transpose", "x", "t", perm=[1, 0]), node("Reshape", "t one", "y")], {"one": np.array([-1])}, True),
        ([node("ReduceMean", "x", "m", axes=[0]), node("Sub", "x m", "y")], {}, False),
        ([node("CumSum", "x axis", "y", reverse=1)], {"axis": np.array(0)}, False),
    ],
    ids=["layer", "transposed", "statistics", "sequence"],
)
def test_whether_the_rows_of_a_fixed_batch_are_samples(tmp_path, nodes, weights, expected):
    output = [4, 8] if nodes[-1].op_type != "Reshape" else [32]
    onnx.save(model(nodes, {"x": [4, 8]}, {"y": output}, weights), tmp_path / "net.onnx")
    source, info = preflight(str(tmp_path / "net.onnx"))
    assert rows_are_independent(source, info, quiet_run()) is expected


def test_the_memory_of_this_machine_is_known():
    assert memory.available_bytes() > 2**20
