"""report/result.py: the typed result and result.schema.json are one thing; records are read back as they were, older ones upgraded."""

import dataclasses
import json
import types
import typing
from pathlib import Path

import numpy as np
import onnx
import pytest
from command import ROOT, check_schema, onnx2trt
from models import conv_net, random

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.compare.accuracy import Accuracy
from onnx2trt.report.result import PARTS, ROWS, SCHEMA_VERSION, Failure, Precision, Result, to_json

SCHEMA = json.loads((ROOT / "onnx2trt" / "report" / "result.schema.json").read_text())
VERSION_1 = json.loads((Path(__file__).parents[1] / "data" / "result_version_1.json").read_text())
NESTED = {**PARTS, **ROWS}  # field of the result -> dataclass, of it or of its entries


# ---- the dataclasses and the schema


def described(name: str | None) -> dict:
    """What the schema says of the object that a field holds, or its entries; None: of the result itself."""
    if name is None:
        return SCHEMA
    found = SCHEMA["properties"][name].get("items", SCHEMA["properties"][name])
    return SCHEMA["$defs"][found["$ref"].removeprefix("#/$defs/")] if "$ref" in found else found


def fields_of(cls: type) -> set[str]:
    return {field.name for field in dataclasses.fields(cls)}


CLASSES = {None: Result, **NESTED}


@pytest.mark.parametrize("name", CLASSES)
def test_every_field_is_a_property_and_every_property_a_field(name):
    assert set(described(name)["properties"]) == fields_of(CLASSES[name]) and described(name)["additionalProperties"] is False


def left_out(cls: type) -> set[str]:
    """The fields that the JSON does not have where they are None."""
    blank = cls(**dict.fromkeys(fields_of(cls)))
    name = next(field for field, part in NESTED.items() if part is cls)
    record = Result(**{name: [blank] if name in ROWS else blank}).to_dict()[name]
    return fields_of(cls) - set(record[0] if name in ROWS else record)


@pytest.mark.parametrize("name", NESTED)
def test_what_is_always_there_is_required_and_the_rest_is_not(name):
    assert set(described(name)["required"]) == fields_of(NESTED[name]) - left_out(NESTED[name])


def test_the_result_always_has_all_its_keys():
    assert set(SCHEMA["required"]) == set(Result().to_dict()) == fields_of(Result)


JSON_TYPES = {int: "integer", str: "string", bool: "boolean", float: "number", list: "array", dict: "object", type(None): "null"}


def types_by_schema(node: dict) -> set[str]:
    if "$ref" in node:
        return types_by_schema(SCHEMA["$defs"][node["$ref"].removeprefix("#/$defs/")])
    if "oneOf" in node:
        return set().union(*map(types_by_schema, node["oneOf"]))
    if "const" in node or "enum" in node:
        return {JSON_TYPES[type(value)] for value in node.get("enum", [node.get("const")])}
    return {node["type"]} if isinstance(node["type"], str) else set(node["type"])


def types_by_annotation(annotation) -> set[str]:
    if isinstance(annotation, types.UnionType):
        return set().union(*map(types_by_annotation, typing.get_args(annotation)))
    plain = typing.get_origin(annotation) or annotation
    return {"object" if dataclasses.is_dataclass(plain) else JSON_TYPES[plain]}


# of --inspect: null there, where it has loaded, and left out everywhere else
NULL_ALL_THE_SAME = {("engine", "not_loaded_because")}


@pytest.mark.parametrize(
    "name, field", [(name, field) for name, cls in CLASSES.items() for field in sorted(fields_of(cls))], ids=lambda part: part or "result"
)
def test_both_say_the_same_of_its_type(name, field):
    cls = CLASSES[name]
    found = types_by_annotation(typing.get_type_hints(cls)[field])
    if name is not None and field in left_out(cls) and (name, field) not in NULL_ALL_THE_SAME:
        found.remove("null")
    assert types_by_schema(described(name)["properties"][field]) == found


@pytest.mark.parametrize("name", NESTED)
def test_parts_and_rows_are_what_the_annotations_say(name):
    annotation = typing.get_type_hints(Result)[name]
    if name in ROWS:
        assert annotation == list[ROWS[name]]
    else:
        assert PARTS[name] in (annotation, *typing.get_args(annotation))


def test_no_typed_part_is_read_as_a_mere_dict():
    mentioned = {
        name
        for name, annotation in typing.get_type_hints(Result).items()
        if any(map(dataclasses.is_dataclass, (annotation, *typing.get_args(annotation))))
    }
    assert mentioned == set(NESTED)


# ---- real results

