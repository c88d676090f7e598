"""quant/fit_file.py: what is written comes back exactly; whatever else the file holds is refused, at no cost in memory."""

import contextlib
import io
import json
import random as random_module
import struct
import zipfile

import numpy as np
import pytest
from models import conv_net, model, node, random, weight_and_axis

from onnx2trt.model.graph import Graph
from onnx2trt.quant import fit_file
from onnx2trt.quant.fit_file import Found, Packed, pack
from onnx2trt.rewrite.fit import Fit
from onnx2trt.rewrite.qdq import Rounded, quantize_weights

GRAPH = Graph.from_model(conv_net())
CONDITIONS = {"--max-accuracy-drop": 1.0, "--layer-precisions": [["head", "fp16"]], "--validation-dir": None}


def found():
    rounded = {}
    for name, bias in (("stem", random(16)), ("head", None)):
        weight, axis = weight_and_axis(GRAPH, name)
        rounded[name] = Rounded(*quantize_weights(np.asfortranarray(weight), axis, half=True), bias)
    scales = {"x": 0.1, "r1": 1 / 3, "r2": 1e-30}
    factors = {"c1": np.geomspace(0.1, 1, 16), "c2": np.full(16, np.float64(np.pi))}
    kept = {"stem_relu": "reason"}, {"depthwise": 'a "reason" \udc80'}
    return Found("mse", Fit(scales, rounded), {"c1": np.zeros(16)}, factors, *kept, {"y": 1 / 3}, {"c1": 2.0, "behind a factor": 1e-3})


def test_what_is_written_comes_back():
    data = bytes(pack(found(), CONDITIONS))
    packed = Packed(data)
    assert packed.conditions == CONDITIONS and packed.format == fit_file.FORMAT
    result, expected = packed.unpack(GRAPH), found()
    assert (result.method, result.fit.scales, result.kept_fp32, result.fp16_fallback) == (
        "mse",
        expected.fit.scales,
        expected.kept_fp32,
        expected.fp16_fallback,
    )
    assert list(result.fit.scales) == list(expected.fit.scales) and (result.held_out, result.others) == ({"y": 1 / 3}, expected.others)
    for ours, theirs in ((result.shifts, expected.shifts), (result.factors, expected.factors)):
        assert list(ours) == list(theirs) and all(np.array_equal(ours[name], theirs[name]) for name in theirs)
    for name, own in expected.fit.rounded.items():
        for part in ("weights", "scales", "bias"):
            one, other = getattr(own, part), getattr(result.fit.rounded[name], part)
            assert (one is None and other is None) or (one.dtype == other.dtype and np.array_equal(one, other)), (name, part)
    assert data == bytes(pack(found(), CONDITIONS)), "the same run writes the same bytes"
    assert len(data) < fit_file.most_bytes(GRAPH)


def test_a_run_without_weights_of_its_own_comes_back():
    """TensorRT's own calibrator: the scales are the cache's."""
    result = Packed(bytes(pack(Found("entropy", Fit({}), fp16_fallback={"head": "r"}), {}))).unpack(GRAPH)
    assert result == Found("entropy", Fit({}), fp16_fallback={"head": "r"})


# ---- not what we wrote


def members(**changes):
    """The members as .npy bytes, some of them another; None leaves one out."""
    with zipfile.ZipFile(io.BytesIO(bytes(pack(found(), CONDITIONS)))) as archive:
        stored = {entry.filename.removesuffix(".npy"): archive.read(entry) for entry in archive.infolist()}
    return {name: data for name, data in {**stored, **changes}.items() if data is not None}


def zipped(parts, compression=zipfile.ZIP_STORED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, data in parts.items():
            archive.writestr(f"{name}.npy", data)
    return stream.getvalue()


def npy(array, **options):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array), **options)
    return stream.getvalue()


