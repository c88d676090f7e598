"""fleet/outcome.py: states, exit code and JSON of a fleet."""

import json
import signal
from pathlib import Path

import pytest

from onnx2trt.fleet import outcome
from onnx2trt.fleet.outcome import Outcome, Record, of_result
from onnx2trt.fleet.plan_file import Target
from onnx2trt.fleet.tasks import Task
from onnx2trt.report.result import Result

SCHEMA = json.loads((Path(outcome.__file__).parent / "fleet.schema.json").read_text())
BUILT = Outcome("built", 0, "simulated", 1000, "ab" * 32, "fp16", "host", 1.5, attempts=1)


def record(*outcomes) -> Record:
    tasks = tuple(Task(f"m{i}", Target("ada"), f"/p/m{i}.onnx", f"/p/m{i}.engine", ()) for i in range(len(outcomes)))
    return Record("/p/plan.yaml", tasks, {i: one for i, one in enumerate(outcomes) if one is not None})


def read(found: Record) -> dict:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    told = json.loads(found.to_json())
    jsonschema.validate(told, SCHEMA)
    return told


def test_all_is_well():
    told = read(record(BUILT, Outcome("unchanged", 0, "validated")))
    assert told["exit_code"] == 0 and told["status"] == "done"
    assert told["counts"] == {"built": 1, "unchanged": 1, "failed": 0, "lost": 0, "not_done": 0, "planned": 0}
    assert [job["state"] for job in told["jobs"]] == ["built", "unchanged"] and told["jobs"][0]["engine"] == "/p/m0.engine"


def test_the_exit_code_is_that_of_the_first_failure_in_the_order_of_the_plan():
    found = record(BUILT, None, None, None)
    found.outcomes[3] = Outcome("failed", 3, "failed", message="no model", log=["a"])
    found.outcomes[2] = Outcome("failed", 7, "failed", message="too far off")
    found.outcomes[1] = BUILT
    told = read(found)
    assert told["exit_code"] == 7 and told["status"] == "failed" and told["counts"]["failed"] == 2


def test_what_was_lost_or_not_done_is_a_failure_of_the_machine():
    assert read(record(BUILT, None))["exit_code"] == 4
    assert read(record(Outcome("lost", 4, message="node gone", attempts=3)))["exit_code"] == 4


def test_an_interrupted_fleet_says_so_whatever_failed():
    found = record(Outcome("failed", 7), None)
    found.interrupted = signal.SIGINT
    told = read(found)
    assert told["exit_code"] == 130 and told["status"] == "interrupted" and told["jobs"][1]["state"] == "not_done"
    assert found.left() == [1]


def test_a_result_of_the_command_becomes_an_outcome():
    result = Result().to_dict()
    assert of_result({**result, "exit_code": 0, "status": "simulated", "engine": {"bytes": 5, "sha256": "x"}}).state == "built"
    assert of_result({**result, "exit_code": 0, "skipped": True}).state == "unchanged"
    failed = of_result({**result, "exit_code": 6, "error": {"message": "m", "hint": "h"}})
    assert (failed.state, failed.exit_code, failed.message, failed.hint) == ("failed", 6, "m", "h") and failed.failed


def test_the_schema_names_every_state_and_every_field():
    job = SCHEMA["properties"]["jobs"]["items"]["properties"]
    assert tuple(job["state"]["enum"]) == outcome.STATES == tuple(SCHEMA["properties"]["counts"]["properties"])
    assert set(job) == {"model", "target", "onnx", "engine", *Outcome.__dataclass_fields__}
