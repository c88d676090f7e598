"""stages/inspect.py: what is in an engine file, from its header, the JSON beside it, and the engine itself."""

import dataclasses
import json
import os
import shutil

import numpy as np
import onnx
import pytest
from command import check_schema, onnx2trt
from fake_engines import header_bytes
from helpers import LIBRARIES, quiet_run
from models import conv_net

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.model_info import Profile
from onnx2trt.report.result import Result, to_json
from onnx2trt.report.table import render
from onnx2trt.stages import inspect as inspecting
from onnx2trt.trt.engine import Engine, EngineTensor
from onnx2trt.trt.header import Header, read_header


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Engines of TensorRT-RTX: portable, and for two GPUs."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    folder = tmp_path_factory.mktemp("engines")
    onnx.save(conv_net(), folder / "net.onnx")
    for name, flags in (("portable", ()), ("two", ("--gpu-arch", "89", "120"))):
        done = onnx2trt(folder, "--onnx", "net.onnx", "-o", f"{name}.engine", *flags, "--max-batch-size", "4")
        assert done.code == 0, done.stderr
    return folder


@pytest.fixture
def folder(built, tmp_path):
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_the_header_of_real_engines(built):
    import tensorrt_rtx

    size = (built / "portable.engine").stat().st_size
    assert read_header((built / "portable.engine").read_bytes()) == Header("tensorrt-rtx", tensorrt_rtx.__version__, (), size)
    assert read_header((built / "two.engine").read_bytes()).gpu_archs == ("8.9", "12.0")


# ---- the command, on a machine where engines do not load


def test_header_and_side_file_tell_what_the_engine_is(folder):
    done = onnx2trt(folder, "--inspect", "two.engine", "--json", "r.json")
    assert done.code == 0, done.stderr
    result, side = done.json("r.json"), done.json("two.engine.json")
    engine = result["engine"]
    assert result["status"] == "inspected" and result["exit_code"] == 0
    assert engine["sha256"] == side["engine"]["sha256"] and engine["bytes"] == (folder / "two.engine").stat().st_size
    assert engine["gpu_archs"] == ["8.9", "12.0"] and engine["made_with"]["tensorrt"] == side["environment"]["tensorrt"]
    assert engine["sources"][:2] == ["header", "side file"]
    for key in ("model", "plan", "precision", "accuracy"):
        assert result[key] == side[key]
    if not engine["loaded"]:
        assert engine["not_loaded_because"] in " ".join(done.stdout.replace("|", " ").split())
    for words in ("two.engine", engine["sha256"], "for compute capability 8.9, 12.0", "x  float32 ", "x min 1x3x16x16", "fp16", "net.onnx"):
        assert words in done.stdout, words


def test_without_its_side_file_the_header_still_tells(folder):
    (folder / "portable.engine.json").unlink()
    done = onnx2trt(folder, "--inspect", "portable.engine", "--json", "-")
    result = json.loads(done.stdout)
    check_schema(result)
    assert done.code == 0 and result["engine"]["sources"][0] == "header" and result["engine"]["made_with"]["backend"] == "tensorrt-rtx"
    assert "portable" in done.stderr and ("the engine itself or its JSON" in done.stderr) != result["engine"]["loaded"]


