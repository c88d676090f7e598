"""conversion/bound_inputs.py: a model that was read, with some of its inputs as constants."""

import numpy as np
import pytest
from helpers import refused, save
from models import model, node

from onnx2trt.base.errors import ExitCode
from onnx2trt.conversion.bound_inputs import bind_inputs
from onnx2trt.model.graph import Graph
from onnx2trt.model.preflight import preflight
from onnx2trt.model.session import Session


@pytest.fixture
def read(tmp_path):
    source = model([node("Mul", "x s", "y")], {"x": [2], "s": []}, {"y": [2]})
    return preflight(save(source, tmp_path / "m.onnx"))


def test_what_is_bound_is_no_input_any_more(read):
    bound, info = bind_inputs(*read, (("s", "3"),))
    assert [spec.name for spec in info.inputs] == ["x"] and [entry.spec.name for entry in info.bound] == ["s"]
    assert [value.name for value in bound.graph.input] == ["x"]
    np.testing.assert_array_equal(Session.of_model(info, lambda: Graph.from_model(bound)).run({"x": np.ones(2, np.float32)})["y"], [3, 3])


def test_the_identity_of_the_model_is_that_of_its_values_too(read):
    identities = {bind_inputs(*read, asked)[1].identity for asked in ((), (("s", "3"),), (("s", "4"),))}
    assert len(identities) == 3 and read[1].sha256 in identities
    assert bind_inputs(*read, (("s", "3"),))[1].identity == bind_inputs(*read, (("s", "3.0"),))[1].identity


def test_an_input_that_is_not_there(read):
    with refused(ExitCode.USAGE, "'t'", "'x', 's'"):
        bind_inputs(*read, (("t", "3"),))
    assert bind_inputs(*read, (("t", "3"),), may_lack=True)[1].bound == ()


def test_no_input_is_left(read):
    with refused(ExitCode.USAGE, "every input"):
        bind_inputs(*read, (("s", "3"), ("x", "1")))
