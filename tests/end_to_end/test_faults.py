"""The faults that real converters meet (numbered as in the study that this tool was planned with), each by the command line.

Every case starts with an older engine in place, and ends with it untouched where the run fails. Faults that cannot be made on
any machine stand in ELSEWHERE with the test that makes them.
"""

import ast
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from command import ROOT, check_schema, onnx2trt
from helpers import PAGE, png_claiming, small_disk, wait_until
from models import conv_net, model, multiplication_chain, node, random
from onnx import TensorProto, helper

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")

OLD = b"the engine of yesterday"
INT8 = ("--precision", "int8", "--quantization-effort", "fast", "--max-accuracy-drop", "100")


@dataclass
class Fault:
    """What is wrong, what has to be said, and with which code."""

    make: object  # writes files into a folder
    flags: tuple[str, ...] = ()
    code: int = 0
    says: tuple[str, ...] = ()  # fragments of message and hint; of the JSON where the run succeeds
    environment: dict = field(default_factory=dict)


def write(content):
    """A model file of these bytes, or of this model."""
    data = content if isinstance(content, bytes) else content.SerializeToString()
    return lambda folder: (folder / "net.onnx").write_bytes(data)


def images(*files):
    """conv_net and a folder `data` of files: (name, content)."""

    def make(folder):
        onnx.save(conv_net(), folder / "net.onnx")
        (folder / "data").mkdir()
        for name, content in files:
            (folder / "data" / name).write_bytes(content)

    return make


