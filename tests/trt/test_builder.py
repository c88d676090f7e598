"""trt/builder.py: what the library refuses, without the library; real builds are in tests/contract and tests/end_to_end."""

from types import SimpleNamespace

import pytest

from onnx2trt.trt.builder import EngineBuilder
from onnx2trt.trt.logger import Messages

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
