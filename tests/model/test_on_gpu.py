"""model/on_gpu.py: the GPU is used where it computes what the CPU does, and everything goes on where it does not. The GPU is pretended: a
session on the CPU that fails or errs where it was loaded for CUDA; a real one is asked in
test_gpu_onnxruntime.py."""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from models import conv_net, random

from onnx2trt.base.computed_on import ComputedOn
from onnx2trt.base.driver import Driver
from onnx2trt.base.errors import ConversionError
from onnx2trt.conversion import run
from onnx2trt.model import on_gpu, session
from onnx2trt.model.graph import Graph
from onnx2trt.model.on_gpu import CPU, CUDA, Gpu, ort
from onnx2trt.model.session import Session
from onnx2trt.report.console import Console

FEED = {"x": random(1, 3, 16, 16)}
REAL = ort.InferenceSession


class Pretended:
    """onnxruntime with a GPU; `loads` and `computes` say whether that one can, `factor` by how much it errs."""

    def __init__(self, loads=True, computes=True, factor=1.0, provider=True):
        self.loads, self.computes, self.factor, self.provider = loads, computes, factor, provider
        self.loaded: list[str] = []

    def session(self, source, options, providers, **others):
        first = providers[0] if isinstance(providers[0], str) else providers[0][0]
        self.loaded.append(first)
        made = REAL(source, options, providers=[CPU], **others)
        if first == CPU:
            return made
        if not self.loads:
            raise RuntimeError("[ONNXRuntimeError] : 1 : FAIL : CUDA failure 2: out of memory")
        return SimpleNamespace(
            get_inputs=made.get_inputs,
            get_outputs=made.get_outputs,
            get_providers=lambda: [CUDA, CPU] if self.provider else [CPU],
            run=lambda names, feed: self.run(made, names, feed),
        )

    def run(self, made, names, feed):
        if not self.computes:
            raise RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory")
        return [array * np.float32(self.factor) for array in made.run(names, feed)]


@pytest.fixture
def pretend(monkeypatch):
    def pretended(gpu="H200", **how):
        library, device, record = Pretended(**how), Gpu(), ComputedOn()
        monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])
        monkeypatch.setattr(ort, "InferenceSession", library.session)
        monkeypatch.setattr(on_gpu, "probe_driver", lambda: Driver(problem="" if gpu else "no GPU", gpu=gpu))
        for module in (on_gpu, session):
            monkeypatch.setattr(module, "GPU", device)
        for module in (on_gpu, run):
            monkeypatch.setattr(module, "COMPUTED_ON", record)
        return library, record

    return pretended


def test_a_gpu_that_computes_is_used(pretend):
    library, gpu = pretend()
    Session.from_graph(Graph.from_model(conv_net())).run(FEED)
    assert library.loaded == [CUDA, CPU, CUDA] and gpu.said() == "GPU" and not gpu.remarks  # the trial, what it is held against, the model


def test_shapes_and_constants_stay_on_the_cpu(pretend):
    library, gpu = pretend()
    Session.from_graph(Graph.from_model(conv_net()), optimize=False).run(FEED)
    assert library.loaded == [CPU] and gpu.said() is None


@pytest.mark.parametrize("gpu, providers", [("", [CUDA, CPU]), ("H200", [CPU])], ids=["no GPU", "a package for CPUs"])
def test_nothing_is_said_where_there_is_nothing_to_use(gpu, providers, pretend, monkeypatch):
    library, found = pretend(gpu)
    monkeypatch.setattr(ort, "get_available_providers", lambda: providers)
    Session.from_graph(Graph.from_model(conv_net())).run(FEED)
    assert library.loaded == [CPU] and found.said() == "CPU" and not found.remarks


@pytest.mark.parametrize(
    "how, words",
    [
        ({"factor": 1.001}, "wrong by 1.0e-03"),
        ({"provider": False}, "onnxruntime-gpu[cuda,cudnn]"),
        ({"loads": False}, "out of memory"),
        ({"computes": False}, "Failed to allocate"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_gpu_that_fails_its_trial_is_not_used_and_named(how, words, pretend):
    library, gpu = pretend(**how)
    one, other = (Session.from_graph(Graph.from_model(conv_net())).run(FEED)["y"] for _ in range(2))
    np.testing.assert_array_equal(one, other)
    assert library.loaded.count(CUDA) == 1 and gpu.said() == "CPU"
    (said,) = gpu.remarks
    assert "computes on the CPU, though its package is one for GPUs" in said and words in said


def test_a_model_that_the_gpu_cannot_load_is_on_the_cpu(pretend):
    library, gpu = pretend()
    assert on_gpu.GPU.works
    library.loads = False
    for _ in range(2):
        assert Session.from_graph(Graph.from_model(conv_net())).run(FEED)["y"].size
    assert gpu.said() == "CPU" and len(gpu.remarks) == 1 and "out of memory" in gpu.remarks[0]


def test_inferences_go_on_where_the_gpu_fails_in_one(pretend):
    library, gpu = pretend()
    loaded = Session.from_graph(Graph.from_model(conv_net()), in_turn=False)
    first, library.computes = loaded.run(FEED), False
    before = len(library.loaded)
    with ThreadPoolExecutor(4) as several:
        found = list(several.map(lambda _: loaded.run(FEED), range(8)))
    assert all(np.array_equal(one["y"], first["y"]) for one in found)
    assert library.loaded[before:] == [CPU] and gpu.said() == "GPU and CPU" and len(gpu.remarks) == 1


def test_what_the_model_is_to_blame_for_is_an_error_and_no_remark(pretend):
    _, gpu = pretend()
    with pytest.raises(ConversionError, match="cannot run the model on x float32"):
        Session.from_graph(Graph.from_model(conv_net())).run({"x": random(1, 5, 16, 16)})
    assert not gpu.remarks


def test_the_user_is_told_once(pretend):
    _, gpu = pretend(factor=2.0)
    own = run.Run(SimpleNamespace(stage=lambda name: None), Console(0, True))
    for name in ("ranges", "validate"):
        with own.stage(name, name):
            Session.from_graph(Graph.from_model(conv_net())).run(FEED)
    (said,) = own.said()["warnings"]
    assert "wrong by 1.0e+00" in said and own.said()["inferences_on"] == "CPU"