def image(suffix=".png", size=(16, 16), seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    return cv2.imencode(suffix, pixels)[1].tobytes()


GOOD = tuple((f"{seed}.png", image(seed=seed)) for seed in range(4))


def external(**entries):
    """A weight in another file of 16 bytes, described by these entries; `secret` lies outside the folder."""

    def make(folder):
        home = folder / "model"
        home.mkdir()
        source = model([node("Add", "x w", "y")], {"x": [4]}, {"y": [4]}, {"w": np.zeros(4, np.float32)})
        tensor = source.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in entries.items():
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value.format(folder=folder)
        (folder / "secret").write_bytes(bytes(16))
        (home / "w.bin").write_bytes(bytes(16))
        (home / "link.bin").symlink_to(folder / "secret")
        os.link(folder / "secret", home / "hard.bin")
        onnx.save(source, home / "net.onnx")

    return make


IN_FOLDER = ("--onnx", "model/net.onnx")
EXTERNAL = {
    "3 missing": ({"location": "gone.bin"}, "'gone.bin' does not exist", "beside the model"),
    "4 truncated": ({"location": "w.bin", "offset": "4", "length": "16"}, "has 16 bytes", "truncated"),
    "4 offset past the end": ({"location": "w.bin", "offset": "4096"}, "has 16 bytes", "'w'"),
    "4 negative offset": ({"location": "w.bin", "offset": "-4"}, "'w'", "offset"),
    "5 path upwards": ({"location": "../secret"}, "'../secret' is not a path inside", "'w'", "save_as_external_data"),
    "5 absolute path": ({"location": "{folder}/secret"}, "is not a path inside", "'w'"),
    "5 symbolic link": ({"location": "link.bin"}, "link", "'w'"),
    "5 hard link": ({"location": "hard.bin"}, "link", "'w'"),
}


def cached(text):
    def make(folder):
        onnx.save(conv_net(), folder / "net.onnx")
        (folder / "c.cache").write_text(text)

    return make


HEADER = "TRT-100600-EntropyCalibration2\n"
CACHE = (*INT8, "--calibration-cache", "c.cache")


def identity(elem_type, shape=(1, 8)):
    return model([node("Identity", "x", "y")], {"x": (elem_type, shape)}, {"y": (elem_type, shape)})


def newer():
    source = conv_net()
    source.opset_import[0].version = 99
    return source


def nan_weights():
    source = conv_net()
    source.graph.initializer[0].raw_data = np.full(432, np.nan, np.float32).tobytes()
    return source


def no_rank():
    source = conv_net()
    source.graph.input[0].type.tensor_type.ClearField("shape")
    return source


def no_output_shape():
    source = conv_net()
    source.graph.output[0].type.tensor_type.ClearField("shape")
    return source


def no_outputs():
    source = conv_net()
    del source.graph.output[:]
    return source


def mystery():
    source = model([helper.make_node("Mystery", ["x"], ["y"], "odd", domain="acme")], {"x": [4]}, {"y": [4]})
    source.opset_import.append(helper.make_opsetid("acme", 1))
    return source


def in_data(name, put):
    """conv_net and one entry of `data` that is no regular file."""
    return lambda folder: (images()(folder), put(folder / "data" / name))


DIGITS = {"NaN": "7fc00000", "infinity": "7f800000", "0": "00000000", "-1": "bf800000", "text": "hello", "half a number": "3c01"}
TEST = ("--test-image", "data/a.png")


def half_installed(folder):
    onnx.save(conv_net(), folder / "net.onnx")
    (folder / "site" / "tensorrt").mkdir(parents=True)


def free_size():
    return model([node("Conv", "x w", "y")], {"x": ["n", 3, "h", "w"]}, {"y": ["n", 4, "h", "w"]}, {"w": random(4, 3, 1, 1)})


def integers(elem_type):
    nodes = [node("Cast", "x", "f", to=1), node("Mul", "f k", "y")]
    return model(nodes, {"x": (elem_type, [1, 8])}, {"y": [1, 8]}, {"k": np.float32(0.5)})


def wrong_checksum():
    """A PNG of 64x64 with one bit of its pixels flipped."""
    data = bytearray(image(size=(64, 64)))
    data[len(data) // 2] ^= 1
    return bytes(data)


def encoded(suffix, pixels):
    return cv2.imencode(suffix, pixels)[1].tobytes()


GARBAGE = {"junk": b"junk" * 100, "text": b"no image", "nothing": b"", "wrong checksum": wrong_checksum()}
FLOAT_TIFF = encoded(".tiff", np.random.default_rng(0).random((16, 16, 3), np.float32))
ODD = {  # images of other kinds, which are read
    "grey": encoded(".png", np.random.default_rng(0).integers(0, 256, (16, 16), np.uint8)),
    "alpha": encoded(".png", np.random.default_rng(0).integers(0, 256, (16, 16, 4), np.uint8)),
    "16 bits": encoded(".png", np.random.default_rng(0).integers(0, 2**16, (16, 16, 3), np.uint16)),
}
FAULTS = {
    "1 truncated": Fault(write(conv_net().SerializeToString()[:-100]), code=3, says=("net.onnx", "cut off or damaged", "checksum")),
    "1 junk": Fault(write(b"\x13\x37" * 500), code=3, says=("net.onnx", "not an ONNX model")),
    "1 Git LFS pointer": Fault(write(b"version https://git-lfs.github.com/spec/v1\noid 1\n"), code=3, says=("LFS", "git lfs pull")),
    "2 empty file": Fault(write(b""), code=3, says=("net.onnx is empty",)),
    "2 web page": Fault(write(b"<!DOCTYPE html><html>404</html>"), code=3, says=("web page", "download again")),
    "2 graph without outputs": Fault(write(no_outputs()), code=3, says=("graph without outputs",)),
    **{
        title: Fault(external(**entries), (*IN_FOLDER, "--output", "net.engine"), 3, tuple(says))
        for title, (entries, *says) in EXTERNAL.items()
    },
    "7 valid for TensorRT, not for onnx.checker": Fault(write(no_output_shape())),
    "8 unsupported operator": Fault(
        write(model([helper.make_node("Mystery", ["x"], ["y"], "odd", domain="acme")], {"x": [4]}, {"y": [4]})),
        code=3,
        says=("Mystery", "'odd'", "acme"),
    ),
    "8 unsupported operator, declared": Fault(write(mystery()), code=3, says=("acme.Mystery 'odd'", "--plugins")),
    "9 opset from the future": Fault(write(newer()), code=3, says=("Opset 99 is under development", "Export the model with opset")),
    "10 double input": Fault(write(identity(TensorProto.DOUBLE)), ("--precision", "fp32"), says=("FP64", "'x', 'y' in FP32")),
    "10 UINT16 input": Fault(write(identity(TensorProto.UINT16)), code=3, says=("'x'", "uint16")),
    "10 unknown rank": Fault(write(no_rank()), code=2, says=("'x' has no declared rank", "--opt-shapes x:DIMS")),
    "10 dimension of 0": Fault(write(identity(TensorProto.FLOAT, (1, 0))), says=("'x' is 1x0", "holds nothing", "with a name for it")),
    "10 NaN weights": Fault(write(nan_weights()), code=3, says=("'w1'", "432 NaN")),
    "11 string input": Fault(write(identity(TensorProto.STRING)), code=3, says=("'x'", "string")),
    "12 a bit flip cannot be seen, so the hash is kept": Fault(write(conv_net()), says=('"sha256"',)),
    "13 no profile": Fault(write(free_size()), code=2, says=("--opt-shapes", "x")),
    "13 min above max": Fault(
        write(free_size()), ("--min-shapes", "x:1x3x64x64", "--max-shapes", "x:1x3x32x32"), 2, ("--min-shapes", "1x3x64x64")
    ),
    "13 wrong name": Fault(write(free_size()), ("--opt-shapes", "y:1x3x64x64"), 2, ("'y'",)),
    "13 fixed dimensions": Fault(write(conv_net(batch=1)), ("--opt-shapes", "x:1x3x64x64"), 2, ("1x3x64x64",)),
    "14 images for a model that takes none": Fault(
        lambda folder: (write(multiplication_chain())(folder), (folder / "p.png").write_bytes(image())),
        ("--test-image", "p.png"),
        2,
        ("'x'", ".npz"),
    ),
    "15 uint8": Fault(write(integers(TensorProto.UINT8))),
    "15 int32": Fault(write(integers(TensorProto.INT32))),
    "15 int64": Fault(write(integers(TensorProto.INT64))),
    "16 absurd batch": Fault(write(conv_net()), ("--max-batch-size", str(2**40)), 2, ("2147483647",)),
    "18 no usable image": Fault(
        images(*((f"{name}.png", data) for name, data in GARBAGE.items())), (*INT8, "--calibration-dir", "data"), 5, ("data", "0 of 4")
    ),
    "18 no image at all": Fault(images(("readme.txt", b"x")), (*INT8, "--calibration-dir", "data"), 5, ("data", ".jpg")),
    "19 truncated JPEG": Fault(
        images(("a.jpg", image(".jpg", (64, 64))[:-200])), ("--test-image", "data/a.jpg"), 7, ("a.jpg", "Give another file")
    ),
    "19 truncated JPEG in a folder": Fault(
        images(*GOOD, ("z.jpg", image(".jpg", (64, 64))[:-200])), (*INT8, "--calibration-dir", "data"), says=("z.jpg", "1 of 5 samples")
    ),
    **{
        f"20 {title}": Fault(images((f"{title}.png", data)), ("--test-image", f"data/{title}.png"), 7, (f"{title}.png",))
        for title, data in GARBAGE.items()
    },
    "20 a folder": Fault(in_data("a.png", Path.mkdir), TEST, 7, ("a.png",)),
    "20 dangling link": Fault(in_data("a.png", lambda path: path.symlink_to("gone")), TEST, 7, ("a.png",)),
    "20 a pipe": Fault(in_data("a.png", os.mkfifo), TEST, 7, ("a.png",)),
    "20 float TIFF": Fault(images(("a.tiff", FLOAT_TIFF)), ("--test-image", "data/a.tiff"), 7, ("a.tiff", "Give another file")),
    **{f"21 {title}": Fault(images(("a.png", data)), TEST) for title, data in ODD.items()},
    "22 decompression bomb": Fault(images(("a.png", png_claiming(30000, 30000))), ("--test-image", "data/a.png"), 7, ("a.png", "pixels")),
    "23 a name in another script": Fault(images(("\u56fe\u50cf.png", image())), ("--test-image", "data/\u56fe\u50cf.png")),
    "24 cache of another model": Fault(cached(HEADER + "other: 3c010a14\n"), CACHE, 5, ("c.cache", "'x'", "another model")),
    "25 header that is none": Fault(cached("hello\nx: 3c010a14\n"), CACHE, 5, ("c.cache", "line 1")),
    **{
        f"26 a scale of {title}": Fault(cached(f"{HEADER}x: {digits}\nr1: 3c010a14\nr2: 3c010a14\n"), CACHE, 5, ("c.cache, line 2",))
        for title, digits in DIGITS.items()
    },
    "27 all black": Fault(
        images(*((f"{i}.png", cv2.imencode(".png", np.zeros((16, 16, 3), np.uint8))[1].tobytes()) for i in range(3))),
        (*INT8, "--calibration-dir", "data"),
        5,
        ("data", "one constant value"),
    ),
    "27 one black image, which is no reason to fail": Fault(
        images(("a.png", cv2.imencode(".png", np.zeros((16, 16, 3), np.uint8))[1].tobytes())), TEST, says=("one constant value",)
    ),
    "27 one black image to measure INT8 on": Fault(
        images(*GOOD, ("black.png", cv2.imencode(".png", np.zeros((16, 16, 3), np.uint8))[1].tobytes())),
        (*INT8, "--calibration-dir", "data", "--test-image", "data/black.png", "--max-accuracy-drop", "50"),
    ),
    "29 no full TensorRT": Fault(write(conv_net()), ("--backend", "tensorrt"), 4, ("tensorrt", "pip install")),
    "30 half installed": Fault(half_installed, ("--backend", "tensorrt"), 4, ("tensorrt",), {"PYTHONPATH": "site"}),
    "31 FP16 is FP16": Fault(write(conv_net()), ("--precision", "fp16"), says=('"delivered": "fp16"',)),
    "34 no folder to write to": Fault(write(conv_net()), ("--output", "gone/net.engine"), 8, ("gone",)),
    "36 an engine where nothing can run it": Fault(
        lambda folder: (write(conv_net())(folder), (folder / "other.engine").write_bytes(b"x" * 100)),
        ("--validate-only", "other.engine"),
        4,
        ("other.engine", "no engine can be executed"),
    ),
    "37 overflow that nothing prevents": Fault(
        write(multiplication_chain()), ("--precision", "fp16", "--disable-strict-types"), 7, ("'y'", "NaN or infinite")
    ),
    "38 warnings are errors": Fault(images(*GOOD), (*INT8, "--calibration-dir", "data"), environment={"PYTHONWARNINGS": "error"}),
}

ELSEWHERE = {  # faults that need a GPU, much memory or several processes
    6: "end_to_end/test_large_model.py::test_fp32_as_it_is",
    17: "end_to_end/test_gpu.py::test_an_error_in_get_batch_stops_the_build_and_writes_no_cache",
    28: "end_to_end/test_gpu.py::test_dynamic_batch_is_calibrated_at_the_opt_shape",
    32: "end_to_end/test_gpu.py::test_a_gpu_without_room_is_a_clear_failure",
    33: "end_to_end/test_gpu.py::test_a_signal_during_the_build_ends_it_at_once",
    35: "end_to_end/test_at_once.py::test_conversions_at_once_on_one_output_and_one_cache",
}


@pytest.mark.parametrize("title", FAULTS)
def test_a_fault(tmp_path, monkeypatch, title):
    fault = FAULTS[title]
    fault.make(tmp_path)
    (tmp_path / "net.engine").write_bytes(OLD)
    for name, value in fault.environment.items():
        monkeypatch.setenv(name, value)
    model_flag = () if "--onnx" in fault.flags else ("--onnx", "net.onnx")
    done = onnx2trt(tmp_path, *model_flag, *fault.flags, "--json", "r.json")
    assert done.code == fault.code, done.stderr
    engine = (tmp_path / "net.engine").read_bytes()
    if fault.code:
        assert "error:" in done.error and engine == OLD
        assert "hint:" in done.error or fault.code == 2, "the next step; what is wrong with a flag stands in the sentence itself"
        said = done.error
    else:
        assert engine != OLD and len(engine) > 1000
        said = json.dumps(done.json("r.json"))
    for fragment in fault.says:
        assert fragment in said, said


def test_every_fault_is_made_somewhere():
    made = {int(title.split()[0]) for title in FAULTS} | set(ELSEWHERE)
    assert made | {34} == set(range(1, 39)), "34, a full disk, is below"
    for place in ELSEWHERE.values():
        path, name = place.split("::")
        functions = [item.name for item in ast.parse((ROOT / "tests" / path).read_text()).body if isinstance(item, ast.FunctionDef)]
        assert name in functions, place


@pytest.mark.parametrize("most", [1000, 20_000, 100_000])
def test_a_full_disk(tmp_path, most):
    """34: the disk is full in the middle of the engine, or of another file."""
    write(conv_net())(tmp_path)
    (tmp_path / "net.engine").write_bytes(OLD)
    command = [sys.executable, str(ROOT / "onnx2trt.py"), "--onnx", "net.onnx", "--save-onnx", "prepared.onnx"]

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, preexec_fn=limit)
    assert done.returncode == 8 and "error:" in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert (tmp_path / "net.engine").read_bytes() == OLD and not (tmp_path / "prepared.onnx").exists()
    assert not list(tmp_path.glob(".*"))


@pytest.fixture(scope="module")
def bytes_of(tmp_path_factory):
    """File -> size, of all that a conversion may write."""
    folder = tmp_path_factory.mktemp("roomy")
    images(*GOOD)(folder)
    (folder / "full").mkdir()
    flags = [flag for name in ("net.engine", "prepared.onnx", "r.json", "r.html") for flag in FULL[name]]
    for given in (flags, ["--output", "net.engine", *FROM_IMAGES]):
        done = onnx2trt(folder, "--onnx", "net.onnx", *given)
        assert done.code == 0, done.stderr
    return {path.name: path.stat().st_size for path in (folder / "full").iterdir()}


FROM_IMAGES = (*INT8, "--calibration-dir", "data", "--calibration-cache", "full/c.cache", "--no-validate")
FULL = {  # file in the full folder -> flags, after which it is written there
    "net.engine": ("--output", "full/net.engine"),
    "net.engine.json": ("--output", "full/net.engine"),
    "prepared.onnx": ("--save-onnx", "full/prepared.onnx"),
    "r.json": ("--json", "full/r.json"),
    "r.html": ("--report", "full/r.html"),
    "c.cache.json": FROM_IMAGES,
    "c.cache": FROM_IMAGES,
    "c.cache.fit.npz": FROM_IMAGES,
}
BEFORE = {"net.engine.json": ["net.engine"], "c.cache": ["c.cache.json"], "c.cache.fit.npz": ["c.cache.json", "c.cache"]}


@pytest.mark.parametrize("name", [name for name in FULL if name != "r.html"])
def test_a_full_file_system(tmp_path, bytes_of, name):
    """34: a real one, with room for what is written before this file and for less than all of it."""
    images(*GOOD)(tmp_path)
    with small_disk(tmp_path / "full") as fill:
        for old in ("net.engine", "net.engine.json", "prepared.onnx", "r.json", "r.html", "full/" + name):
            if name != "c.cache":  # one that is there is read, not written
                (tmp_path / old).write_bytes(OLD)
        if FULL[name][0] == "--output":
            (tmp_path / "full" / "net.engine").write_bytes(OLD)
        pages = sum(-(-bytes_of[file] // PAGE) for file in (*BEFORE.get(name, ()), name))
        fill(but=0 if name == "r.json" else pages - 1)  # the JSON of a failed run is shorter
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        done = onnx2trt(tmp_path, "--onnx", "net.onnx", "--output", "net.engine", *FULL[name])
        assert done.code == 8 and f"full/{name}: No space left on device" in done.error and "hint: Free some space" in done.error, (
            done.stderr
        )
        assert done.stdout == "", "nothing was delivered, so no table says so"
        after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        made = {path.name for path in set(after) - set(before)}
        assert {path: after.get(path) for path in before} == before and made == ({"c.cache", "c.cache.json"} if "fit" in name else set())
        (tmp_path / "full" / "filler").unlink()
        if name in ("r.json", "c.cache.fit.npz"):  # with room again, the same command needs no cleaning
            assert onnx2trt(tmp_path, "--onnx", "net.onnx", "--output", "net.engine", *FULL[name]).code == 0
            assert (tmp_path / "net.engine").read_bytes() != OLD


def test_a_report_without_room_takes_no_engine_down(tmp_path, bytes_of):
    """34, too: what nobody needs to run the engine."""
    images(*GOOD)(tmp_path)
    with small_disk(tmp_path / "full") as fill:
        for old in ("net.engine", "net.engine.json", "r.json", "full/r.html"):
            (tmp_path / old).write_bytes(OLD)
        fill(but=-(-bytes_of["r.html"] // PAGE) - 1)
        done = onnx2trt(tmp_path, "--onnx", "net.onnx", "--output", "net.engine", "--json", "r.json", *FULL["r.html"])
        assert done.code == 0 and "verdict" in done.stdout, done.stderr
        result = done.json("r.json")
        assert result["error"] is None and result["engine"]["sha256"] == hashlib.sha256((tmp_path / "net.engine").read_bytes()).hexdigest()
        (warning,) = [text for text in result["warnings"] if "report" in text]
        assert warning.startswith("there is no report: ") and "full/r.html: No space left on device" in warning and warning in done.stderr
        assert (tmp_path / "full" / "r.html").read_bytes() == OLD
        assert done.json("net.engine.json")["engine"] == result["engine"]


def test_a_report_that_cannot_get_its_name_takes_no_engine_down(tmp_path):
    """A folder takes its place while the parent is held up, between the preflight, which has tried the name, and the renaming."""
    images(*GOOD)(tmp_path)
    flags = ["--onnx", "net.onnx", "--output", "net.engine", "--json", "r.json", "--report", "r.html"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "onnx2trt.py"), *flags], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    written = ".net.engine.json."  # of the files of the end the last one but the page

    def page_is_written() -> bool:
        names = os.listdir(tmp_path)
        pages = [name for name in names if name.startswith(".r.html.")]
        complete = pages and (tmp_path / pages[0]).read_bytes().rstrip().endswith(b"</html>")
        return bool(complete) and any(name.startswith(written) for name in names)

    wait_until(lambda: any(name.startswith(".net.engine.") for name in os.listdir(tmp_path)), 60)
    process.send_signal(signal.SIGSTOP)
    assert wait_until(page_is_written, 120)
    (tmp_path / "r.html").mkdir()
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0 and "simulated" in out, err
    result = json.loads((tmp_path / "r.json").read_text())
    (warning,) = [text for text in result["warnings"] if "report" in text]
    assert warning.startswith("there is no report: ") and f"warning: {warning}" in err and result["status"] == "simulated"
    check_schema(result)
    assert result["engine"]["sha256"] == hashlib.sha256((tmp_path / "net.engine").read_bytes()).hexdigest()
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".tmp")] and (tmp_path / "r.html").is_dir()


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("delay", [0.2, 0.6, 1.2, 2.0])
def test_an_interruption_at_any_time(tmp_path, number, code, delay):
    """33: within half a second, whatever stage it hits, and nothing half-written."""
    images(*GOOD)(tmp_path)
    (tmp_path / "net.engine").write_bytes(OLD)
    flags = ("--precision", "int8", "--max-accuracy-drop", "100", "--calibration-dir", "data")
    command = [sys.executable, str(ROOT / "onnx2trt.py"), "--onnx", "net.onnx", *flags]

    def heed():  # a shell in the background has its children ignore Ctrl-C
        signal.signal(number, signal.SIG_DFL)

    child = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=heed)
    time.sleep(delay)
    child.send_signal(number)
    _, stderr = child.communicate(timeout=20)
    assert child.returncode in (code, 0, -number), stderr  # -number: while Python itself was starting
    if child.returncode == 0:
        pytest.skip("it was done already")
    assert b"interrupted" in stderr or child.returncode < 0, stderr
    assert (tmp_path / "net.engine").read_bytes() == OLD and not list(tmp_path.rglob(".*.tmp"))


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path):
    """34: the output is always the old one or the complete new one, and the next run needs no cleaning. By hand: ONNX2TRT_KILLS=50."""
    images(*GOOD)(tmp_path)
    command = [sys.executable, str(ROOT / "onnx2trt.py"), "--onnx", "net.onnx", *INT8, "--calibration-dir", "data", "-q"]
    started = time.monotonic()
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == 0
    whole, seconds = (tmp_path / "net.engine").read_bytes(), time.monotonic() - started
    random_moments = np.random.default_rng(0).uniform(0, 1.1 * seconds, int(os.environ.get("ONNX2TRT_KILLS", "15")))
    for moment in random_moments:
        (tmp_path / "net.engine").write_bytes(OLD)
        child = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        time.sleep(moment)
        child.kill()
        child.wait()
        found = (tmp_path / "net.engine").read_bytes()
        assert found == OLD or len(found) == len(whole), f"killed after {moment:.2f} s"
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == 0
    assert not list(tmp_path.rglob(".*.tmp")), "what killed runs left behind is gone"


