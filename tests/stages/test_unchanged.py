"""stages/unchanged.py through the command, by --skip-unchanged: real TensorRT-RTX engines, and every kind of change."""

import json
import os
import shutil

import cv2
import numpy as np
import onnx
import pytest
from command import check_schema, onnx2trt
from models import conv_net

from onnx2trt.conversion.former import read_former
from onnx2trt.report.result import Result, intact

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")

FLAGS = ("--onnx", "net.onnx", "--test-image", "test.png", "--calibration-dir", "images", "--calibration-samples", "6")
INT8 = (*FLAGS, "--precision", "int8", "--max-accuracy-drop", "20", "--quantization-effort", "fast", "--calibration-cache", "c.cache")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with an FP16 engine, made from a model with external data, images and a test image."""
    folder = tmp_path_factory.mktemp("built")
    onnx.save(conv_net(), folder / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    (folder / "images").mkdir()
    pixels = np.random.default_rng(0)
    for index in range(12):
        cv2.imwrite(str(folder / "images" / f"{index}.png"), pixels.integers(0, 256, (20, 24, 3), np.uint8))
    cv2.imwrite(str(folder / "test.png"), pixels.integers(0, 256, (20, 24, 3), np.uint8))
    done = onnx2trt(folder, *FLAGS, "--save-onnx", "saved.onnx")
    assert done.code == 0, done.stderr
    return folder


@pytest.fixture
def folder(built, tmp_path):
    return shutil.copytree(built, tmp_path / "copy")


def skip(folder, *flags):
    return onnx2trt(folder, *(flags or FLAGS), "--skip-unchanged")


def why(folder, *flags) -> str:
    """The one line that says why nothing is skipped; --dry-run spares the build."""
    done = skip(folder, *(flags or FLAGS), "--dry-run")
    assert done.code == 0 and "unchanged:" not in done.stderr, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("not skipped: ")]
    assert len(lines) == 1, done.stderr
    return lines[0]


def edit(path, change) -> None:
    """Change a result, and seal it as a run would have that had this result."""
    record = json.loads(path.read_text())
    change(record)
    try:
        result = Result.from_dict(record)
        result.seal()
        record = result.to_dict()
    except (ValueError, TypeError):  # it is no result any more
        pass
    path.write_text(json.dumps(record))


def places(value, path=()):
    """Where all values of a JSON object are, the containers themselves included."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in inner:
        yield from places(part, (*path, name))


def test_whatever_is_damaged_in_a_side_file_is_seen(folder):
    """Every value of it, replaced by others of every type; no --skip-unchanged takes it, and none fails on it."""
    side = folder / "net.engine.json"
    record = json.loads(side.read_text())
    assert json.loads(json.dumps(record)) == record and intact(record)
    chosen = np.random.default_rng(0)
    for path in list(places(record))[1:]:
        damaged = json.loads(side.read_text())
        place = damaged
        for name in path[:-1]:
            place = place[name]
        others = [value for value in (None, True, 7, -1.5, "odd", [], {}, [[1]], {"a": 1}) if value != place[path[-1]]]
        place[path[-1]] = others[chosen.integers(len(others))]
        (folder / "odd.json").write_text(json.dumps(damaged))
        former, reason = read_former(str(folder / "net.engine"), str(folder / "odd.json"))
        assert former is None and reason, path
        del place[path[-1]]
        (folder / "odd.json").write_text(json.dumps(damaged))
        assert read_former(str(folder / "net.engine"), str(folder / "odd.json"))[0] is None, path


@pytest.mark.parametrize(
    "damage",
    [
        lambda record: record.update(accuracy=None),
        lambda record: record["accuracy"][0].update(drop_percent="none"),
        lambda record: record.update(timings_s=[3]),
        lambda record: record["precision"].update(layers={"fp16": None}),
        lambda record: record.update(warnings=7),
        lambda record: record["key"].pop("result_sha256"),
        lambda record: record["key"].pop("options"),
        lambda record: record["accuracy"][0].update(drop_percent=0.0),
    ],
)
def test_the_engine_is_built_anew_where_its_side_file_was_damaged(folder, damage):
    record = json.loads((folder / "net.engine.json").read_text())
    damage(record)
    (folder / "net.engine.json").write_text(json.dumps(record))
    done = skip(folder)
    assert done.code == 0 and "unchanged:" not in done.stderr and "not skipped: net.engine.json" in done.stderr, done.stderr
    assert done.json("net.engine.json")["skipped"] is False and "unchanged:" in skip(folder).stderr


