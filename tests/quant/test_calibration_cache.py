"""quant/calibration_cache.py: TensorRT's own text, bit for bit, and the side file that says what a cache was made from."""

import hashlib
import json
import struct
from dataclasses import replace

import pytest
from helpers import refused

from onnx2trt.base.errors import ExitCode
from onnx2trt.quant import calibration_cache
from onnx2trt.quant.calibration_cache import Cache, Identity, check_identity, hash_files, read, side_file, side_text, to_text, without_zeros

# The beginning of a cache that TensorRT 10.6 wrote for a text detector.
WRITTEN_BY_TENSORRT = """\
TRT-100600-EntropyCalibration2
x: 3c010a14
batch_norm_67.tmp_2: 3c9d4751
depthwise_conv2d_0.tmp_0: 3d1089a1
mobile_one_block_0.w_0_output: 3bf36971
ONNXTRT_Broadcast_output: 3bf36971
p2o.Mul.1: 3d0852cb
mobile_one_block_0.w_1_output: 3b8225fd
ONNXTRT_Broadcast_1_output: 3b8225fd
p2o.Add.3: 3d23cdc6
p2o.helper.constant.125_output: 3cc18f1e
ONNXTRT_Broadcast_3_output: 3cc18f1e
p2o.Add.5: 3d8607ce
p2o.Clip.1: 3d418f1e
p2o.Mul.3: 3e1e82a5
p2o.helper.constant.122_output: 3d418f1e
ONNXTRT_Broadcast_5_output: 3d418f1e
hardswish_58.tmp_0: 3cd358dd
whswish_b_1.w_0_output: 3b75db94
ONNXTRT_Broadcast_7_output: 3b75db94
p2o.Mul.5: 3c4956cb
whswish_b_1.w_1_output: 387a2cd6
ONNXTRT_Broadcast_9_output: 387a2cd6
p2o.Add.7: 3c511ef3
conv2d_451.tmp_0: 3d3aa52e
mobile_one_block_1.w_0_output: 3c7540d5
ONNXTRT_Broadcast_11_output: 3c7540d5
p2o.Mul.7: 3db15ea5
mobile_one_block_1.w_1_output: 3bcec3f8
ONNXTRT_Broadcast_13_output: 3bcec3f8
"""
HEADER = "TRT-100600-EntropyCalibration2\n"
GOOD = HEADER + "x: 3c010a14\n"
IDENTITY = Identity("model", "data", 3, {"size": [32, 24], "mean": [0.485, 0.0]}, "auto", "mse")


def put(tmp_path, text, name: str = "a.cache") -> str:
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape"))
    return str(tmp_path / name)


def put_ours(tmp_path, identity: Identity = IDENTITY) -> str:
    path = put(tmp_path, GOOD)
    put(tmp_path, side_text(GOOD, identity), "a.cache.json")
    return path


# ---- the text


def test_a_cache_of_tensorrt_comes_back_bit_for_bit(tmp_path):
    cache = read(put(tmp_path, WRITTEN_BY_TENSORRT))
    assert (cache.version, cache.algorithm, cache.identity) == ("100600", "EntropyCalibration2", None)
    assert len(cache.scales) == 29
    assert cache.scales["x"] == struct.unpack(">f", bytes.fromhex("3c010a14"))[0] == pytest.approx(1 / 127, rel=1e-3)
    assert to_text(cache.scales, "entropy") == WRITTEN_BY_TENSORRT


@pytest.mark.parametrize("scale", [1.0, 1e-45, 3.4e38, 0.1, 2.0**-126])
def test_a_scale_is_the_nearest_float32(tmp_path, scale):
    expected = struct.unpack(">f", struct.pack(">f", scale))[0]
    assert read(put(tmp_path, to_text({"x": scale}, "entropy"))).scales == {"x": expected}


@pytest.mark.parametrize(
    ("method", "header"),
    [
        ("entropy", "TRT-100600-EntropyCalibration2"),
        ("minmax", "TRT-100600-MinMaxCalibration"),
        ("mse", "TRT-100600-EntropyCalibration2"),
        ("percentile", "TRT-100600-EntropyCalibration2"),
    ],
)
def test_header_of_a_method(method, header):
    assert to_text({"x": 1.0}, method).splitlines() == [header, "x: 3f800000"]


