"""model/nodes.py: single nodes; what they make of values is in test_operators.py."""

from models import node

from onnx2trt.model.nodes import index_inputs


def test_inputs_that_are_indices():
    nodes = [
        node("Cast", "ids", "whole", to=7),
        node("Unsqueeze", "whole axis", "column"),
        node("Gather", "table column", "e"),
        node("Gather", "sizes place", "size"),
        node("Cast", "mask", "m", to=1),
        node("Add", "shift whole", "moved"),
        node("Mul", "e m", "y"),
    ]
    assert index_inputs(nodes) == {"ids", "place"}


def test_what_is_computed_before_is_no_index():
    assert index_inputs([node("Add", "ids one", "next"), node("Gather", "table next", "y")]) == set()
