"""stages/triton.py: the folder of a model in a Triton repository, for all kinds of models, alone and beside other GPUs' engines.

No engine can be loaded here: what it would tell of its inputs and outputs is taken from the network that TensorRT-RTX parses.
"""

import json
import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from helpers import LIBRARIES, image, parse, quiet_run, refused
from models import conv_net, model, node, random
from onnx import TensorProto
from triton_proto import parsed, type_name

from onnx2trt.base.errors import ExitCode
from onnx2trt.base.files import sha256
from onnx2trt.plan.plan import make_plan
from onnx2trt.report.result import EngineFile
from onnx2trt.stages import preflight
from onnx2trt.stages.triton import check_repository, describe, write_repository

INT64, FLOAT16 = TensorProto.INT64, TensorProto.FLOAT16
H200, L4 = "NVIDIA H200 (9.0)", "NVIDIA L4 (8.9)"


def tokens(*inputs):
    """Embeddings of [N, L] numbers, weighted by a mask where there is one, summed over the length: [N, 8]."""
    nodes = [node("Gather", "table ids", "e")]
    if len(inputs) > 1:
        nodes += [node("Cast", "mask", "m", to=TensorProto.FLOAT), node("Unsqueeze", "m last", "m3"), node("Mul", "e m3", "w")]
    nodes += [node("ReduceSum", ("w" if len(inputs) > 1 else "e") + " axis", "y", keepdims=0)]
    weights = {"table": random(50, 8), "axis": np.array([1]), **({"last": np.array([-1])} if len(inputs) > 1 else {})}
    return model(nodes, {name: (INT64, ["N", "L"]) for name in inputs}, {"y": ["N", 8]}, weights)


def in_half():
    nodes = [node("Mul", "x w", "y")]
    return model(nodes, {"x": (FLOAT16, ["N", 4])}, {"y": (FLOAT16, ["N", 4])}, {"w": random(4).astype(np.float16)})


def running_sum():
    return model([node("CumSum", "x axis", "y")], {"x": ["T", 4]}, {"y": ["T", 4]}, {"axis": np.array(0)})


def resized():
    nodes = [node("Reshape", "x shape", "y")]
    return model(nodes, {"x": [1, 12], "shape": (INT64, [2])}, {"y": ["a", "b"]})


def classifier():
    nodes = [node("GlobalAveragePool", "x", "p"), node("Flatten", "p", "f"), node("Mul", "f w", "y"), node("Relu", "x", "z")]
    found = model(nodes, {"x": ["N", 3, 8, 8]}, {"y": ["N", 3], "z": ["N", 3, 8, 8]}, {"w": random(3)})
    onnx.helper.set_model_props(found, {"names": "{0: 'cat', 1: 'guide dog', 2: 'é'}"})
    return found