def test_header_of_another_version():
    assert to_text({"x": 1.0}, "entropy", "8601").startswith("TRT-8601-EntropyCalibration2\n")


@pytest.mark.parametrize("version", ["8601", "100600", "101501"])
def test_versions_that_are_read(tmp_path, version):
    cache = read(put(tmp_path, f"TRT-{version}-MinMaxCalibration\nx: 3c010a14\n"))
    assert (cache.version, cache.algorithm) == (version, "MinMaxCalibration")


NAMES = ["image:0", "a: b", "a : b: c", " leading", "trailing ", "图", "tab\there", "\u2028", "surrogate\udcff", "x: 3c010a14"]


@pytest.mark.parametrize("name", NAMES)
def test_names_come_back_as_they_are(tmp_path, name):
    assert read(put(tmp_path, to_text({name: 0.5, "y": 0.25}, "entropy"))).scales == {name: 0.5, "y": 0.25}


@pytest.mark.parametrize(
    "scales",
    [{"x": 0.0}, {"x": -1.0}, {"x": float("nan")}, {"x": float("inf")}, {"x": 1e-50}, {"a\nb": 1.0}, {"a\rb": 1.0}],
    ids=repr,
)
def test_what_cannot_be_read_back_is_not_written(scales):
    with pytest.raises(ValueError, match="scale"):
        to_text(scales, "entropy")


@pytest.mark.parametrize("scales", [{"x": 1e39}, {"": 1.0}], ids=repr)
def test_what_cannot_be_read_back_is_not_written_either(scales):
    with pytest.raises(ValueError, match="scale"):
        to_text(scales, "entropy")


@pytest.mark.parametrize(
    "text",
    [GOOD.replace("\n", "\r\n"), GOOD.rstrip("\n"), GOOD + "\n\n", HEADER + "\nx: 3C010A14\n", "  " + GOOD],
    ids=["CRLF", "no last line end", "empty lines", "upper case", "blanks before the header"],
)
def test_harmless_differences_of_form(tmp_path, text):
    assert read(put(tmp_path, text)).scales == read(put(tmp_path, GOOD, "plain")).scales


DAMAGED = [  # text, line, fragment
    (HEADER + "x: 7fc00000\n", 2, "'x' is nan"),
    (HEADER + "x: 7f800000\n", 2, "'x' is inf"),
    (HEADER + "x: ff800000\n", 2, "'x' is -inf"),
    (HEADER + "x: 00000000\n", 2, "'x' is 0.0; it must be above 0"),
    (HEADER + "x: 80000000\n", 2, "'x' is -0.0"),
    (HEADER + "x: bc010a14\n", 2, "'x' is -0.0078"),
    (GOOD + "y: 3c010g14\n", 3, "'y: 3c010g14' is not"),
    (GOOD + "y: 3c01\n", 3, "'y: 3c01' is not"),
    (GOOD + "y: 3c010a14ff\n", 3, "not 'tensor: 8 hexadecimal digits'"),
    (GOOD + "y: 0x3c010a\n", 3, "not 'tensor"),
    (GOOD + "y 3c010a14\n", 3, "not 'tensor"),
    (GOOD + "y:3c010a14\n", 3, "not 'tensor"),
    (GOOD + ": 3c010a14\n", 3, "not 'tensor"),
    (GOOD + "y: 3c010a14 \n", 3, "not 'tensor"),
    (GOOD + "y: ３c010a14\n", 3, "not 'tensor"),
    (GOOD + "x: 3c010a15\n", 3, "'x' has a scale already"),
    (HEADER, 1, "no scales below the header"),
    ("TRT-100600-EntropyCalibration2", 1, "no scales below the header"),
    ("", 1, "'' is no header"),
    ("x: 3c010a14\n", 1, "'x: 3c010a14' is no header such as TRT-100600-EntropyCalibration2"),
    ("TRT-EntropyCalibration2\nx: 3c010a14\n", 1, "is no header"),
    ("\n" + GOOD, 1, "is no header"),
    (b"\x7fELF\x00\xff\xfe" * 50, 1, "is no header"),
    (HEADER.encode() + b"\xff\x00\xfe\n", 2, "not 'tensor"),
]