def test_a_plan_of_the_full_tensorrt_is_told_from_one_of_rtx(tmp_path):
    (tmp_path / "m.plan").write_bytes(header_bytes(b"ftrt", (8, 6, 1, 6)) + bytes(1000))
    done = onnx2trt(tmp_path, "--inspect", "m.plan")
    assert done.code in (0, int(ExitCode.MACHINE)), "a GPU may be there, and TensorRT may crash on it"
    if done.code == 0:
        assert "TensorRT 8.6.1.6, for a GPU that the file does not name" in done.stdout and "not loaded: " in done.stdout


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda side: side["engine"].update(sha256="0" * 64), "it belongs to another engine, with sha256 000"),
        (lambda side: side.update(schema_version=99), "schema_version 99"),
        (lambda side: side.update(engine=None), "it is no result"),
        (lambda side: side.update(model={"path": 1}), "not as a conversion writes it"),
        (lambda side: side.update(precision=[1]), "not as a conversion writes it"),
    ],
)
def test_a_side_file_that_is_not_its_own_is_not_believed(folder, spoil, words):
    side = json.loads((folder / "two.engine.json").read_text())
    spoil(side)
    (folder / "two.engine.json").write_text(json.dumps(side))
    done = onnx2trt(folder, "--inspect", "two.engine", "--json", "r.json")
    assert done.code == 0 and words in done.stderr and any(words in warning for warning in done.json("r.json")["warnings"])
    assert "side file" not in done.json("r.json")["engine"]["sources"] and "made with" in done.stdout


@pytest.mark.parametrize(
    "content, code, words",
    [
        (None, ExitCode.VALIDATION, "cannot be read: No such file"),
        (b"", ExitCode.VALIDATION, "is empty"),
        (b"ftrt", ExitCode.MACHINE, "no engine that anything here knows: it is text"),
        (os.urandom(16) + bytes(9000), ExitCode.MACHINE, "it begins with "),
        (header_bytes(b"vtrt", (1, 7, 1, 116), 2, size=10**6), ExitCode.VALIDATION, "its header says 1000000 bytes, the file has 64"),
    ],
)
def test_files_that_are_no_engines(tmp_path, content, code, words):
    if content is not None:
        (tmp_path / "e").write_bytes(content)
    done = onnx2trt(tmp_path, "--inspect", "e", "--json", "r.json")
    assert done.code == code and words in done.error
    assert done.json("r.json")["status"] == "failed"


def test_a_folder_is_none_either(tmp_path):
    done = onnx2trt(tmp_path, "--inspect", ".")
    assert done.code == ExitCode.VALIDATION and "not a regular file" in done.error


@pytest.mark.parametrize(
    "flags, words",
    [
        (("--onnx", "m.onnx"), "not allowed with argument"),
        (("-o", "x"), "--output cannot go with it"),
        (("--precision", "int8", "--gpu-arch", "89"), "--gpu-arch and --precision cannot go with it"),
        (("--json", "e.engine"), "name the same file"),
        (("--json", "e.engine.json"), "name the same file"),
        (("--backend", "tensorrt"), "--backend cannot go with it"),
    ],
)
def test_what_cannot_go_with_it(tmp_path, flags, words):
    done = onnx2trt(tmp_path, "--inspect", "e.engine", *flags)
    assert done.code == ExitCode.USAGE and words in done.error


def test_an_empty_name_is_refused(tmp_path):
    done = onnx2trt(tmp_path, "--inspect", "")
    assert done.code == ExitCode.USAGE and "--inspect is empty" in done.error


# ---- an engine that loads, and one that does not; the library and the GPU are made up


class FakeEngine:
    """As trt.engine.Engine, of two profiles."""

    profiles, layers, device_memory_bytes = 2, 9, 5_000_000
    tensors = (
        EngineTensor("x", True, (-1, 3), "float32", "Row-major linear FP32 format (kLINEAR)", Profile("x", (1, 3), (2, 3), (4, 3))),
        EngineTensor("y", False, (-1, 5), "float16", "Row-major linear FP16 format (kLINEAR)", None),
    )
    layer_texts = ({"Name": "c", "LayerType": "CaskConvolution", "Inputs": [{"Format/Datatype": "Half"}], "Outputs": []},)
    refuses = ""
    describe = Engine.describe

    def __init__(self, library, data, cuda, show, host_code=False):
        assert not host_code
        if self.refuses:
            raise ConversionError(f"the engine does not load on this machine:\n  {self.refuses}", code=ExitCode.MACHINE)

    def profile(self, index):
        return (Profile("x", (1, 3), (2, 3), (4 + index, 3)),)

    def inspect(self):
        return json.dumps({"Layers": list(self.layer_texts)})

    def close(self):
        pass


