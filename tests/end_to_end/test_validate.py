"""validate.py: the verdict on a prepared ONNX of any tool, and on engines as far as a machine without a GPU can tell."""

import hashlib
import json

import cv2
import numpy as np
import onnx
import pytest
from command import onnx2trt, run
from fake_engines import header_bytes
from html_page import Page
from models import conv_net, in_fp16, model, multiplication_chain, node, offset_net, random
from onnx import TensorProto, numpy_helper

TEST = ("--test-image", "test.png")


def validate(folder, *arguments, **how):
    return run("validate.py", folder, *arguments, **how)


def verdict(folder, *arguments, code=0, original="net.onnx"):
    """The result of comparing candidate.onnx."""
    done = validate(folder, "candidate.onnx", "--onnx", original, *arguments, "--json", "v.json")
    assert done.code == code, done.stderr
    return done.json("v.json")


def in_half(source, feed=None, io=False):
    """The model with all its layers in FP16, as a careless tool makes it; `io`: its inputs and outputs, too."""
    feed = feed or {
        value.name: np.zeros([dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim], np.float32) for value in source.graph.input
    }
    half = in_fp16(source, feed, measured=False)[1].to_model()
    if io:
        ends = {value.name for value in (*half.graph.input, *half.graph.output)}
        for value in (*half.graph.input, *half.graph.output):
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
        for cast in [node for node in half.graph.node if node.op_type == "Cast" and ends & {*node.input, *node.output}]:
            cast.op_type = "Identity"
            del cast.attribute[:]
    return half


@pytest.fixture
def folder(tmp_path):
    onnx.save(conv_net(), tmp_path / "net.onnx")
    random_pixels = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for name in ("images/0", "images/1", "images/2", "images/3", "test"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), random_pixels.integers(0, 256, (20, 24, 3), np.uint8))
    return tmp_path


# ---- good candidates


