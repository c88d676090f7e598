"""trt/builder.py: what the library refuses, without the library; real builds are in tests/contract and tests/end_to_end."""

from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from helpers import LIBRARIES, parse, refused
from models import model, node, random

from onnx2trt.base.errors import ExitCode
from onnx2trt.base.memory import HELD
from onnx2trt.base.model_info import Profile
from onnx2trt.model.preflight import preflight
from onnx2trt.plan.plan import make_plan
from onnx2trt.trt.builder import EngineBuilder
from onnx2trt.trt.library import load_library
from onnx2trt.trt.logger import Messages
from onnx2trt.trt.network import ParserInput

# ---- timing caches, with a library that takes what starts with "ok"


class FakeCache:
    def __init__(self, contents):
        self.lines = set(contents.split())

    def combine(self, other, ignore_mismatch):
        assert ignore_mismatch is False, "timings of another GPU would be taken"
        mixed = b"other-gpu" in other.lines
        self.lines |= set() if mixed else other.lines
        return not mixed

    def serialize(self):
        return b" ".join(sorted(self.lines))


def fake_builder(complain):
    """complain: how the library says that it does not take a cache: by None, an error, or a warning."""
    messages = Messages()

    class Config:
        def create_timing_cache(self, contents):
            if contents.startswith(b"ok") or not contents:
                return FakeCache(contents)
            if complain == "none":
                return None
            if complain == "error":
                messages.errors.append("bad magic")
            if complain == "warning":
                messages.warnings["Failed to deserialize timing cache. Returning an empty timing cache."] += 1
            return FakeCache(b"")

        def set_timing_cache(self, cache, ignore_mismatch):
            self.cache = cache
            return True

    builder = object.__new__(EngineBuilder)
    builder._messages = messages
    builder._builder = SimpleNamespace(create_builder_config=Config)
    return builder


@pytest.mark.parametrize("complain", ["none", "error", "warning"])
def test_a_cache_that_is_refused_in_any_way_gives_way(complain):
    builder = fake_builder(complain)
    assert builder.merge_timing_caches(b"ok a", b"ok b") == b"a b ok"
    for _ in range(2):  # a warning counts each time
        assert builder.merge_timing_caches(b"ok a", b"junk") == b"ok a" and builder._messages.errors == []
        config = builder._builder.create_builder_config()
        assert not builder._set_timing_cache(config, b"junk") and config.cache.lines == set() and builder._messages.errors == []
    assert builder._set_timing_cache(config, b"ok a") and config.cache.lines == {b"ok", b"a"}
    assert builder.merge_timing_caches(b"ok a", b"ok other-gpu b") == b"ok a"


# ---- profiles, with the library


def test_a_profile_that_the_network_does_not_keep_is_an_error_though_an_engine_is_built(tmp_path):
    """TensorRT only warns of it, and the engine fails later."""
    pytest.importorskip("tensorrt_rtx")
    nodes = [node("Reshape", "x one", "r", "written"), node("MatMul", "r w", "y", "product")]
    weights = {"one": np.array([1, 4, 8]), "w": random(8, 8)}
    onnx.save(model(nodes, {"x": ["N", 4, 8]}, {"y": ["N", 4, 8]}, weights), tmp_path / "net.onnx")
    _, info = preflight(str(tmp_path / "net.onnx"))
    builder = EngineBuilder(load_library("tensorrt-rtx"), make_plan(parse(), LIBRARIES["rtx"]), lambda *_: None)
    builder.parse(ParserInput(path=info.path), info)
    with refused(ExitCode.BUILD, "Profile kMAX values are not self-consistent", "written", "reshape dims{1 4 8}", hint="--max-shapes"):
        builder.build((Profile("x", (1, 4, 8), (1, 4, 8), (8, 4, 8)),), dynamic=True)


# ---- memory


def test_what_the_library_loads_for_a_builder_is_not_the_conversions_memory(monkeypatch):
    trt = pytest.importorskip("tensorrt_rtx")
    make, kernels = trt.Builder, []

    def with_kernels(logger):
        kernels.append(np.ones(2**26, np.uint8))
        return make(logger)

    monkeypatch.setattr(trt, "Builder", with_kernels)
    before = HELD.without_libraries()
    EngineBuilder(load_library("tensorrt-rtx"), make_plan(parse(), LIBRARIES["rtx"]), lambda *_: None)
    assert kernels and HELD.without_libraries() - before < 2**24
    tensors = np.ones(2**26, np.uint8)
    assert tensors.size and HELD.without_libraries() - before > 2**25, "and what it does else is"
