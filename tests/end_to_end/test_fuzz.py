"""A bounded part of tests/fuzz; by hand: python -m tests.fuzz onnx --count 2000 --seed 1 --jobs 2"""

import contextlib

import numpy as np
import onnx
import pytest
from models import conv_net

from onnx2trt.quant.calibration_cache import to_text
from tests.fuzz import cases
from tests.fuzz.__main__ import one
from tests.fuzz.mutate import HOSTILE, fields, hostile_onnx, mutate_cache, mutate_field, mutate_onnx


@pytest.mark.slow
@pytest.mark.parametrize("kind, count", [("onnx", 24), ("cache", 12), ("images", 8), ("flags", 12)])
def test_damage_is_answered_calmly(kind, count, tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    failed = {}
    for number in range(count):
        _, verdict = one(kind, seed=20261123, number=number, keep=None)
        if verdict.problems:
            failed[number] = (verdict.problems, verdict.error)
    assert not failed, f"python -m tests.fuzz {kind} --seed 20261123 --first NUMBER --count 1 shows one: {failed}"


def test_mutations_are_reproducible_and_change_something():
    data = conv_net().SerializeToString()
    for seed in range(50):
        first, second = (mutate_onnx(data, np.random.default_rng(seed)) for _ in range(2))
        assert first == second
    assert sum(mutate_onnx(data, np.random.default_rng(seed)) != data for seed in range(200)) > 170
    text = to_text({"x": 0.1, "y": 0.2}, "entropy", "8601").encode()
    assert sum(mutate_cache(text, np.random.default_rng(seed)) != text for seed in range(200)) > 150


def test_fields_are_found_and_lengths_stay_right():
    data = conv_net().SerializeToString()
    parts = fields(data)
    assert parts[0][0] == 0 and parts[-1][1] == len(data) and all(a[1] == b[0] for a, b in zip(parts, parts[1:]))
    parsed = 0
    for seed in range(60):
        with contextlib.suppress(Exception):  # damage may be deep enough
            onnx.load_from_string(mutate_field(data, np.random.default_rng(seed)))
            parsed += 1
    assert parsed > 30, "most damage is inside, not to the framing"


@pytest.mark.parametrize("change", HOSTILE, ids=lambda change: change.__name__)
def test_hostile_models_still_parse(change):
    data, found = conv_net().SerializeToString(), 0
    for seed in range(20):
        source = onnx.load_from_string(data)
        change(source, np.random.default_rng(seed))
        found += source.SerializeToString() != data
        onnx.load_from_string(source.SerializeToString())
    assert found > 5
    assert hostile_onnx(data, np.random.default_rng(3)) != b""


@pytest.mark.parametrize("kind", cases.KINDS)
def test_a_case_is_the_same_for_the_same_seed(kind, tmp_path):
    made = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        arguments = cases.make(kind, np.random.default_rng([1, 2]), tmp_path / name)
        files = {path.relative_to(tmp_path / name).as_posix(): path.read_bytes() for path in (tmp_path / name).rglob("*") if path.is_file()}
        made.append((arguments, files))
    assert made[0] == made[1]
