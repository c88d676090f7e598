"""Cases for both releases: timing caches.

Without a GPU these libraries refuse every timing cache that is not empty (they want to know the GPU first), so merging of real
timings is for `pytest -m gpu`; here is what they say, and that it is heard.
"""

from contract.common import CAPS, Case, plan_for
from models import conv_net

from onnx2trt.rewrite.fp16 import convert


def parsed(tmp_path, *flags: str):
    case = Case(tmp_path, conv_net(), *flags)
    case.parse(None if CAPS.weak_typing else convert(case.graph, {}))
    return case


def test_it_is_used_by_default_and_can_be_switched_off(monkeypatch):
    assert plan_for().build.timing_cache.endswith("-sm90.cache") and "onnx2trt" in plan_for().build.timing_cache
    assert plan_for("--timing-cache", "none").build.timing_cache is None


def test_an_empty_one_is_taken_and_none_is_none(tmp_path):
    case = parsed(tmp_path)
    config = case.builder._builder.create_builder_config()
    assert case.builder._set_timing_cache(config, b"") and config.get_timing_cache() is not None
    assert case.config(timing_cache=b"").get_timing_cache() is not None
    assert case.config().get_timing_cache() is None, "without a cache nothing is set"


def test_junk_is_refused_replaced_and_leaves_no_error_behind(tmp_path):
    case = parsed(tmp_path)
    config = case.builder._builder.create_builder_config()
    assert not case.builder._set_timing_cache(config, b"junk") and config.get_timing_cache() is not None
    assert case.builder._messages.errors == []
    assert case.config(timing_cache=b"junk").get_timing_cache() is not None


def test_two_are_merged_and_ours_stays_where_theirs_is_refused(tmp_path):
    builder = parsed(tmp_path).builder
    empty = bytes(builder._builder.create_builder_config().create_timing_cache(b"").serialize())
    assert builder.merge_timing_caches(b"", b"") == empty and len(empty) > 50
    assert builder.merge_timing_caches(b"ours", b"junk") == b"ours"
    assert builder._messages.errors == []