def declared(shape, descr="<f8", data=b""):
    """A .npy that says it is of this shape and type."""
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}, }}"
    header += " " * (-(len(header) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data


def about(**changes):
    stored = json.loads(np.lib.format.read_array(io.BytesIO(members()["about"])).tobytes())
    return npy(np.frombuffer(json.dumps({**stored, **changes}).encode(), np.uint8))


def test_members_that_are_rebuilt_unchanged_are_read():
    """The helpers above make files that are good but for what a case changes."""
    assert Packed(zipped(members(about=about()))).unpack(GRAPH).method == "mse"


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "not a zip file"),
        (b"\x93NUMPY" + bytes(100), "not a zip file"),
        (bytes(pack(found(), CONDITIONS))[:-200], "not a zip file"),
        (zipped(members(), zipfile.ZIP_DEFLATED), "compressed"),
        (zipped({"bomb": bytes(2**24)}, zipfile.ZIP_DEFLATED), "compressed"),
        (zipped(members(scales=declared((2**40,)))), "shape (1099511627776,)"),
        (zipped(members(scales=declared((2**62, 4)))), "shape"),
        (zipped(members(scales=declared((-3,), data=bytes(24)))), "shape (-3,)"),
        (zipped(members(scales=declared((-1, -3), data=bytes(24)))), "shape (-1, -3)"),
        (zipped(members(scales=npy(np.array([None]), allow_pickle=True))), "object"),
        (zipped(members(scales=declared((3,), "|O", bytes(24)))), "object"),
        (zipped(members(scales=declared((3,), ">f8", bytes(24)))), "an array of >f8"),
        (zipped(members(scales=declared((1,), [("a", "<f8"), ("b", "<f8")], bytes(16)))), "an array of"),
        (zipped(members(scales=npy(np.ones((2, 2), order="F")))), "an array of float64"),
        (zipped(members(scales=b"no array")), "magic"),
        (zipped(members(scales=b"")), "damaged"),
        (zipped(members(scales=npy(np.ones(3), version=(2, 0)))), "version"),
        (zipped(members(scales=declared((3, ")"), data=bytes(24)))), "shape is not valid"),
        (zipped(members(scales=b"\x93NUMPY\x01\x00\x02\x00{(")), "EOF in multi-line statement"),
        (zipped(members(scales=b"\x93NUMPY\x01\x00\x02\x00{)")), "parse header"),
        (zipped(members(about=None)), "about"),
        (zipped(members(about=npy(np.frombuffer(b"[" * 10**5, np.uint8)))), "nested"),
        (zipped(members(about=npy(np.frombuffer(b"[1]", np.uint8)))), "damaged"),
        (zipped(members(about=npy(np.frombuffer(b'{"format": 1}', np.uint8)))), "conditions"),
        (zipped(members(about=about(conditions=5))), "damaged"),
    ],
)
def test_damaged_and_hostile_files(data, message):
    with pytest.raises(ValueError, match="it is damaged") as caught:
        Packed(data)
    assert message in str(caught.value)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_bytes_are_changed_a_file_is_read_or_refused(seed):
    """Headers of .npy are Python literals: characters that mean something there find more than any others."""
    draw, stored = random_module.Random(seed), members()
    for name in ("about", "scales", "weights_0", "factor_0"):
        data = bytearray(stored[name])
        for _ in range(draw.choice((1, 2, 5))):
            data[draw.randrange(128)] = draw.choice((draw.randrange(256), *b"0123456789-,()[]{}\"' \n\\L#"))
        with contextlib.suppress(ValueError):
            Packed(zipped({**stored, name: bytes(data)})).unpack(GRAPH)