@pytest.mark.parametrize(("text", "line", "fragment"), DAMAGED, ids=[fragment for _, _, fragment in DAMAGED])
def test_damage_is_refused_with_its_line(tmp_path, text, line, fragment):
    path = put(tmp_path, text)
    with refused(ExitCode.CALIBRATION, f"calibration cache {path}, line {line}: ", fragment, hint="delete it"):
        read(path)


@pytest.mark.parametrize("size", range(1, len(HEADER + "x: 3c010a14\n") - 1))
def test_a_cache_that_is_cut_off_is_never_taken_for_a_whole_one(tmp_path, size):
    with refused(ExitCode.CALIBRATION, "line"):
        read(put(tmp_path, GOOD[:size]))


def test_tensors_that_were_always_zero_are_left_out_of_what_tensorrt_wrote():
    text = HEADER + "a: 00000000\nx: 3c010a14\nb: 0: 00000000\ny: 00000001\nz: 0000000\nw: 80000000\n"
    kept, dropped = without_zeros(text)
    assert dropped == ("a", "b: 0")
    assert kept == HEADER + "x: 3c010a14\ny: 00000001\nz: 0000000\nw: 80000000\n"
    assert without_zeros(WRITTEN_BY_TENSORRT) == (WRITTEN_BY_TENSORRT, ())


def test_what_is_no_file_or_too_large(tmp_path, monkeypatch):
    for path in (tmp_path, tmp_path / "no"):
        with refused(ExitCode.CALIBRATION, str(path), "regular file"):
            read(str(path))
    monkeypatch.setattr(calibration_cache, "LARGEST_FILE", len(GOOD) - 1)
    with refused(ExitCode.CALIBRATION, "sensible size"):
        read(put(tmp_path, GOOD))


# ---- the side file


def test_a_side_file_gives_the_identity_back(tmp_path):
    path = put_ours(tmp_path)
    assert side_file(path) == path + ".json"
    assert read(path) == Cache(path, "100600", "EntropyCalibration2", read(path).scales, IDENTITY)


def test_the_side_file_belongs_to_the_bytes_as_they_stand(tmp_path):
    crlf = GOOD.replace("\n", "\r\n")
    path = put(tmp_path, crlf)
    put(tmp_path, side_text(crlf, IDENTITY), "a.cache.json")
    assert read(path).identity == IDENTITY
    put(tmp_path, GOOD)
    assert read(path).identity is None


def test_side_text_is_json_with_the_hash_of_the_cache():
    record = json.loads(side_text(GOOD, IDENTITY))
    assert record["schema_version"] == 1 and record["method"] == "auto" and record["chosen"] == "mse"
    assert record["cache_sha256"] == hashlib.sha256(GOOD.encode()).hexdigest()


@pytest.mark.parametrize(
    "tamper",
    [
        lambda record: {**record, "cache_sha256": "0" * 64},
        lambda record: {**record, "schema_version": 2},
        lambda record: {key: value for key, value in record.items() if key != "model_sha256"},
        lambda record: {key: value for key, value in record.items() if key != "cache_sha256"},
        lambda record: [record],
        lambda record: None,
    ],
    ids=["other cache", "other schema", "key missing", "no hash", "list", "null"],
)
def test_a_side_file_that_does_not_fit_is_none(tmp_path, tamper):
    path = put_ours(tmp_path)
    put(tmp_path, json.dumps(tamper(json.loads(side_text(GOOD, IDENTITY)))), "a.cache.json")
    assert read(path).identity is None