def inspect_with(monkeypatch, tmp_path, engine=FakeEngine, data=None, gpu_arch="9.0"):
    caps = dataclasses.replace(LIBRARIES["weak"], version="10.6.0.26", gpu="NVIDIA H200", gpu_arch=gpu_arch)
    library = type("Library", (), {"version": "10.6.0.26"})
    monkeypatch.setattr(inspecting, "load_library", lambda backend: library)
    monkeypatch.setattr(inspecting, "capabilities", lambda library: caps)
    monkeypatch.setattr(inspecting, "open_cuda", lambda: type("Cuda", (), {"close": lambda self: None})())
    monkeypatch.setattr(inspecting, "Engine", engine)
    (tmp_path / "e.plan").write_bytes(data or header_bytes(b"ftrt", (10, 6, 0, 26)) + bytes(100))
    run, found = quiet_run(), Result()
    found.take(**inspecting.inspect(str(tmp_path / "e.plan"), (), run), status="inspected", exit_code=0)
    found.take(**run.said())
    result = json.loads(to_json(found))
    check_schema(result)
    return result, render(result, 200, color=False)


def test_an_engine_that_loads_tells_everything_itself(monkeypatch, tmp_path):
    result, table = inspect_with(monkeypatch, tmp_path)
    engine = result["engine"]
    assert engine["loaded"] and engine["not_loaded_because"] is None and engine["sources"] == ["header", "engine"]
    assert [tensor["dtype"] for tensor in engine["tensors"]] == ["float32", "float16"]
    assert [shapes[0]["max"] for shapes in engine["profile_shapes"]] == [[4, 3], [5, 3]]
    assert result["precision"]["layers"] == {"int8": 0, "fp16": 1, "fp32": 0} and result["precision"]["layers_source"] == "inspector"
    for words in ("it loads here", "y  float16 ?x5  Row-major linear FP16", "profile 1", "1 FP16 (counted in the inspector)", "5.0 MB"):
        assert words in table, words


def test_layers_without_details_are_counted(monkeypatch, tmp_path):
    result, table = inspect_with(monkeypatch, tmp_path, type("Plain", (FakeEngine,), {"layer_texts": ("conv1", "conv2")}))
    assert result["precision"] is None and "9, of unknown precision" in table and "detailed verbosity" in result["warnings"][0]


def test_a_refusal_of_the_library_becomes_a_sentence(monkeypatch, tmp_path):
    text = "The engine plan file is generated on an incompatible device, expecting compute 9.0 got compute 8.6, please rebuild."
    result, table = inspect_with(monkeypatch, tmp_path, type("Foreign", (FakeEngine,), {"refuses": text}))
    assert result["engine"]["not_loaded_because"] == "it was made for a GPU of compute capability 8.6, the one here has 9.0"
    assert result["status"] == "inspected" and "not loaded: it was made for" in table


def test_an_rtx_engine_for_other_gpus_is_not_even_tried(monkeypatch, tmp_path):
    data = header_bytes(b"vtrt", (1, 7, 1, 116), 0b1000)
    monkeypatch.setitem(LIBRARIES, "weak", LIBRARIES["rtx"])
    result, _ = inspect_with(monkeypatch, tmp_path, None, data)
    assert result["engine"]["not_loaded_because"] == "it is for compute capability 8.9, the GPU here is a NVIDIA H200 (9.0)"


def test_an_unknown_file_that_loads_all_the_same_is_described(monkeypatch, tmp_path):
    """Engines of other versions may begin with another mark."""
    result, _ = inspect_with(monkeypatch, tmp_path, data=np.arange(99, dtype=np.uint8).tobytes())
    assert result["engine"]["loaded"] and result["engine"]["sources"] == ["engine"]
