"""What the tests share: command lines, fake libraries, tiny models, images, and how a refusal looks."""

from __future__ import annotations

import argparse
import contextlib
import os
import struct
import subprocess
import threading
import time
import zlib
from collections.abc import Callable, Iterator

import numpy as np
import onnx
import pytest
from models import conv_net, model, random
from onnx import TensorProto, helper, numpy_helper

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.data.datasets import choose_data
from onnx2trt.model.apart import apart
from onnx2trt.model.graph import Graph
from onnx2trt.model.preflight import preflight
from onnx2trt.plan.arguments import build_parser
from onnx2trt.plan.capabilities import REFIT_SYMBOLS, Capabilities
from onnx2trt.plan.plan import make_plan
from onnx2trt.plan.shapes import make_profiles
from onnx2trt.process.channel import Channel
from onnx2trt.report.console import Console

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


@contextlib.contextmanager
def refused(code: ExitCode, *fragments: str, hint: str = "") -> Iterator[None]:
    """The block raises a ConversionError with this code, whose message holds all fragments and whose hint holds `hint`."""
    with pytest.raises(ConversionError) as caught:
        yield
    error = caught.value
    assert error.code == code, error.message
    for fragment in fragments:
        assert fragment in error.message
    assert hint in error.hint


# ---- command lines and libraries


def parse(*flags: str) -> argparse.Namespace:
    """The arguments of `onnx2trt.py --onnx model.onnx FLAGS`."""
    return build_parser().parse_args(["--onnx", "model.onnx", *flags])


def flag_actions() -> list[argparse.Action]:
    """Every flag of the parser but --help, and --onnx and --inspect, of which one has to be there."""
    return [action for action in build_parser()._actions if action.dest not in ("help", "onnx", "inspect")]


BESIDE = {"no_baseline": ("--precision", "int8")}  # what a flag needs to mean anything
GUESSES = ("CUBLAS", "x:fp32", "2", "89", "cosine", "sr=1", "size:8", "p=x:8")  # one of them fits the type of any flag


def typing(action: argparse.Action) -> list[str]:
    """Words that give a flag a value other than its default."""
    flag = max(action.option_strings, key=len)
    if action.nargs == 0:
        return [flag]
    if action.choices:
        return [flag, [str(choice) for choice in action.choices if choice != action.default][-1]]
    if action.type is None:
        return [flag, f"{action.dest}.file"]
    for word in GUESSES:
        with contextlib.suppress(argparse.ArgumentTypeError, ValueError):
            if action.type(word) != action.default:
                return [flag, word]
    pytest.fail(f"no guess fits the new flag {flag}: add one to helpers.GUESSES")


LEVELS = frozenset({"NONE", "AMPERE_PLUS", "SAME_COMPUTE_CAPABILITY"})
LIBRARIES = {  # column of the flag table -> a library of that kind
    "weak": Capabilities(
        backend="tensorrt",
        version="10.16.0.72",
        weak_typing=True,
        calibrators=True,
        compute_capabilities=frozenset(),
        tactic_sources=frozenset({"CUBLAS", "CUDNN"}),
        hardware_levels=LEVELS,
        refits=frozenset(REFIT_SYMBOLS),
        gpu="Tesla T4",
        gpu_arch="7.5",
        driver="13.0",
        bf16=True,
    ),
    "strong": Capabilities(
        backend="tensorrt",
        version="11.2.1.3",
        weak_typing=False,
        calibrators=False,
        compute_capabilities=frozenset(),
        tactic_sources=frozenset({"CUBLAS"}),
        hardware_levels=LEVELS,
        refits=frozenset(REFIT_SYMBOLS),
        gpu="NVIDIA H200",
        gpu_arch="9.0",
        driver="13.0",
        bf16=True,
    ),
    "rtx": Capabilities(
        backend="tensorrt-rtx",
        version="1.7.1.116",
        weak_typing=False,
        calibrators=False,
        compute_capabilities=frozenset({"SM75", "SM80", "SM89", "SM120"}),
        tactic_sources=frozenset(),
        refits=frozenset(REFIT_SYMBOLS),
        gpu="NVIDIA GeForce RTX 4090",
        gpu_arch="8.9",
        driver="13.0",
        bf16=True,
    ),
}


def planned(*flags: str, library: str = "weak") -> tuple[Job, Run]:
    """What `onnx2trt.py --onnx model.onnx FLAGS` is going to do in the current folder, for one of LIBRARIES; nothing is done yet."""
    plan = make_plan(parse(*flags), LIBRARIES[library])
    found, info = preflight("model.onnx")
    profiles = make_profiles(info.inputs, plan.shapes)
    light, weights = apart(found)
    job = Job(None, plan, light, info, profiles, choose_data(plan, info, profiles), weights=weights)
    return job, quiet_run()


def quiet_run(keep_evidence: bool = False) -> Run:
    """A run that nobody supervises and that says nothing; what it would have said is in run.console.warnings."""
    return Run(Channel(os.open(os.devnull, os.O_WRONLY)), Console(quiet=True), keep_evidence)


# ---- models


