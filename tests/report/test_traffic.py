"""report/traffic.py: what an engine moves, in words that claim no time."""

import pytest

from onnx2trt.report.traffic import least_times, traffic

ENGINE = {"kernels": 12, "moved_bytes": 3_000_000, "least_ms": {"A": 0.2, "B": 0.1}}
BESIDE = {"fp16_kernels": 9, "fp16_moved_bytes": 2_000_000, "fp16_least_ms": {"A": 0.3, "B": 0.1}}


def test_an_engine_alone():
    assert traffic(ENGINE) == "12 kernels move 3.0 MB through memory in one inference, by the engine's own plan (an estimate, not measured)"
    assert least_times(ENGINE) == "A 0.200 ms, B 0.100"


def test_attentions_that_are_one_kernel_are_said():
    assert traffic({**ENGINE, "fused_attentions": 4}).startswith("12 kernels (4 of them a whole attention each) move 3.0 MB")


@pytest.mark.parametrize("moved, said", [(3_000_000, True), (1_000_000, False)])
def test_beside_fp16_it_says_where_int8_cannot_be_faster(moved, said):
    text = traffic({**ENGINE, **BESIDE, "moved_bytes": moved})
    assert "in FP16 9 would move 2.0 MB" in text and ("that is the faster" in text) is said and text.endswith("(an estimate, not measured)")
    assert least_times({**ENGINE, **BESIDE}) == "A 0.200 ms (in FP16 0.300), B 0.100 (0.100)"


def test_a_time_that_is_no_time_is_not_zero():
    assert least_times({**ENGINE, "least_ms": {"GeForce RTX 4090": 0.00004}}) == "RTX 4090 < 0.001 ms"