def test_a_copy_of_the_model_agrees_exactly(folder):
    onnx.save(conv_net(), folder / "candidate.onnx")
    result = verdict(folder, "--validation-dir", "images", *TEST)
    assert result["status"] == "simulated" and result["exit_code"] == 0 and result["engine"] is None and result["latency"] is None
    assert [(row["drop_percent"], row["max_abs_error"], row["executed_on"]) for row in result["accuracy"]] == 2 * [(0, 0, "simulated")]
    assert [row["inputs"] for row in result["accuracy"]] == ["images", "test.png"] and result["accuracy"][0]["samples"] == 4
    data = (folder / "candidate.onnx").read_bytes()
    about = {"path": "candidate.onnx", "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "kind": "onnx"}
    assert result["candidate"] == about
    assert result["precision"]["delivered"] == "fp32" and result["precision"]["requested"] is None
    assert result["environment"]["backend"] is None and result["plan"]["route"] is None


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_what_a_conversion_saves_gets_the_verdict_of_that_conversion(folder, precision):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    flags = ("--precision", precision, "--calibration-dir", "images", "--max-accuracy-drop", "20", *TEST)
    built = onnx2trt(folder, "--onnx", "net.onnx", *flags, "--save-onnx", "candidate.onnx", "--json", "w.json").json("w.json")
    assert built["exit_code"] == 0
    result = verdict(folder, *TEST, "--max-accuracy-drop", "20")
    seen = {"seen_in_calibration": False} if precision == "int8" else {}  # the candidate does not tell what it was calibrated on
    assert [{**row, **seen} for row in result["accuracy"]] == built["accuracy"] and result["status"] == "simulated"
    for key in ("delivered", "int8_mac_share"):
        assert result["precision"][key] == built["precision"][key]
    assert result["precision"]["layers"]["int8"] == built["precision"]["layers"]["int8"]


def test_no_library_is_loaded(folder, tmp_path_factory):
    trap = tmp_path_factory.mktemp("trap")
    for name in ("tensorrt", "tensorrt_rtx", "pycuda", "cuda"):
        (trap / f"{name}.py").write_text("import os\nos._exit(99)\n")
    onnx.save(in_half(conv_net()), folder / "candidate.onnx")
    assert validate(folder, "candidate.onnx", "--onnx", "net.onnx", *TEST, environment={"PYTHONPATH": str(trap)}).code == 0


@pytest.mark.parametrize("io", [False, True], ids=["FP32 inside and out", "FP16 inputs and outputs"])
def test_a_good_fp16_model_agrees_whatever_its_inputs_are(folder, io):
    onnx.save(in_half(conv_net(), io=io), folder / "candidate.onnx")
    onnx.checker.check_model(onnx.load(folder / "candidate.onnx"), full_check=True)
    result = verdict(folder, *TEST, "--metric", "noise")
    assert result["precision"]["delivered"] == "fp16" and result["precision"]["layers"]["fp32"] == 0
    assert 0 < result["accuracy"][0]["drop_percent"] < 0.1


def test_weights_beside_the_candidate_belong_to_it(folder):
    source = conv_net()
    onnx.save(source, folder / "candidate.onnx", save_as_external_data=True, location="candidate.data", size_threshold=0)
    assert (folder / "candidate.data").exists()
    result = verdict(folder, *TEST)
    sizes = sum((folder / name).stat().st_size for name in ("candidate.onnx", "candidate.data"))
    assert result["candidate"]["bytes"] == sizes and result["accuracy"][0]["drop_percent"] == 0


def test_a_size_that_only_the_candidate_fixes_need_not_be_typed(folder):
    nodes = [node("Relu", "x", "y")]
    onnx.save(model(nodes, {"x": ["n", 3, "h", "w"]}, {"y": ["n", 3, "h", "w"]}), folder / "net.onnx")
    onnx.save(model(nodes, {"x": [2, 3, 16, 24]}, {"y": [2, 3, 16, 24]}), folder / "candidate.onnx")
    (profile,) = verdict(folder, *TEST)["plan"]["profiles"]
    assert profile["min"] == profile["opt"] == profile["max"] == [2, 3, 16, 24]


def test_integer_inputs_of_another_width_are_cast(tmp_path):
    def lookup(elem_type):
        return model([node("Gather", "table ids", "y")], {"ids": (elem_type, [1, 3])}, {"y": [1, 3, 4]}, {"table": random(9, 4)})

    onnx.save(lookup(TensorProto.INT64), tmp_path / "net.onnx")
    onnx.save(lookup(TensorProto.INT32), tmp_path / "candidate.onnx")
    np.save(tmp_path / "ids.npy", np.array([[1, 2, 8]]))
    assert verdict(tmp_path, "--test-image", "ids.npy")["accuracy"][0]["drop_percent"] == 0


# ---- bad candidates


def test_fp16_that_loses_too_much_differs(folder):
    onnx.save(offset_net(), folder / "net.onnx")
    onnx.save(in_half(offset_net()), folder / "candidate.onnx")
    done = validate(folder, "candidate.onnx", "--onnx", "net.onnx", *TEST, "--json", "v.json")
    result = done.json("v.json")
    assert done.code == 7 and "differs from the ONNX model by" in done.error and "--max-accuracy-drop 1" in done.error
    assert "--layer-precisions" not in done.error and "larger --max-accuracy-drop" in done.error, "only flags of this door"
    assert result["status"] == "failed" and result["accuracy"][0]["drop_percent"] > 1
    assert result["candidate"]["kind"] == "onnx" and result["precision"]["delivered"] == "fp16"


def test_an_overflow_is_seen_that_the_cpu_would_not_have(tmp_path):
    onnx.save(multiplication_chain(), tmp_path / "net.onnx")
    onnx.save(in_half(multiplication_chain()), tmp_path / "candidate.onnx")
    np.savez(tmp_path / "x.npz", x=np.linspace(0.5, 1, 8, dtype=np.float32)[None])
    done = validate(tmp_path, "candidate.onnx", "--onnx", "net.onnx", "--test-image", "x.npz")
    assert done.code == 7 and "NaN or infinite" in done.error


def test_the_limit_is_that_of_the_flag(folder):
    source = conv_net()
    for tensor in source.graph.initializer:
        if tensor.name == "w3":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.05), "w3"))
    onnx.save(source, folder / "candidate.onnx")
    noise = ("--metric", "noise", *TEST)
    assert 0.1 < verdict(folder, *noise)["accuracy"][0]["drop_percent"] < 1
    assert verdict(folder, *noise, "--max-accuracy-drop", "0.1", code=7)["exit_code"] == 7