def write_conv_net(folder, count: int = 6) -> None:
    """model.onnx, and data with so many samples for it."""
    onnx.save(conv_net(), folder / "model.onnx")
    (folder / "data").mkdir(exist_ok=True)
    for index in range(count):
        np.save(folder / "data" / f"{index}.npy", random(1, 3, 16, 16, seed=index))


def value(name: str, shape, elem_type: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, elem_type, shape)


def build_model(nodes, inputs=None, outputs=None, weights=(), *, opset: int = 17, ir: int = 8, functions=()) -> onnx.ModelProto:
    """A model, by default with input x [4] and output y [4]; weights are TensorProtos or (name, array) pairs."""
    tensors = [numpy_helper.from_array(w[1], w[0]) if isinstance(w, tuple) else w for w in weights]
    graph = helper.make_graph(
        nodes,
        "graph",
        [value("x", [4])] if inputs is None else inputs,
        [value("y", [4])] if outputs is None else outputs,
        initializer=tensors,
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(f.domain, 1) for f in functions)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir, functions=list(functions))


def adder(weight, **kwargs) -> onnx.ModelProto:
    """y = x + w."""
    return build_model([helper.make_node("Add", ["x", "w"], ["y"], name="add")], weights=[weight], **kwargs)


def inside_if(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    """A model whose nodes stand in both branches of an If; the last one makes the result."""
    bodies = [helper.make_graph(list(nodes), name, [], [value(nodes[-1].output[0], [4])]) for name in ("then", "else")]
    node = helper.make_node("If", ["x"], ["y"], name="if", then_branch=bodies[0], else_branch=bodies[1])
    return build_model([node], inputs=[value("x", [], TensorProto.BOOL)])


def save(model: onnx.ModelProto, path) -> str:
    """Write exactly this protobuf, whatever it says about external data."""
    path.write_bytes(model.SerializeToString())
    return str(path)


def external(name: str, array: np.ndarray, location: str, **entries) -> TensorProto:
    """A tensor whose data is said to stand in file `location`; entries such as offset and length as given."""
    tensor = numpy_helper.from_array(array, name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, text in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(text))
    return tensor


def network(nodes, weights, inputs=None, outputs=None) -> Graph:
    """A graph; by default of one input x and one output y, [1, 4, 8, 8] both."""
    return Graph.from_model(model(nodes, inputs or {"x": [1, 4, 8, 8]}, outputs or {"y": [1, 4, 8, 8]}, weights))


# ---- images


def image(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """A smooth coloured image, uint8 [H, W, C] ([H, W] for one channel)."""
    from onnx2trt.base.opencv import opencv

    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, channels), np.uint8)
    return opencv().resize(coarse, (width, height))


def prepared(channels: int = 3, **changes):
    """A Preprocessing to 24 x 32, RGB, NCHW, [0, 1], but for the changes."""
    from onnx2trt.data.reader import Preprocessing

    values = {"height": 24, "width": 32, "channels": channels, "layout": "NCHW", "dtype": "float32", "resize": "stretch", "input_range": 1}
    values |= {"color": "gray" if channels == 1 else "rgb", "mean": (0.0,) * channels, "std": (1.0,) * channels}
    return Preprocessing(**{**values, **changes})


def encode(suffix: str, pixels: np.ndarray, *options: int) -> bytes:
    from onnx2trt.base.opencv import opencv

    done, data = opencv().imencode(suffix, pixels, options)
    assert done
    return data.tobytes()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_claiming(width: int, height: int) -> bytes:
    """A few bytes that say they are an image of this size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(bytes(100))) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def jpeg_with_app1(jpeg: bytes, payload: bytes) -> bytes:
    """A JPEG with an Exif segment behind its start marker."""
    body = b"Exif\0\0" + payload
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(body)) + body + jpeg[2:]


def orientation(number: int) -> bytes:
    """A TIFF header with one entry: tag 0x112 (Orientation), a SHORT."""
    return b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x112, 3, 1, number, 0, 0)


# ---- a full disk

PAGE = 4096  # bytes; what a small file takes there


@contextlib.contextmanager
def small_disk(folder) -> Iterator[Callable[[int], None]]:
    """A file system of 4 MB at `folder`; gives a function that fills it up to so many pages."""
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")

    def fill(but: int) -> None:
        space = os.statvfs(folder)
        (folder / "filler").write_bytes(bytes(space.f_bavail * space.f_frsize - but * PAGE))

    try:
        yield fill
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


# ---- things that may block


@contextlib.contextmanager
def pipe_at(path) -> Iterator[str]:
    """A named pipe that nobody writes to; a reader that hangs in it is let go at the end."""
    os.mkfifo(path)
    try:
        yield str(path)
    finally:
        with contextlib.suppress(OSError):  # no reader
            os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))


def ends_within(seconds: float, function) -> bool:
    """Whether function() returns or raises in time; it is left behind where it does not."""
    ended = threading.Event()

    def work() -> None:
        with contextlib.suppress(Exception):
            function()
        ended.set()

    threading.Thread(target=work, daemon=True).start()
    return ended.wait(seconds)


def wait_until(condition, seconds: float = 5.0) -> bool:
    """Poll until condition() holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True