def test_silent_tensors_come_back_and_older_side_files_have_none(tmp_path):
    identity = replace(IDENTITY, silent=("dead", "a: b"))
    assert read(put_ours(tmp_path, identity)).identity == identity
    record = json.loads(side_text(GOOD, IDENTITY))
    del record["silent"]
    put(tmp_path, json.dumps(record), "a.cache.json")
    assert read(str(tmp_path / "a.cache")).identity == IDENTITY


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe"])
def test_a_side_file_that_is_no_json_is_none(tmp_path, text):
    path = put_ours(tmp_path)
    put(tmp_path, text, "a.cache.json")
    assert read(path).identity is None


def test_a_cache_changed_after_its_side_file_has_none(tmp_path):
    path = put_ours(tmp_path)
    put(tmp_path, GOOD.replace("3c010a14", "3c010a15"))
    assert read(path).identity is None


def test_a_missing_side_file_is_none(tmp_path):
    assert read(put(tmp_path, GOOD)).identity is None


# ---- staleness


def check(then: Identity | None, now: Identity, accept: bool = False) -> str:
    return check_identity(Cache("c.cache", "100600", "EntropyCalibration2", {"x": 1.0}, then), now, accept)


FRESH = [
    IDENTITY,
    replace(IDENTITY, data_sha256=None, samples=None, preprocessing=None),  # no images given: nothing to compare
    replace(IDENTITY, method="mse"),  # asked for by name what auto chose
    replace(IDENTITY, preprocessing=None),
    replace(IDENTITY, samples=99),  # the hash of the data says it
]
STALE = [  # what is now, fragment
    (replace(IDENTITY, model_sha256="other"), "another model"),
    (replace(IDENTITY, data_sha256="other"), "other calibration files"),
    (replace(IDENTITY, preprocessing={"size": [32, 24], "mean": [0.5, 0.0]}), "another preprocessing"),
    (replace(IDENTITY, method="entropy"), "method mse"),
    (replace(IDENTITY, model_sha256="other", data_sha256="other"), "another model and other calibration files"),
]


@pytest.mark.parametrize("now", FRESH)
def test_a_fresh_cache_is_used_without_a_word(now):
    assert check(IDENTITY, now) == ""


@pytest.mark.parametrize(("now", "fragment"), STALE)
def test_a_stale_cache_is_refused_with_what_has_changed(now, fragment):
    with refused(ExitCode.CALIBRATION, "c.cache is stale", fragment, hint="--accept-stale-cache"):
        check(IDENTITY, now)


@pytest.mark.parametrize(("now", "fragment"), STALE)
def test_accepting_a_stale_cache_is_said(now, fragment):
    warning = check(IDENTITY, now, accept=True)
    assert fragment in warning and "--accept-stale-cache" in warning


def test_a_method_is_asked_for_by_name_without_auto():
    then = replace(IDENTITY, method="entropy", chosen=None)
    assert check(then, replace(IDENTITY, method="entropy")) == check(then, replace(IDENTITY, method="auto")) == ""
    with refused(ExitCode.CALIBRATION, "method entropy"):
        check(then, replace(IDENTITY, method="minmax"))


def test_without_a_side_file_it_is_used_only_where_no_images_are_given():
    no_images = replace(IDENTITY, data_sha256=None, samples=None)
    assert "no side file" in check(None, no_images)
    with refused(ExitCode.CALIBRATION, "c.cache.json", hint="--accept-stale-cache"):
        check(None, IDENTITY)
    assert "used because of --accept-stale-cache" in check(None, IDENTITY, accept=True)


def test_the_hash_covers_names_contents_and_order_but_not_the_place(tmp_path):
    def made(folder: str, **files: bytes) -> str:
        (tmp_path / folder).mkdir()
        for name, data in files.items():
            (tmp_path / folder / name).write_bytes(data)
        return hash_files(tuple(str(tmp_path / folder / name) for name in files), str(tmp_path / folder))

    first = made("1", a=b"x", b=b"y")
    others = [made("3", a=b"x", c=b"y"), made("4", a=b"x", b=b"z"), made("5", b=b"y", a=b"x"), made("6", a=b"x"), made("7", a=b"xb", y=b"")]
    assert made("2", a=b"x", b=b"y") == first
    assert made("8", a=b"xb\0y") != first  # where one file ends and the next begins
    assert len({first, *others}) == 6