# ---- without data


def test_synthetic_inputs_are_said(folder):
    onnx.save(conv_net(), folder / "candidate.onnx")
    result = verdict(folder)
    assert result["accuracy"][0]["inputs"] == "synthetic" and result["status"] == "simulated"
    assert any("made-up inputs" in warning for warning in result["warnings"])


def test_int8_is_not_judged_on_synthetic_inputs(folder):
    source = conv_net()
    source.graph.node.extend([node("QuantizeLinear", "x scale", "q", "quantize"), node("DequantizeLinear", "q scale", "d", "dequantize")])
    source.graph.initializer.append(numpy_helper.from_array(np.float32(0.5), "scale"))
    source.graph.node[0].input[0] = "d"
    onnx.save(source, folder / "candidate.onnx")
    result = verdict(folder)
    assert result["status"] == "not_validated" and any("synthetic inputs do not tell it" in warning for warning in result["warnings"])
    assert verdict(folder, *TEST, "--metric", "noise", code=7)["accuracy"][0]["drop_percent"] > 1, "a scale of 0.5 is coarse"


def integer_net():
    """(a matrix product, the same as ONNX Runtime's dynamic quantisation makes it)"""
    weights = random(16, 8)
    scale = float(np.abs(weights).max()) / 127
    nodes = [
        node("DynamicQuantizeLinear", "x", "q s z", "quantize"),
        node("MatMulInteger", "q w z", "i", "product"),
        node("Cast", "i", "f", "as_float", to=TensorProto.FLOAT),
        node("Mul", "s ws", "both", "scales"),
        node("Mul", "f both", "y", "scaled"),
    ]
    quantized = {"w": np.rint(weights / scale).astype(np.int8), "ws": np.float32(scale)}
    ends = ({"x": ["N", 16]}, {"y": ["N", 8]})
    return model([node("MatMul", "x w", "y", "product")], *ends, {"w": weights}), model(nodes, *ends, quantized)


def test_integer_operators_are_int8_without_qdq(tmp_path):
    for name, source in zip(("net.onnx", "candidate.onnx"), integer_net()):
        onnx.save(source, tmp_path / name)
    result = verdict(tmp_path)
    assert result["status"] == "not_validated" and result["precision"]["delivered"] == "int8", "not judged on synthetic inputs"
    assert result["precision"]["layers"]["int8"] == 1 and result["precision"]["int8_mac_share"] is None
    np.save(tmp_path / "x.npy", random(4, 16, seed=1))
    result = verdict(tmp_path, "--test-image", "x.npy", "--metric", "noise")
    assert result["status"] == "simulated" and 0 < result["accuracy"][0]["drop_percent"] < 0.5 and result["accuracy"][0]["samples"] == 4


# ---- candidates of another model


def other(inputs, outputs, op="Relu"):
    return model([node(op, " ".join(inputs), " ".join(outputs))], inputs, outputs)


SHAPE = [1, 3, 16, 16]
OTHERS = {
    "other names": (other({"a": SHAPE}, {"b": SHAPE}), ("inputs 'a' and outputs 'b'", "the model has inputs 'x' and outputs 'y'")),
    "an input more": (other({"x": SHAPE, "z": SHAPE}, {"y": SHAPE}, "Add"), ("inputs 'x', 'z'", "inputs 'x' and")),
    "exchanged": (other({"y": SHAPE}, {"x": SHAPE}), ("inputs 'y' and outputs 'x'",)),
    "another size": (other({"x": [1, 3, 8, 8]}, {"y": [1, 3, 8, 8]}), ("'x' is float32 1x3x8x8, in the model float32 Nx3x16x16",)),
    "another rank": (other({"x": [1, 3]}, {"y": [1, 3]}), ("'x' is float32 1x3, in the model",)),
    "integers": (other({"x": (TensorProto.INT32, SHAPE)}, {"y": (TensorProto.INT32, SHAPE)}), ("'x' is int32",)),
    "another shape of the output": (other({"x": SHAPE}, {"y": SHAPE}), ("output 'y' has shape [1, 3, 16, 16], the ONNX model gives",)),
}


