"""report/next_steps.py: each is true for the library that made the engine."""

import pytest
from made_results import result, row

from onnx2trt.report.next_steps import MORE_DATA, next_steps

TENSORRT = {"backend": "tensorrt", "tensorrt": "10.15.1", "gpu": "NVIDIA H100 (9.0)", "driver": "13.0", "python": "3.11.7"}


def test_each_library_says_what_loads_its_engine():
    rtx, ours = next_steps(result()), next_steps(result(environment=TENSORRT))
    assert any("loads in the TensorRT-RTX runtime (made with 1.7.1), not in TensorRT or trtexec" in step for step in rtx)
    assert any("loads in TensorRT (made with 10.15.1), not in TensorRT-RTX" in step for step in ours)


def test_what_was_not_executed_is_to_be_and_names_are_quoted_for_a_shell():
    engine = {**result()["engine"], "path": "my net.engine"}
    assert next_steps(result(engine=engine))[-1].endswith("net.onnx --validate-only 'my net.engine'")
    assert not any("--validate-only" in step for step in next_steps(result(status="validated")))


def test_made_up_inputs_call_for_data():
    assert MORE_DATA in next_steps(result(accuracy=[row(inputs="synthetic")]))
    assert MORE_DATA not in next_steps(result())


@pytest.mark.parametrize("status", ["planned", "failed", "inspected"])
def test_without_an_engine_of_this_run_no_runtime_is_named(status):
    steps = next_steps(result(status=status, engine=None))
    assert len(steps) == (status == "planned") and not any("loads in" in step for step in steps)


def test_the_doors_for_a_part_of_the_job():
    calibration = {**result()["calibration"], "cache": "c.cache"}
    assert next_steps(result(status="calibrated", calibration=calibration))[0].endswith("--precision int8 --calibration-cache c.cache")
    assert len(next_steps(result(status="preprocessed", preprocessed={"written": {}}))) == 1
    assert next_steps(result(status="preprocessed", preprocessed={"written": {"x.npy": "0"}})) == []


def test_a_candidate_that_is_an_onnx_model_is_loaded_by_no_runtime():
    candidate = {"path": "c.onnx", "sha256": "0", "bytes": 1, "kind": "onnx"}
    assert next_steps(result(engine=None, candidate=candidate)) == []


def test_a_command_stands_behind_a_newline_alone():
    calibration = {**result()["calibration"], "cache": "c.cache"}
    for found in (result(), result(status="calibrated", calibration=calibration)):
        assert next_steps(found)[-1].split("\n")[1].startswith("python onnx2trt.py ")
