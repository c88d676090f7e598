"""model/session.py: several inferences at once give what one after the other gives, in order."""

import numpy as np
import pytest
from models import conv_net, random

from onnx2trt.base.errors import ConversionError
from onnx2trt.model import session as reference
from onnx2trt.model.graph import Graph
from onnx2trt.model.session import AT_ONCE, Session


def test_inferences_at_once_come_in_order_and_are_the_same(monkeypatch):
    monkeypatch.setattr(reference, "usable_cores", lambda: 4)
    graph = Graph.from_model(conv_net())
    feeds = [{"x": random(1, 3, 16, 16, seed=number)} for number in range(9)]
    one, several = Session.from_graph(graph), Session.from_graph(graph, in_turn=False)
    assert one.at_once == 1 and several.at_once == AT_ONCE
    expected, found = list(one.run_each(iter(feeds))), list(several.run_each(iter(feeds)))
    assert len(found) == 9
    for right, other in zip(expected, found):
        np.testing.assert_allclose(other["y"], right["y"], rtol=1e-5, atol=1e-6)


def test_an_error_of_one_inference_is_raised():
    session = Session.from_graph(Graph.from_model(conv_net()), in_turn=False)
    with pytest.raises(ConversionError, match="cannot run the model on x float32"):
        list(session.run_each([{"x": random(1, 3, 16, 16)}, {"x": random(1, 5, 16, 16)}]))


def test_one_core_runs_one_after_the_other(monkeypatch):
    monkeypatch.setattr(reference, "usable_cores", lambda: 1)
    assert Session.from_graph(Graph.from_model(conv_net()), in_turn=False).at_once == 1
