"""rewrite/prepare.py: what TensorRT's calibrator gets, and which layers are not worth INT8."""

import numpy as np
import pytest
from helpers import inside_if
from models import conv_net, model, node, outputs_of, profiles, random, weight_and_axis

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.model.graph import Graph
from onnx2trt.rewrite import prepare, qdq
from onnx2trt.rewrite.fit import Fit
from onnx2trt.rewrite.opset import raise_opset
from onnx2trt.rewrite.qdq import Rounded, quantize_weights


def fitted(weight, axis):
    """Other integers than the nearest ones."""
    changed = weight * (1 + random(*weight.shape, scale=0.2))
    return Rounded(*quantize_weights(changed.astype(np.float32), axis, half=False), bias=None)


def test_the_calibrator_gets_baked_weights_and_the_equivalent_model_says_the_same():
    graph = raise_opset(Graph.from_model(conv_net()), 19)
    layers = qdq.quantizable_layers(graph)
    rounded = {layer.node: fitted(*weight_and_axis(graph, layer.node)) for layer in layers}
    fit = Fit({"x": 0.03, "r1": 0.02}, rounded)
    shape, left = profiles(x=(1, 3, 16, 16)), {"given": "reason"}
    plan = prepare.Int8Plan(graph, shape, layers[:2], fit, {}, left)
    prepared = prepare.prepare_calibrated(plan, {"c1": 0.5, "x": 9.0, "y": 1}, strict=True)
    assert prepared.scales == {**fit.scales, "c1": 0.5} and prepared.mac_shares["int8"] == pytest.approx(576 / 640)
    x = random(1, 3, 16, 16)
    again = qdq.insert(prepared.graph, fit.scales, tuple(qdq.quantizable_layers(prepared.graph)[:2]), False)
    np.testing.assert_allclose(outputs_of(again, {"x": x})[0], outputs_of(prepared.equivalent, {"x": x})[0], rtol=1e-3, atol=1e-3)
    assert np.array_equal(prepared.graph.weights["w3"], graph.weights["w3"])
    native = prepare.prepare_calibrated(prepare.Int8Plan(graph, shape, layers, Fit(fit.scales), {}, {}), None, strict=True)
    assert not native.half_outputs
    assert native.scales is None and native.equivalent is None and ("head", "fp16", "always zero in calibration") in native.fallback
    assert native.constraints == {layers[0].node: "int8", layers[1].node: "int8"} and native.half_nodes == {"head"}
    assert np.array_equal(native.graph.weights["w1"], graph.weights["w1"])


def chain(widths, channels=40):
    """Convolutions with kernels of these sizes, each on `channels`; depthwise where negative."""
    nodes, weights = [], {}
    for index, width in enumerate(widths):
        group = channels if width < 0 else 1
        nodes.append(node("Conv", f"t{index} w{index}", f"t{index + 1}", f"c{index}", group=group, pads=[abs(width) // 2] * 4))
        weights[f"w{index}"] = random(channels, channels // group, abs(width), abs(width), seed=index)
    io = {"t0": [1, channels, 8, 8]}, {f"t{len(widths)}": [1, channels, 8, 8]}
    return Graph.from_model(model(nodes, *io, weights)), profiles(t0=(1, channels, 8, 8))


@pytest.mark.parametrize(
    "widths, left",
    [
        ((1, -3, 1), ["c1"]),  # 40 and 9 multiply-accumulates for an output value
        ((-3, -3), []),  # nothing would be left
        ((1, -5, -5), []),  # 25 + 25 of 90: most of the work
        ((3, -5, 1), ["c1"]),
    ],
)
def test_depthwise_layers_are_left_out_unless_they_are_the_work(widths, left):
    graph, shapes = chain(widths)
    chosen, none = prepare.choose_layers(graph, {}, ())
    reasons = prepare.seldom_faster(graph, shapes, chosen)
    assert set(reasons) == set(left) and not none and len(chosen) == len(widths)
    assert all("depthwise" in reason for reason in reasons.values())


def test_products_inside_a_branch_are_named_and_what_may_be_done_about_them():
    source = inside_if(node("MatMul", "w w", "y"))
    with pytest.raises(ConversionError, match=r"inside 'if' \(If\), where none becomes INT8") as caught:
        prepare.choose_layers(Graph.from_model(source), {}, ())
    assert "--bind-input" in caught.value.hint and "--precision fp16" in caught.value.hint
    with pytest.raises(ConversionError, match="has no convolution or matrix product") as caught:
        prepare.choose_layers(Graph.from_model(inside_if(node("Relu", "w", "y"))), {}, ())
    assert caught.value.hint == "Use --precision fp16."


def test_where_no_layer_is_left_for_int8_it_says_why():
    graph, _ = chain((1, 1, 1, 1))
    chosen, left = prepare.choose_layers(graph, {"c0": "overflow"}, (("c[1-3]", "fp16"),))
    assert "recurrent" not in prepare.nothing_left(left, recurrent=0.4).message
    assert "99% of the work is in recurrent layers (LSTM, GRU, RNN)" in prepare.nothing_left(left, recurrent=0.99).message
    error = prepare.nothing_left(left)
    assert not chosen and error.code is ExitCode.MODEL and "fp16" in error.hint
    assert error.message.endswith("'c0' overflow; 'c1' --layer-precisions c[1-3]:fp16; 'c2' --layer-precisions c[1-3]:fp16; and 1 more")


def test_overrides_and_what_stays_in_fp32_are_no_candidates():
    graph, _ = chain((1, -3, 1))
    chosen, reasons = prepare.choose_layers(graph, {"c0": "overflow"}, (("c1", "fp32"),))
    assert reasons["c0"] == "overflow" and reasons["c1"] == "--layer-precisions c1:fp32" and [layer.node for layer in chosen] == ["c2"]
