"""model/attention.py: attention is found by its structure, however it is written, and nothing else is taken for it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from attention_forms import ENDS, LAYOUTS, MASKS, SCALES, Form
from models import model, node

from onnx2trt.model.attention import factor_of, find_attentions
from onnx2trt.model.graph import Graph
from onnx2trt.model.observe import static_shapes


def found_in(network: onnx.ModelProto):
    graph = Graph.from_model(network)
    return graph, find_attentions(graph, static_shapes(graph, ()))


@pytest.mark.parametrize("seed", range(60))
def test_each_attention_is_found_once_in_whatever_form(seed):
    form = Form.random(seed)
    graph, found = found_in(form.network(layers=2))
    assert [(one.scores, one.softmax, one.context) for one in found] == [
        (f"l{index}_scores", f"l{index}_probabilities", f"l{index}_context") for index in range(2)
    ]
    nodes, made = {node.name: node for node in graph.nodes}, graph.producers()
    for one in found:
        assert [nodes[name].input[index] for name, index, _ in one.operands] == [tensor for _, _, tensor in one.operands]
        chain = [nodes[name] for name in one.nodes]
        assert all(before.output[0] in after.input for before, after in zip(chain, chain[1:]))
        assert made[one.probabilities].name == one.between[-1]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("mask", MASKS)
def test_only_one_number_right_behind_the_product_is_its_factor(scale, mask):
    graph, (one,) = found_in(Form(scale, mask).network())
    behind = scale.startswith("behind")
    assert one.factor == ("l0_scaled" if behind else None)
    assert factor_of(graph, one) == pytest.approx(0.25 if behind else 1.0)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("end", ENDS)
def test_the_probabilities_are_what_the_second_product_reads(layout, end):
    _, (one,) = found_in(Form(layout=layout, end=end).network())
    expected = {"plain": "l0_probabilities", "guarded": "l0_sound", "dropout": "l0_kept", "cast": "l0_typed"}
    assert one.probabilities == expected[end]


def changed(change) -> onnx.ModelProto:
    """A network with attention, after a change of its nodes."""
    network = Form("behind mul", "add constant").network()
    network.opset_import.append(onnx.helper.make_opsetid("com.example", 1))
    change(network.graph, {node.name: node for node in network.graph.node})
    return network


def scores_are_an_output(graph, nodes):
    graph.output.append(onnx.helper.make_tensor_value_info("l0_scores", onnx.TensorProto.FLOAT, None))


def probabilities_are_an_output(graph, nodes):
    graph.output.append(onnx.helper.make_tensor_value_info("l0_probabilities", onnx.TensorProto.FLOAT, None))


def scores_are_read_elsewhere(graph, nodes):
    graph.node.insert(len(graph.node), node("ReduceMax", "l0_masked", "other", "other"))
    graph.output.append(onnx.helper.make_tensor_value_info("other", onnx.TensorProto.FLOAT, None))


def another_axis(graph, nodes):
    nodes["l0_probabilities"].attribute[0].i = 2


def another_softmax_behind(graph, nodes):
    place = list(graph.node).index(nodes["l0_context"])
    graph.node.insert(place, node("Softmax", "l0_probabilities", "twice", "twice"))
    nodes["l0_context"].input[0] = "twice"


def a_gate_behind(graph, nodes):
    place = list(graph.node).index(nodes["l0_context"])
    graph.node.insert(place, node("Mul", "l0_probabilities l0_mask", "gated", "gated"))
    nodes["l0_context"].input[0] = "gated"


def constant_keys(graph, nodes):
    graph.initializer.append(onnx.numpy_helper.from_array(np.ones((16, 12), np.float32), "table"))
    nodes["l0_scores"].input[1] = "table"


def constant_values(graph, nodes):
    graph.initializer.append(onnx.numpy_helper.from_array(np.ones((12, 16), np.float32), "table"))
    nodes["l0_context"].input[1] = "table"


def values_in_front(graph, nodes):
    first, second = nodes["l0_context"].input
    del nodes["l0_context"].input[:]
    nodes["l0_context"].input.extend([second, first])


def two_products(graph, nodes):
    place = list(graph.node).index(nodes["l0_masked"])
    again = node("MatMul", f"l0_q_heads {nodes['l0_scores'].input[1]}", "position", "position")
    graph.node.insert(place, again)
    nodes["l0_masked"].input[1] = "position"


def dropout_in_training(graph, nodes):
    graph.initializer.append(onnx.numpy_helper.from_array(np.float32(0.5), "ratio"))
    graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "training"))
    place = list(graph.node).index(nodes["l0_context"])
    graph.node.insert(place, node("Dropout", "l0_probabilities ratio training", "dropped", "dropped"))
    nodes["l0_context"].input[0] = "dropped"


def operators_of_others(graph, nodes):
    nodes["l0_probabilities"].domain = "com.example"


OTHERS = (
    scores_are_an_output,
    probabilities_are_an_output,
    scores_are_read_elsewhere,
    another_axis,
    another_softmax_behind,
    a_gate_behind,
    constant_keys,
    constant_values,
    values_in_front,
    two_products,
    dropout_in_training,
    operators_of_others,
)


@pytest.mark.parametrize("change", OTHERS, ids=lambda change: change.__name__)
def test_what_is_no_attention_is_not_found(change):
    assert len(found_in(changed(lambda graph, nodes: None))[1]) == 1
    assert found_in(changed(change))[1] == ()


def test_a_softmax_of_old_opsets_is_over_all_axes_from_its_own_on():
    """Before opset 13 the axis is 1 where it is not said."""

    def network(**axis):
        nodes = [node("MatMul", "q k", "s", "s"), node("Softmax", "s", "p", "p", **axis), node("MatMul", "p v", "y", "y")]
        return model(nodes, {"q": [3, 12, 16], "k": [3, 16, 12], "v": [3, 12, 16]}, {"y": [3, 12, 16]}, opset=12)

    assert found_in(network())[1] == () and len(found_in(network(axis=2))[1]) == 1