KILLED_AFTER = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from onnx2trt.base import files
from onnx2trt import cli
rename, left = files.rename, [int(sys.argv[2])]
def rename_and_die(temporary, final):
    rename(temporary, final)
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
files.rename = rename_and_die
sys.exit(cli.main(sys.argv[3:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("renames", [1, 3])  # 2, 4 and 5 by hand: each takes two conversions
def test_killed_between_two_files_that_belong_together(tmp_path, renames):
    """34: side file, cache, fit file, side file, engine: whichever was the last one, the next run goes its way."""
    images(*GOOD)(tmp_path)
    (tmp_path / "net.engine").write_bytes(OLD)
    flags = ("--onnx", "net.onnx", *INT8, "--calibration-dir", "data", "--calibration-cache", "c.cache", "--no-validate")
    command = [sys.executable, "-c", KILLED_AFTER, str(ROOT), str(renames), *flags]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == -signal.SIGKILL
    assert ((tmp_path / "net.engine").read_bytes() == OLD) is (renames < 5)
    done = onnx2trt(tmp_path, *flags)
    assert done.code == 0, done.stderr
    record = done.json("c.cache.json")
    assert record["fit_sha256"] == hashlib.sha256((tmp_path / "c.cache.fit.npz").read_bytes()).hexdigest()
    assert done.json("net.engine.json")["engine"]["sha256"] == hashlib.sha256((tmp_path / "net.engine").read_bytes()).hexdigest()


def test_paths_of_this_machine_stay_out_of_the_repository():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("no git checkout")
    home = str(Path.home())
    for name in listed.stdout.split():
        if name.endswith((".py", ".md", ".toml", ".json", ".txt", ".sh", ".yml")) and len(home) > 3:
            assert home + "/" not in (ROOT / name).read_text(errors="replace"), name


# ---- a batch that is written into the graph


def written_batch(folder, sizes) -> None:
    """Pictures become sequences by a Reshape that an export has traced with one of them."""
    nodes = [
        node("Conv", "images w", "c", "backbone", strides=[4, 4], kernel_shape=[4, 4]),
        node("Reshape", "c sizes", "r", "to_sequence"),
        node("Transpose", "r", "t", "transpose", perm=[0, 2, 1]),
        node("MatMul", "t m", "scores", "head"),
    ]
    weights = {"w": random(8, 3, 4, 4, scale=0.1), "sizes": np.array(sizes), "m": random(8, 5, seed=1)}
    onnx.save(model(nodes, {"images": ["N", 3, 16, 16]}, {"scores": ["N", 16, 5]}, weights), folder / "written.onnx")


@pytest.mark.parametrize("sizes", [(1, 8, 16), (1, 8, -1)], ids=["fails", "mixes"])
def test_a_batch_that_cannot_be_kept_ends_before_anything_is_built(tmp_path, sizes):
    written_batch(tmp_path, sizes)
    done = onnx2trt(tmp_path, "--onnx", "written.onnx", "--max-batch-size", 8, "--opt-shapes", "images:1x3x16x16", "--json", "r.json")
    assert done.code == 3 and "batch 1 is written into" in done.error and "'to_sequence'" in done.error
    result = done.json("r.json")
    assert not {"ranges", "parse", "build"} & set(result["timings_s"]) and result["plan"]["profiles"]
    assert onnx2trt(tmp_path, "--onnx", "written.onnx").code == 0, "for one picture it is as good as any other"


def test_a_batch_that_is_free_is_kept(tmp_path):
    written_batch(tmp_path, (-1, 8, 16))
    done = onnx2trt(tmp_path, "--onnx", "written.onnx", "--max-batch-size", 8)
    assert done.code == 0 and "batch" not in done.error
    assert "shapes" in done.json("written.engine.json")["timings_s"]