@pytest.mark.parametrize("candidate, words", OTHERS.values(), ids=OTHERS)
def test_a_candidate_of_another_model_is_named(folder, candidate, words):
    onnx.save(candidate, folder / "candidate.onnx")
    done = validate(folder, "candidate.onnx", "--onnx", "net.onnx", *TEST)
    assert done.code == 7 and all(part in done.error for part in words), done.stderr


# ---- files that are neither, and engines

RTX = header_bytes(b"vtrt", (1, 7, 1, 116), targets=1 << 6)
UNREADABLE = {
    "missing": (None, "cannot read candidate: No such file"),
    "empty": (b"", "candidate is empty"),
    "a pointer of Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git LFS pointer"),
    "text": (b"nothing that a computer could run\n", "neither an engine that is known here nor an ONNX model: it is text"),
    "something else": (b"\x7fELF" + bytes(90), "neither an engine that is known here nor an ONNX model: it begins with 7f 45 4c 46"),
    "metadata before the engine": (b"\x02\0\0\0{}" + RTX, "neither"),
    "a model that was cut off": (conv_net().SerializeToString()[:700], "is not an ONNX model, or is cut off or damaged"),
    "an engine that was cut off": (header_bytes(b"vtrt", (1, 7, 1, 116), size=1000), "its header says 1000 bytes, the file has 64"),
}


@pytest.mark.parametrize("data, words", UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_is_code_3(folder, data, words):
    if data is not None:
        (folder / "candidate").write_bytes(data)
    done = validate(folder, "candidate", "--onnx", "net.onnx", *TEST)
    assert done.code == 3 and words in done.error, done.stderr


def test_a_folder_is_no_candidate(folder):
    done = validate(folder, "images", "--onnx", "net.onnx")
    assert done.code == 3 and "images is a folder" in done.error


def test_an_original_that_cannot_be_read_is_code_3(folder):
    onnx.save(conv_net(), folder / "candidate.onnx")
    (folder / "net.onnx").write_bytes(b"\x08\x08junk")
    assert "net.onnx" in verdict(folder, code=3)["error"]["message"]


def test_an_engine_is_refused_where_none_can_be_executed(folder):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    (folder / "candidate.onnx").write_bytes(RTX)  # known by its content, not by its name
    result = verdict(folder, *TEST, code=4)
    assert "no engine can be executed on this machine" in result["error"]["message"] and result["environment"]["backend"] == "tensorrt-rtx"


def test_an_engine_is_loaded_with_the_library_that_it_is_for(folder, tmp_path_factory):
    trap = tmp_path_factory.mktemp("trap")  # a TensorRT that is none
    (trap / "tensorrt.py").write_text("")
    (folder / "net.engine").write_bytes(header_bytes(b"ftrt", (10, 6, 0, 26)))
    done = validate(folder, "net.engine", "--onnx", "net.onnx", environment={"PYTHONPATH": str(trap)})
    assert done.code == 4 and "module tensorrt at" in done.error and "is not TensorRT" in done.error


def test_execution_cannot_be_asked_of_an_onnx_model(folder):
    onnx.save(conv_net(), folder / "candidate.onnx")
    done = validate(folder, "candidate.onnx", "--onnx", "net.onnx", "--require-execution")
    assert done.code == 7 and "--require-execution" in done.error and "only simulated" in done.error


# ---- flags, result and report


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("candidate.onnx",), "the following arguments are required: --onnx"),
        (("--onnx", "net.onnx"), "the following arguments are required: CANDIDATE"),
        (("net.onnx", "--onnx", "net.onnx"), "CANDIDATE and --onnx name the same file"),
        (("", "--onnx", "net.onnx"), "CANDIDATE is empty"),
        (("c.onnx", "--onnx", "net.onnx", "--json", "c.onnx"), "CANDIDATE and --json name the same file"),
        (("c.onnx", "--onnx", "net.onnx", "--calibration-dir", "images"), "unrecognized arguments: --calibration-dir"),
        (("c.onnx", "--onnx", "net.onnx", "-v", "-q"), "not allowed with argument"),
    ],
)
def test_wrong_arguments(folder, arguments, words):
    done = validate(folder, *arguments)
    assert done.code == 2 and done.error.startswith("usage: validate.py CANDIDATE") and words in done.error