def test_two_members_of_one_name():
    stream = io.BytesIO(zipped(members()))
    with zipfile.ZipFile(stream, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("scales.npy", members()["scales"])
    with pytest.raises(ValueError, match="two members of one name"):
        Packed(stream.getvalue())


def test_members_that_claim_the_same_bytes():
    """Entries of the directory that all point to one large member: as many times its size, were they all read."""
    data = bytearray(zipped({"a": bytes(50_000), "b": b""}))
    first, second = (data.rindex(b"PK\x01\x02", 0, end) for end in (data.rindex(b"PK\x01\x02"), len(data)))
    data[second + 16 : second + 28] = data[first + 16 : first + 28]  # checksum and sizes
    data[second + 42 : second + 46] = data[first + 42 : first + 46]  # place
    with pytest.raises(ValueError, match="members overlap"):
        Packed(bytes(data))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"scales": npy(np.float32([1, 1, 1]))}, "scales is float32"),
        ({"scales": npy(np.ones(2))}, "scales is float64 [2]"),
        ({"scales": npy(np.float64([1, 0, 1]))}, "not above 0"),
        ({"scales": npy(np.float64([1, np.inf, 1]))}, "not above 0"),
        ({"scales": npy(np.float64([1, 1e-60, 1]))}, "not above 0"),
        ({"about": about(scales=["x", "r1", "elsewhere"])}, "unknown tensors"),
        ({"about": about(scales=["x", "r1", ["r2"]])}, "unhashable"),
        ({"about": about(scales=3)}, "does not fit"),
        ({"others": npy(np.float64([1, np.nan]))}, "not above 0"),
        ({"about": about(others=["c1"])}, "others is float64 [2]"),
        ({"about": about(fitted={"stem_relu": [0, False], "head": [1, False]})}, "'stem_relu' is no layer"),
        ({"about": about(fitted=["stem", "head"])}, "does not fit"),
        ({"about": about(holds=3)}, "does not fit"),
        ({"about": about(given_up={"elsewhere": "r"})}, "unknown: ['elsewhere']"),
        ({"about": about(fitted={"stem": [0, True]})}, "unknown: ['weights_1'"),
        ({"about": about(fitted={"stem": [0, True], "head": [0, False]})}, "'head' has the weights of another layer"),
        ({"about": about(fitted={"stem": [[0], True]})}, "unhashable"),
        ({"about": about(fitted={"stem": True})}, "does not fit"),
        ({"extra": npy(np.ones(3))}, "unknown: ['extra']"),
        ({"weights_0": None}, "weights_0"),
        ({"weights_0": npy(np.zeros((16, 3, 3, 3), np.uint8))}, "weights_0 is uint8"),
        ({"weights_0": npy(np.zeros((3, 16, 3, 3), np.int8))}, "weights_0 is int8 [3, 16, 3, 3]"),
        ({"weight_scales_0": npy(np.float32(1))}, "weight_scales_0 is float32 []"),
        ({"weight_scales_0": npy(np.full(16, np.nan, np.float32))}, "not above 0"),
        ({"weight_scales_1": npy(-np.ones(4, np.float32))}, "not above 0"),
        ({"bias_0": npy(np.ones(1, np.float32))}, "bias_0 is float32 [1]"),
        ({"bias_0": npy(np.full(16, np.inf, np.float32))}, "not finite"),
        ({"factor_1": npy(np.ones(16, np.float32))}, "factor_1 is float32"),
        ({"shift_0": None}, "shift_0"),
    ],
)
def test_contents_that_do_not_fit_the_graph(changes, message):
    with pytest.raises(ValueError, match="it does not fit the model") as caught:
        Packed(zipped(members(**changes))).unpack(GRAPH)
    assert message in str(caught.value)


def test_weights_that_layers_share_are_stored_once_and_shared_again():
    nodes = [node("Conv", "x w", "a", "one"), node("Conv", "a w", "c", "two"), node("Conv", "c v", "y", "other")]
    graph = Graph.from_model(
        model(nodes, {"x": [1, 64, 4, 4]}, {"y": None}, {"w": random(64, 64, 3, 3), "v": random(64, 64, 3, 3, seed=1)})
    )
    weights, scales = quantize_weights(graph.weights["w"], 0, half=True)
    rounded = {"one": Rounded(weights, scales, random(64)), "two": Rounded(weights, scales, random(64, seed=1))}
    rounded["other"] = Rounded(*quantize_weights(graph.weights["v"], 0, half=True), None)
    data = bytes(pack(Found("mse", Fit({"x": 0.1}, rounded)), {}))
    assert len(data) < 2.5 * weights.nbytes
    result = Packed(data).unpack(graph).fit.rounded
    assert result["one"].weights is result["two"].weights and np.array_equal(result["two"].weights, weights)
    assert np.array_equal(result["two"].bias, rounded["two"].bias) and result["other"].weights is not result["one"].weights
    swapped = graph.copy()
    for layer in swapped.nodes:
        layer.input[1] = {"one": "w", "two": "v", "other": "v"}[layer.name]
    with pytest.raises(ValueError, match="'two' has the weights of another layer"):
        Packed(data).unpack(swapped)