FLAGS = {
    "fp16": ("--onnx", "net.onnx", "--test-image", "data/0.npy"),
    "compare": ("--onnx", "net.onnx", "--compare", "--calibration-dir", "data", "--max-accuracy-drop", "20", "-o", "int8.engine"),
    "int8": ("--onnx", "net.onnx", "--precision", "int8", "--calibration-dir", "data", "--max-accuracy-drop", "20"),
    "planned": ("--onnx", "net.onnx", "--dry-run"),
    "inspected": ("--inspect", "net.engine"),
    "failed": ("--onnx", "net.onnx", "--precision", "int8", "--calibration-dir", "nowhere"),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Name -> the text of --json."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    folder = tmp_path_factory.mktemp("results")
    onnx.save(conv_net(), folder / "net.onnx")
    (folder / "data").mkdir()
    for index in range(4):
        np.save(folder / "data" / f"{index}.npy", random(1, 3, 16, 16, seed=index))
    for name, flags in FLAGS.items():
        done = onnx2trt(folder, *flags, "--json", f"{name}.json")
        assert done.code == (5 if name == "failed" else 0), done.stderr
    return {name: (folder / f"{name}.json").read_text() for name in FLAGS}


@pytest.mark.parametrize("name", FLAGS)
def test_a_result_is_read_back_as_it_was(results, name):
    record = json.loads(results[name])
    check_schema(record)
    found = Result.from_dict(record)
    assert found.to_dict() == record and to_json(found) == results[name], "down to the order of its keys"
    assert Result.from_dict(found.to_dict()) == found
    for part, cls in PARTS.items():
        assert isinstance(getattr(found, part), (cls, type(None)))
    for part, cls in ROWS.items():
        assert all(isinstance(row, cls) for row in getattr(found, part))


def test_they_have_something_of_everything(results):
    """Otherwise, what precedes would prove little. Latency and timing cache take a GPU: the schema alone is held against them."""
    found = [Result.from_dict(json.loads(text)) for text in results.values()]
    seen = {name for name in NESTED for result in found if getattr(result, name)}
    assert seen >= {"error", "model", "environment", "precision", "calibration", "accuracy", "variants", "engine"}


# ---- older records


def test_a_record_of_version_1_is_upgraded():
    found = Result.from_dict(VERSION_1).to_dict()
    check_schema(found)
    assert VERSION_1["schema_version"] == 1 and found["schema_version"] == SCHEMA_VERSION == 2
    assert found["precision"]["fallback"] == VERSION_1["precision"]["kept_high"] and len(found["precision"]["fallback"]) == 2
    assert found["plan"]["keep_layers"] is VERSION_1["plan"]["hold_layers"] is True
    assert found["timings_s"]["equalize"] == VERSION_1["timings_s"]["balance"] > 0
    renamed = {"schema_version", "precision", "plan", "timings_s"}
    assert {key: found[key] for key in VERSION_1.keys() - renamed} == {key: VERSION_1[key] for key in VERSION_1.keys() - renamed}
    assert not {"kept_high", "hold_layers", "balance"} & {*found["precision"], *found["plan"], *found["timings_s"]}
    assert "kept_high" in VERSION_1["precision"], "what is read stays as it was"


@pytest.mark.parametrize("missing", ["precision", "plan"])
def test_one_that_did_not_come_so_far_is_upgraded_too(missing):
    assert getattr(Result.from_dict({**VERSION_1, missing: None}), missing) is None


@pytest.mark.parametrize("version", [0, 3, 99, "2", None, [2]])
def test_unknown_versions_are_refused(version):
    with pytest.raises(ValueError, match="schema_version"):
        Result.from_dict({**VERSION_1, "schema_version": version})


@pytest.mark.parametrize(
    "record",
    [
        {},
        [],
        None,
        {key: value for key, value in VERSION_1.items() if key != "accuracy"},
        {**VERSION_1, "precision": [1]},
        {**VERSION_1, "model": {"path": "net.onnx"}},
        {**VERSION_1, "engine": {**VERSION_1["engine"], "colour": "red"}},
        {**VERSION_1, "accuracy": [{}]},
        {**VERSION_1, "accuracy": 1},
        {**VERSION_1, "variants": None},
    ],
    ids=["empty", "list", "null", "no accuracy", "precision", "model", "engine", "row", "no rows", "null rows"],
)
def test_what_is_no_result_is_refused(record):
    with pytest.raises(ValueError, match="not as a conversion writes it"):
        Result.from_dict(record)


# ---- how it is filled


def test_only_what_a_result_has_can_be_taken():
    result = Result()
    result.take(status="planned", exit_code=0)
    assert (result.status, result.exit_code) == ("planned", 0)
    with pytest.raises(AttributeError, match="'speed'"):
        result.take(speed=9)


def test_a_failure_keeps_what_was_found_before_it():
    result, error = Result(exit_code=0, status="validated"), ConversionError("the reason", hint="the way", code=ExitCode.BUILD)
    error.found = {"precision": Precision("int8", tried=[])}
    result.fail(error)
    assert (result.status, result.exit_code, result.error) == ("failed", 6, Failure("the reason", "the way"))
    assert result.precision.tried == [] and type(result.exit_code) is int


def test_a_variant_has_what_all_have_in_common_and_the_chosen_one_is_adopted():
    whole = Result(model="model", plan={"precision": "int8"}, preprocessing={"size": [1, 1]}, warnings=["of the whole"])
    one = whole.variant()
    assert (one.model, one.plan, one.preprocessing, one.environment) == (whole.model, whole.plan, whole.preprocessing, whole.environment)
    assert one.warnings == [] and one.status == "failed"
    one.take(status="validated", warnings=["of one"])
    whole.adopt(one)
    assert whole == one and whole is not one


def accuracy(drop: float) -> Accuracy:
    return Accuracy("gpu", "images", "y", "noise", drop, None, 20.0, 0.5, 0, 1, None, None, False)


def test_json_has_no_number_that_json_does_not_have():
    with pytest.raises(ValueError):
        to_json(Result(accuracy=[accuracy(float("nan"))]))
    assert json.loads(to_json(Result(accuracy=[accuracy(0.5)])))["accuracy"][0]["drop_percent"] == 0.5


def test_names_that_are_no_text_survive():
    name = b"m\xff.onnx".decode(errors="surrogateescape")
    text = to_json(Result(warnings=[name]))
    assert text.isascii() and Result.from_dict(json.loads(text)).warnings == [name]