def test_an_engine_that_was_cut_off_is_built_anew(folder):
    data = (folder / "net.engine").read_bytes()
    (folder / "net.engine").write_bytes(data[: len(data) // 2])
    done = skip(folder)
    assert done.code == 0 and "net.engine is not the file that net.engine.json speaks of" in done.stderr
    assert (folder / "net.engine").stat().st_size > len(data) // 2 and "unchanged:" in skip(folder).stderr


@pytest.fixture(scope="module")
def calibrated(built, tmp_path_factory):
    """The same with an INT8 engine, its cache and what goes with that."""
    folder = shutil.copytree(built, tmp_path_factory.mktemp("calibrated") / "copy")
    assert onnx2trt(folder, *INT8).code == 0
    return folder


@pytest.mark.parametrize("name", ["c.cache", "c.cache.json", "c.cache.fit.npz"])
@pytest.mark.parametrize("damage", ["cut off", "empty", "other bytes"])
def test_a_damaged_cache_is_made_anew(calibrated, tmp_path, name, damage):
    folder = shutil.copytree(calibrated, tmp_path / "copy")
    before = {path.name: path.read_bytes() for path in folder.glob("c.cache*")}
    data = before[name]
    (folder / name).write_bytes({"cut off": data[: len(data) // 2], "empty": b"", "other bytes": bytes(reversed(data))}[damage])
    done = skip(folder, *INT8)
    assert done.code == 0 and "unchanged:" not in done.stderr and "data of --calibration-cache" in done.stderr, done.stderr
    assert (folder / "c.cache").read_bytes() == before["c.cache"], "the same data give the same scales"
    assert f"c.cache{'.fit.npz' * name.endswith('npz')}" in done.stderr and "unchanged:" in skip(folder, *INT8).stderr


def test_a_cache_that_never_was_ours_is_not_replaced(calibrated, tmp_path):
    folder = shutil.copytree(calibrated, tmp_path / "copy")
    (folder / "c.cache.json").unlink()
    (folder / "c.cache").write_text("TRT-8601-EntropyCalibration2\nx: 3c010a14\n")
    done = skip(folder, *INT8)
    assert done.code == 5 and (folder / "c.cache").read_text().startswith("TRT-8601"), done.stderr
    assert onnx2trt(folder, *INT8).code == 5, "without --skip-unchanged damage is refused, as ever"


def test_a_report_that_was_damaged_is_written_again(folder):
    flags = (*FLAGS, "--report", "r.html")
    first = skip(folder, *flags)
    (folder / "r.html").write_text("damaged")
    again = skip(folder, *flags)
    assert first.code == again.code == 0 and "unchanged:" in again.stderr and "<html" in (folder / "r.html").read_text()[:200]


def test_nothing_is_built_again_and_the_result_is_the_former_one(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    done = skip(folder, *FLAGS, "--json", "r.json")
    assert done.code == 0 and "unchanged: net.engine (simulated)" in done.stderr and "building" not in done.stderr
    assert "unchanged, so it was not built again" in done.stdout
    result, former = done.json("r.json"), done.json("net.engine.json")
    assert result["skipped"] is True and former["skipped"] is False
    for part in ("status", "exit_code", "accuracy", "precision", "engine", "warnings", "preprocessing", "plan"):
        assert result[part] == former[part]
    assert intact(result) and {**result["key"], "result_sha256": former["key"]["result_sha256"]} == former["key"]
    assert "build" not in result["timings_s"] and "build" in former["timings_s"]
    assert {path: path.stat().st_mtime_ns for path in before if path != folder} == {p: t for p, t in before.items() if p != folder}


def test_the_warnings_are_those_of_the_engine(folder):
    flags = ("--onnx", "net.onnx", "-o", "other.engine")
    first = onnx2trt(folder, *flags).json("other.engine.json")
    assert any("ranges were measured on made-up inputs" in warning for warning in first["warnings"])
    done = skip(folder, *flags, "--json", "r.json")
    assert done.json("r.json")["skipped"] and done.json("r.json")["warnings"] == first["warnings"]


def test_json_on_stdout_carries_the_former_result(folder):
    done = skip(folder, *FLAGS, "--json", "-", "--quiet")
    result = json.loads(done.stdout)
    check_schema(result)
    assert result["skipped"] and result["status"] == "simulated" and "unchanged:" not in done.stderr


def test_a_result_written_over_the_side_file_is_good_for_the_next_run(folder):
    for _ in range(2):
        done = skip(folder, *FLAGS, "--json", "net.engine.json")
        assert done.code == 0 and done.json("net.engine.json")["skipped"] and "unchanged:" in done.stderr


def test_without_the_flag_the_engine_is_built_again(folder):
    before = (folder / "net.engine").stat().st_mtime_ns
    done = onnx2trt(folder, *FLAGS)
    assert done.code == 0 and (folder / "net.engine").stat().st_mtime_ns != before
    assert done.json("net.engine.json")["skipped"] is False


def test_what_changed_is_built_again_once(folder):
    cv2.imwrite(str(folder / "test.png"), np.full((20, 24, 3), range(3), np.uint8))
    done = skip(folder, *FLAGS, "--json", "r.json")
    assert done.code == 0 and "not skipped: changed since the engine was built: data of --test-image" in done.stderr
    assert done.json("r.json") == done.json("net.engine.json") and not done.json("r.json")["skipped"]
    assert "unchanged:" in skip(folder).stderr


def test_other_names_of_the_same_things_change_nothing(folder):
    (folder / "net.onnx").rename(folder / "other.onnx")
    for suffix in ("", ".json"):
        (folder / f"net.engine{suffix}").rename(folder / f"moved.plan{suffix}")
    (folder / "images").rename(folder / "photos")
    flags = (
        "--onnx",
        "other.onnx",
        "-o",
        "moved.plan",
        "--test-image",
        "test.png",
        "--calibration-dir",
        "photos",
        "--calibration-samples",
        "6",
    )
    done = skip(folder, *flags, "--json", "r.json", "--keep-failed", "--verbose")
    assert "unchanged: moved.plan" in done.stderr
    result = done.json("r.json")
    assert result["engine"]["path"] == "moved.plan" and result["model"]["path"] == "other.onnx"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--precision", "fp32"), "--precision (fp16 -> fp32)"),
        (("--max-accuracy-drop", "2"), "--max-accuracy-drop (1.0 -> 2.0)"),
        (("--mean", "0.5"), "--mean ([] -> [0.5])"),
        (("--calibration-samples", "5"), "--calibration-samples (6 -> 5)"),
        (("--max-batch-size", "2"), "--max-batch-size (1 -> 2)"),
        (("--gpu-arch", "89"), '--gpu-arch ([] -> ["8.9"])'),
        (("--validation-dir", "images"), "data of --validation-dir"),
        (("--calibration-cache", "c.cache"), "data of --calibration-cache"),
    ],
)
def test_an_option_that_changed_is_named(folder, flags, words):
    assert words in why(folder, *FLAGS, *flags)


def test_another_model_is_named(folder):
    model = onnx.load(folder / "net.onnx", load_external_data=False)
    model.doc_string = "another"
    onnx.save(model, folder / "net.onnx")
    assert why(folder) == "not skipped: changed since the engine was built: the model"


def test_external_data_belongs_to_the_model(folder):
    data = bytearray((folder / "net.data").read_bytes())
    data[0] ^= 1
    (folder / "net.data").write_bytes(data)
    assert why(folder).endswith(": the model")


def test_an_image_that_changed_is_data(folder):
    cv2.imwrite(str(folder / "images" / "0.png"), np.full((20, 24, 3), range(3), np.uint8))
    assert why(folder).endswith(": data of --calibration-dir")


def test_an_image_that_was_added_is_data(folder):
    shutil.copy(folder / "images" / "0.png", folder / "images" / "00.png")
    assert why(folder).endswith(": data of --calibration-dir")


def test_an_unused_image_that_accuracy_may_be_measured_on_is_data(folder):
    """Six of twelve images are samples; the others may be measured on."""
    names = sorted(path.name for path in (folder / "images").iterdir())
    from onnx2trt.data.samples import evenly_spaced

    unused = [name for name in names if name not in evenly_spaced(names, 6)]
    cv2.imwrite(str(folder / "images" / unused[0]), np.full((20, 24, 3), range(3), np.uint8))
    assert why(folder).endswith(": data of --calibration-dir")


def test_a_copy_with_other_times_is_the_same_data(folder):
    for path in (folder / "images").iterdir():
        os.utime(path, (1, 1))
    assert "unchanged:" in skip(folder).stderr


@pytest.mark.parametrize(
    ("name", "words"), [("numpy", "version of numpy (0.1 -> "), ("onnx2trt", "this tool"), ("library", "version of library (0.1")]
)
def test_another_version_is_named(folder, name, words):
    def change(result):
        result["key"]["versions"][name] = "0.1"
        result["key"]["sha256"] = "0" * 64

    edit(folder / "net.engine.json", change)
    assert words in why(folder)


def test_a_gpu_that_would_execute_the_engine_now_is_a_change(folder):
    edit(folder / "net.engine.json", lambda r: (r["key"]["versions"].update(gpu="T4 (7.5)"), r["key"].update(sha256="0" * 64)))
    assert "version of gpu (T4 (7.5) -> null)" in why(folder)


def test_a_missing_engine(folder):
    (folder / "net.engine").unlink()
    assert why(folder) == "not skipped: there is no net.engine yet"


def test_an_engine_that_was_tampered_with(folder):
    data = bytearray((folder / "net.engine").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "net.engine").write_bytes(data)
    assert why(folder) == "not skipped: net.engine is not the file that net.engine.json speaks of"


def test_the_json_of_another_engine(folder):
    done = onnx2trt(folder, *FLAGS, "--precision", "fp32", "-o", "other.engine")
    assert done.code == 0
    shutil.copy(folder / "other.engine.json", folder / "net.engine.json")
    assert why(folder) == "not skipped: net.engine is not the file that net.engine.json speaks of"


@pytest.mark.parametrize("text", [None, "", "{", "[]", "null", '{"engine": null}', "[" * 100000])
def test_a_side_file_that_is_missing_or_damaged(folder, text):
    (folder / "net.engine.json").unlink()
    if text is not None:
        (folder / "net.engine.json").write_text(text)
    assert "missing or damaged" in why(folder)


def test_a_side_file_of_another_form(folder):
    edit(folder / "net.engine.json", lambda result: result.pop("accuracy"))
    assert "does not say what net.engine was made from" in why(folder)


@pytest.mark.parametrize(
    "change", [{"key": None}, {"status": "failed"}, {"status": "planned"}, {"exit_code": 7}, {"schema_version": 99}, {"key": []}]
)
def test_a_side_file_that_does_not_vouch_for_the_engine(folder, change):
    edit(folder / "net.engine.json", lambda result: result.update(change))
    assert "does not say what net.engine was made from" in why(folder)


@pytest.mark.parametrize("damage", ["missing", "other", "never asked for"])
def test_a_prepared_model_that_is_not_there_is_made(folder, damage):
    if damage == "missing":
        (folder / "saved.onnx").unlink()
    elif damage == "other":
        (folder / "saved.onnx").write_bytes(b"other")
    else:
        edit(folder / "net.engine.json", lambda result: result.update(saved_onnx=None))
    assert "saved.onnx is missing, or not the model" in why(folder, *FLAGS, "--save-onnx", "saved.onnx")


def test_a_prepared_model_that_is_there_is_kept(folder):
    (folder / "saved.onnx").rename(folder / "elsewhere.onnx")
    assert "unchanged:" in skip(folder, *FLAGS, "--save-onnx", "elsewhere.onnx").stderr


def test_a_calibration_cache_belongs_to_the_data(folder):
    first = skip(folder, *INT8)
    assert first.code == 0 and "not skipped" in first.stderr and (folder / "c.cache").exists()
    assert "unchanged:" in skip(folder, *INT8).stderr, "what the run itself has written is no change"
    text = (folder / "c.cache").read_text()
    (folder / "c.cache").unlink()
    assert why(folder, *INT8).endswith(": data of --calibration-cache")
    (folder / "c.cache").write_text(text + "another: 3c010a14\n")
    assert "data of --calibration-cache" in onnx2trt(folder, *INT8, "--skip-unchanged", "--dry-run", "--accept-stale-cache").stderr


def test_a_refusal_of_the_machine_comes_first(folder):
    done = skip(folder, *FLAGS, "--require-execution")
    assert done.code == 4 and "unchanged:" not in done.stderr


def test_a_failed_conversion_leaves_nothing_to_skip(folder):
    for name in ("net.engine", "net.engine.json"):
        (folder / name).unlink()
    for _ in range(2):
        done = skip(folder, *FLAGS, "--metric", "noise", "--max-accuracy-drop", "0", "--layer-precisions", "*:fp16")
        assert done.code == 7 and "not skipped: there is no net.engine yet" in done.stderr


def test_a_file_that_would_block_or_cannot_be_read_stops_nobody(folder):
    os.mkfifo(folder / "images" / "pipe.png")
    os.symlink("nowhere", folder / "images" / "dangling.png")
    assert "data of --calibration-dir" in why(folder)


def test_it_is_refused_where_nothing_is_built(tmp_path):
    done = onnx2trt(tmp_path, "--validate-only", "e", "--onnx", "m", "--skip-unchanged")
    assert done.code == 2 and "--skip-unchanged cannot go with it" in done.stderr