LENGTHS = ("--min-shapes", "ids:1x2", "--opt-shapes", "ids:2x6", "--max-shapes", "ids:8x16")
BOTH = tuple(word if ":" not in word else f"{word},{word.replace('ids', 'mask')}" for word in LENGTHS)
KINDS = {  # name -> (model, flags, max_batch_size)
    "images": (conv_net(), ("--max-batch-size", "8"), 8),
    "images of a free batch, one at a time": (conv_net(), (), 1),
    "images, a fixed batch of 1": (conv_net(batch=1), (), 0),
    "images, a fixed batch of 4": (conv_net(batch=4), (), 0),
    "tokens": (tokens("ids"), LENGTHS, 8),
    "several inputs": (tokens("ids", "mask"), BOTH, 8),
    "FP16 inputs and outputs": (in_half(), ("--max-batch-size", "4"), 4),
    "a sequence along the first axis": (running_sum(), ("--min-shapes", "x:1x4", "--opt-shapes", "x:3x4", "--max-shapes", "x:6x4"), 0),
    "an input that all samples share": (model([node("Mul", "x w", "y")], {"x": ["N", 4], "w": [4]}, {"y": ["N", 4]}), (), 0),
    "a scalar": (model([node("Mul", "x t", "y")], {"x": ["N", 4], "t": []}, {"y": ["N", 4]}), (), 0),
    "one number for each sample": (model([node("Exp", "x", "y")], {"x": ["N"]}, {"y": ["N"]}), ("--max-batch-size", "4"), 4),
    "values that decide about shapes": (resized(), ("--shape-values", "shape:3x4"), 0),
    "at least two": (conv_net(), ("--min-shapes", "2x3x16x16", "--opt-shapes", "2x3x16x16", "--max-shapes", "4x3x16x16"), 0),
    "one answer for the whole batch": (
        model([node("ReduceMean", "x", "y", axes=[0])], {"x": ["N", 4]}, {"y": [1, 4]}),
        ("--min-shapes", "x:1x4", "--max-shapes", "x:4x4"),
        0,
    ),
    "labels": (classifier(), ("--max-batch-size", "4"), 4),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def job_of(found, *flags):
    onnx.save(found, "model.onnx")
    run = quiet_run()
    plan = make_plan(parse("--triton-repository", "repository", *flags), LIBRARIES["weak"])
    return preflight.preflight(None, plan, run), run


def told(job) -> list[dict]:
    """As trt.engine.Engine.describe has it."""
    trt = pytest.importorskip("tensorrt_rtx")
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(job.graph().to_model().SerializeToString())
    of_profile = {profile.name: json.loads(json.dumps(profile.to_dict())) for profile in job.profiles}
    tensors = [(network.get_input(index), True) for index in range(network.num_inputs)]
    tensors += [(network.get_output(index), False) for index in range(network.num_outputs)]
    names = {trt.float32: "float32", trt.float16: "float16", trt.int64: "int64", trt.int32: "int32", trt.bool: "bool"}
    return [
        {"name": tensor.name, "input": is_input, "dtype": names[tensor.dtype], "shape": list(tensor.shape), "format": "linear"}
        | {"profile": of_profile[tensor.name] if is_input else None}
        for tensor, is_input in tensors
    ]


X = {"name": "x", "input": True, "dtype": "float32", "shape": [-1, 3, 16, 16], "format": "linear"}
X["profile"] = {"name": "x", "min": [1, 3, 16, 16], "opt": [1, 3, 16, 16], "max": [8, 3, 16, 16]}
Y = {"name": "y", "input": False, "dtype": "float32", "shape": [-1, 4, 16, 16], "format": "linear", "profile": None}


def write(job, run, gpu=H200, data=b"engine", tensors=(X, Y)):
    """What the parent would have under its names at the end of the run: name in the repository -> content."""
    run.files.clear()
    engine = EngineFile("model.engine", len(data), sha256(data), [], tensors=list(tensors))
    record = write_repository(job, engine, gpu, data, run)
    for temporary, final in run.files:
        os.replace(temporary, final)
    root = Path("repository").resolve()
    assert [Path(final).relative_to(root / "model").as_posix() for _, final in run.files] == list(record["files"])
    assert {name: sha256((root / "model" / name).read_bytes()) for name in record["files"]} == record["files"]
    return record


def config() -> object:
    return parsed(Path("repository/model/config.pbtxt").read_text())


# ---- what it says of the engine


@pytest.mark.real
@pytest.mark.parametrize("kind", KINDS)
def test_the_configuration_agrees_with_the_engine(folder, kind):
    found, flags, batch = KINDS[kind]
    job, run = job_of(found, *flags)
    engine = told(job)
    write(job, run, tensors=engine)
    said = config()
    assert (said.name, said.platform, said.max_batch_size) == ("model", "tensorrt_plan", batch)
    types = {"float32": "TYPE_FP32", "float16": "TYPE_FP16", "int64": "TYPE_INT64", "int32": "TYPE_INT32", "bool": "TYPE_BOOL"}
    for is_input, tensors in ((True, said.input), (False, said.output)):
        expected = {tensor["name"]: (types[tensor["dtype"]], tensor["shape"]) for tensor in engine if tensor["input"] == is_input}
        shapes = {tensor.name: list(tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims) for tensor in tensors}
        assert {t.name: (type_name(t.data_type), [-1] * bool(batch) + shapes[t.name]) for t in tensors} == expected
        assert all(size > 0 or size == -1 for tensor in tensors for size in tensor.dims) and all(tensor.dims for tensor in tensors)
    decides = {profile.name for profile in job.profiles if profile.values is not None}
    assert {tensor.name for tensor in said.input if tensor.is_shape_tensor} == decides
    assert bool(decides) == (kind == "values that decide about shapes")


@pytest.mark.real
def test_labels_stand_at_the_output_that_has_one_value_for_each(folder):
    job, run = job_of(classifier(), "--max-batch-size", "4")
    record = write(job, run, tensors=told(job))
    assert {tensor.name: tensor.label_filename for tensor in config().output} == {"y": "labels.txt", "z": ""}
    assert Path("repository/model/labels.txt").read_text(encoding="utf-8") == "cat\nguide dog\né\n"
    assert list(record["files"]) == ["1/model.plan", "labels.txt", "config.pbtxt"]


def test_a_number_of_labels_that_no_output_has_is_left_out(folder):
    found = conv_net()
    onnx.helper.set_model_props(found, {"names": "['a', 'b']"})
    job, run = job_of(found)
    assert list(write(job, run)["files"]) == ["1/model.plan", "config.pbtxt"]


# ---- the warm-up request


@pytest.mark.parametrize(
    ("batch", "flags", "shape"), [("N", ("--max-batch-size", "8"), [3, 16, 16]), (1, (), [1, 3, 16, 16])], ids=["free batch", "fixed"]
)
def test_the_warm_up_request_is_the_test_image_as_the_network_gets_it(folder, batch, flags, shape):
    cv2.imwrite("test.png", image(20, 30))
    job, run = job_of(conv_net(batch=batch), "--test-image", "test.png", *flags)
    x, y = ({**tensor, "shape": [-1 if batch == "N" else 1, *tensor["shape"][1:]]} for tensor in (X, Y))
    record = write(job, run, tensors=(x, y))
    assert list(record["files"]) == ["1/model.plan", "warmup/input0", "config.pbtxt"]
    (warmup,) = config().model_warmup
    part = warmup.inputs["x"]
    assert (warmup.batch_size, list(part.dims), type_name(part.data_type)) == (1, shape, "TYPE_FP32")
    (fed,) = (found.arrays["x"] for found in job.data.reader.batches(job.data.test))
    stored = np.fromfile(f"repository/model/warmup/{part.input_data_file}", np.float32)
    assert np.array_equal(stored, fed[:1].ravel()) and len(np.unique(stored)) > 10


def test_the_warm_up_request_has_the_engines_type_and_one_sample(folder):
    np.save("x.npy", random(3, 3, 16, 16))
    job, run = job_of(conv_net(), "--test-image", "x.npy", "--max-batch-size", "8")
    write(job, run, tensors=({**X, "dtype": "float16"}, Y))
    assert type_name(config().model_warmup[0].inputs["x"].data_type) == "TYPE_FP16"
    assert np.array_equal(np.fromfile("repository/model/warmup/input0", np.float16), np.load("x.npy")[0].astype(np.float16).ravel())


def test_without_data_there_is_no_warm_up_request(folder):
    job, run = job_of(conv_net())
    write(job, run)
    assert not config().model_warmup
    assert describe(job, [X, Y]).files == {}


# ---- several GPUs, and again


def test_another_kind_of_gpu_adds_its_engine(folder):
    job, run = job_of(conv_net())
    write(job, run, H200, b"of H200")
    assert dict(config().cc_model_filenames) == {}
    write(job, run, L4, b"of L4")
    assert dict(config().cc_model_filenames) == {"9.0": "model.plan", "8.9": "model_cc89.plan"}
    write(job, run, H200, b"of H200, again")
    assert dict(config().cc_model_filenames) == {"9.0": "model.plan", "8.9": "model_cc89.plan"}
    assert Path("repository/model/1/model.plan").read_bytes() == b"of H200, again"
    assert Path("repository/model/1/model_cc89.plan").read_bytes() == b"of L4"
    assert run.console.warnings == []


def test_an_engine_of_another_gpu_that_is_gone_is_no_longer_named(folder):
    job, run = job_of(conv_net())
    write(job, run, H200)
    write(job, run, L4)
    os.unlink("repository/model/1/model.plan")
    write(job, run, L4)
    assert dict(config().cc_model_filenames) == {}
    assert Path("repository/model/1/model.plan").exists(), "alone, it has the name that Triton looks for"


def test_engines_of_another_model_are_named_in_a_warning(folder):
    job, run = job_of(conv_net())
    write(job, run, H200)
    other = replace(job, info=replace(job.info, sha256="0" * 64))
    write(other, run, L4)
    assert "made from another model" in run.console.warnings[0] and "9.0" in run.console.warnings[0]
    assert len(config().cc_model_filenames) == 2
    write(job, run, L4, tensors=(X, {**Y, "shape": [-1, 5, 16, 16]}))
    assert "other inputs or outputs" in run.console.warnings[-1]
    assert dict(config().cc_model_filenames) == {}
    assert Path("repository/model/1/model.plan").exists()


# ---- before the build


def test_a_configuration_of_somebody_else_is_not_overwritten(folder):
    job, run = job_of(conv_net())
    write(job, run)
    check_repository(job)
    path = Path("repository/model/config.pbtxt")
    path.write_text(path.read_text() + "instance_group [ { count: 2 } ]\n")
    with refused(ExitCode.OUTPUT, "repository/model/config.pbtxt", "changed since", hint="--model-config-name"):
        check_repository(job)
    assert parsed(path.read_text()).instance_group[0].count == 2


def test_a_folder_that_cannot_be_made_is_told_before_the_build(folder):
    job, _ = job_of(conv_net())
    Path("repository").write_text("a file")
    with refused(ExitCode.OUTPUT, "cannot write"):
        check_repository(job)
    os.unlink("repository")
    check_repository(job)
    assert sorted(os.listdir()) == ["model.onnx"], "looking leaves nothing behind"


def test_what_triton_cannot_describe_is_told_before_the_build(folder):
    job, _ = job_of(model([node("Mul", "x x", "y")], {"x": ["N", 0]}, {"y": ["N", 0]}))
    with refused(ExitCode.MACHINE, "'x' is float32 [-1, 0]"):
        check_repository(job)


def test_without_the_flag_nothing_is_written(folder):
    onnx.save(conv_net(), "model.onnx")
    run = quiet_run()
    job = preflight.preflight(None, make_plan(parse(), LIBRARIES["weak"]), run)
    check_repository(job)
    assert write_repository(job, EngineFile("e", 1, "0", []), H200, b"", run) is None and run.files == []
