"""base/side_files.py as its readers use it: whatever stands in the place of a side file, it is passed over, or refused in a sentence."""

import contextlib
import copy
import io
import json
import os
import random

import numpy as np
import pytest
from made_results import result

from onnx2trt.base.errors import ConversionError
from onnx2trt.base.side_files import NotTaken
from onnx2trt.base.told import told_by
from onnx2trt.conversion import remembered
from onnx2trt.fleet.plan_file import read_plan
from onnx2trt.plan.key import sealed
from onnx2trt.quant import calibration_cache
from onnx2trt.quant.fit_file import Packed
from onnx2trt.report.read_result import read_result
from onnx2trt.report.result import Result
from onnx2trt.report.table import render
from onnx2trt.report.triton_config import HEAD, plans_in
from onnx2trt.trt.header import what_else
from onnx2trt.trt.inspector import parse_layers

CACHE = "TRT-100600-EntropyCalibration2\nx: 3c010a14\n"
LAYER = {
    "Name": "conv",
    "LayerType": "CaskConvolution",
    "Inputs": [{"Name": "x", "Format/Datatype": "Int8"}],
    "Metadata": "[ONNX Layer: c]",
}
HOSTILE = {
    "nothing": b"",
    "lists": b"[" * 1_000,
    "objects": b'{"a":' * 3_000,
    "deep but whole": b"[" * 900 + b"]" * 900,
    "digits": b'{"schema_version":' + b"9" * 5000 + b"}",
    "binary": bytes(range(256)) * 16,
    "not a number": b'{"schema_version": NaN}',
    "no end": b'{"schema_version": 1, "engine": {"sha256": "',
    "number": b"7",
    "null": b"null",
}


def odd_value(chosen: random.Random, depth: int = 0):
    """A random JSON value."""
    kinds = (None, True, 0, -1, 2**62, 0.5, -1e300, "", "x", "\ud800\x1b[31m\n", "7", [], {})
    if depth > 2 or chosen.random() < 0.6:
        return copy.deepcopy(chosen.choice(kinds))
    inner = [odd_value(chosen, depth + 1) for _ in range(chosen.randrange(4))]
    return inner if chosen.random() < 0.5 else {chosen.choice(("name", "sha256", "layers", "0", "x")): value for value in inner}


def places(value, path=()):
    """Where the values of a JSON object are, the whole first."""
    yield path
    for name, part in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(part, (*path, name))


def spoiled(value, path: tuple, other):
    """The same with another value at one place."""
    if not path:
        return other
    value = copy.deepcopy(value)
    inner = value
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = other
    return value


def cache_side(folder, data: bytes) -> None:
    (folder / "a.cache").write_text(CACHE)
    (folder / "a.cache.json").write_bytes(data)
    identity = calibration_cache.read(str(folder / "a.cache")).identity
    now = calibration_cache.Identity("m", "d", 3, {}, "auto")
    for accept in (True, False):
        try:
            calibration_cache.check_identity(calibration_cache.read(str(folder / "a.cache")), now, accept)
        except ConversionError as error:
            assert identity is not None or "no (valid) side file" in error.message


def engine_side(folder, data: bytes) -> None:
    (folder / "r.json").write_bytes(data)
    try:
        found, _ = read_result(str(folder / "r.json"))
    except NotTaken as error:
        assert str(error)
    else:
        render(found.to_dict(), 100, color=False)


def figures(folder, data: bytes) -> None:
    (folder / "f.json").write_bytes(data)
    with contextlib.suppress(remembered.BROKEN):
        remembered.read(str(folder / "f.json"))


def triton(folder, data: bytes) -> None:
    plans_in(HEAD + data.decode("utf-8", "surrogateescape") + "\nname: x\n")


def metadata(folder, data: bytes) -> None:
    text = data.decode("latin-1")
    told_by({"imgsz": text, "stride": text, "names": text, "task": text})


def header(folder, data: bytes) -> None:
    assert what_else(len(data).to_bytes(4, "little") + data + bytes(64))


def fit_text(folder, data: bytes) -> None:
    stream = io.BytesIO()
    np.savez(stream, about=np.frombuffer(data, np.uint8), scales=np.ones(1))
    try:
        Packed(stream.getvalue())
    except ValueError as error:
        assert "damaged" in str(error)


def layers(folder, data: bytes) -> None:
    try:
        parse_layers(data.decode("latin-1"), {})
    except ConversionError as error:
        assert "cannot be read" in error.message


def fleet(folder, data: bytes) -> None:
    (folder / "plan.yaml").write_bytes(data)
    try:
        read_plan(str(folder / "plan.yaml"))
    except ConversionError as error:
        assert "plan.yaml" in error.message


READERS = {
    "calibration cache": (
        cache_side,
        json.loads(calibration_cache.side_text(CACHE, calibration_cache.Identity("m", "d", 3, {"a": 1}, "auto"))),
    ),
    "engine": (engine_side, result()),
    "figures": (figures, sealed({"measured": "2026-01-01", "rows": [{"precision": "int8"}]})),
    "triton": (triton, {"sha256": "0", "plans": {"8.9": {"file": "a", "sha256": "0", "model": "0", "interface": "0"}}}),
    "metadata": (metadata, {"0": "cat", "1": "dog"}),
    "header": (header, {"stride": 32}),
    "fit file": (fit_text, {"format": 5, "conditions": {"a": 1}}),
    "layers": (layers, {"Layers": [LAYER]}),
    "fleet": (fleet, {"models": ["a.onnx"], "targets": [{"name": "x", "flags": "--precision int8"}], "workers": {"cpus": 1}}),
}


@pytest.mark.parametrize("name", READERS)
def test_hostile_texts(tmp_path, name):
    for data in HOSTILE.values():
        READERS[name][0](tmp_path, data)


@pytest.mark.parametrize("name", READERS)
def test_random_values_in_every_place(tmp_path, name):
    read, whole = READERS[name]
    read(tmp_path, json.dumps(whole).encode())
    chosen = random.Random(name)
    found = list(places(whole))
    for path in chosen.sample(found, min(len(found), 60)) + chosen.choices(found, k=30):
        other = spoiled(whole, path, odd_value(chosen))
        if name == "figures" and isinstance(other, dict):
            other = sealed({key: value for key, value in other.items() if key != "sha256"})
        read(tmp_path, json.dumps(other).encode())


def test_the_whole_files_are_read(tmp_path):
    """Those above that nothing was done to are good."""
    (tmp_path / "r.json").write_text(json.dumps(result()))
    assert isinstance(read_result(str(tmp_path / "r.json"))[0], Result)
    cache_side(tmp_path, json.dumps(READERS["calibration cache"][1]).encode())
    assert calibration_cache.read(str(tmp_path / "a.cache")).identity.samples == 3


def test_a_result_is_checked_without_being_laid_out(tmp_path, monkeypatch):
    """A fleet with nothing left to do reads hundreds; to lay a table out in lines took half of its time."""
    monkeypatch.setattr("rich.console.Console.print", lambda *_: pytest.fail("laid out"))
    (tmp_path / "r.json").write_text(json.dumps(result()))
    assert isinstance(read_result(str(tmp_path / "r.json"))[0], Result)


def test_pipes_and_folders_in_the_place_of_side_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        with pytest.raises((OSError, NotTaken)):
            read_result(str(tmp_path / name))
        with pytest.raises(remembered.BROKEN):
            remembered.read(str(tmp_path / name))