@pytest.mark.parametrize(
    "flags, code, words",
    [
        (("--validation-dir", "nowhere"), 7, "--validation-dir nowhere does not exist"),
        (("--test-image", "gone.png"), 7, "--test-image gone.png does not exist"),
        (("--metric", "top1"), 2, "--metric top1 fits no output"),
        (("--report", "nowhere/r.html"), 8, "cannot write nowhere/r.html"),
        (("--json", "nowhere/v.json"), 8, "cannot write nowhere/v.json"),
    ],
)
def test_a_fault_of_data_or_outputs_is_named(folder, flags, code, words):
    onnx.save(conv_net(), folder / "candidate.onnx")
    done = validate(folder, "candidate.onnx", "--onnx", "net.onnx", *flags)
    assert done.code == code and words in done.error, done.stderr


@pytest.mark.parametrize("hostile, other", [("net", "candidate"), ("candidate", "net")])
def test_either_model_is_counted_before_it_is_computed(folder, hostile, other):
    nodes = [node("Expand", "one s", "t", "blows"), node("ReduceMax", "t", "r", "most", keepdims=0), node("Add", "x r", "y", "sum")]
    weights = {"one": np.ones(1, np.float32), "s": np.array([2**36])}
    onnx.save(model(nodes, {"x": [1, 3, 16, 16]}, {"y": [1, 3, 16, 16]}, weights), folder / f"{hostile}.onnx")
    onnx.save(model([node("Relu", "x", "y", "r")], {"x": [1, 3, 16, 16]}, {"y": [1, 3, 16, 16]}, {}), folder / f"{other}.onnx")
    done = validate(folder, "candidate.onnx", "--onnx", "net.onnx", *TEST)
    assert done.code == 3 and f"{hostile}.onnx: node 'blows' (Expand) would make" in done.error, done.stderr


def test_the_table_speaks_of_the_candidate(folder):
    onnx.save(in_half(conv_net()), folder / "candidate.onnx")
    done = validate(folder, "candidate.onnx", "--onnx", "net.onnx", *TEST, environment={"COLUMNS": "200"})
    assert done.code == 0 and "the candidate was computed on the CPU, what is FP16 or BF16 by rounding" in done.stdout
    assert "candidate.onnx" in done.stdout and "% (values" in done.stdout
    assert "engine" not in done.stdout and "latency" not in done.stdout and "built with" not in done.stdout


def test_stdout_carries_nothing_but_the_json(folder):
    onnx.save(conv_net(), folder / "candidate.onnx")
    done = run("onnx2trt.py", folder, "validate", "candidate.onnx", "--onnx", "net.onnx", *TEST, "--json", "-")
    assert done.code == 0 and json.loads(done.stdout)["candidate"]["kind"] == "onnx"


@pytest.mark.parametrize("source, code", [(conv_net, 0), (offset_net, 7)], ids=["good", "bad"])
def test_the_report_shows_model_and_candidate(folder, source, code):
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    onnx.save(source(), folder / "net.onnx")
    onnx.save(in_half(source()), folder / "candidate.onnx")
    done = validate(folder, "candidate.onnx", "--onnx", "net.onnx", *TEST, "--report", "r.html")
    assert done.code == code, done.stderr
    page = Page((folder / "r.html").read_bytes())
    page.check_alone()
    assert "candidate.onnx" in page.text and "validate candidate.onnx --onnx net.onnx" in page.text
    assert "The candidate against the ONNX model" in page.sections["accuracy"] and "latency" not in page.sections
    assert ("It is no engine" in page.text) is (code == 0) and "engine was not executed" not in page.text
