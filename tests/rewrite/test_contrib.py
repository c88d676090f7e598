"""rewrite/contrib.py, contrib_attention.py, contrib_nodes.py: the operators of ONNX Runtime's optimizers, held against ONNX Runtime."""

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx2trt.model.graph import Graph
from onnx2trt.rewrite.adopt import adopt
from onnx2trt.rewrite.contrib import MAKERS, with_onnx_operators

BATCH, TOKENS, WIDTH, HEADS = 2, 5, 8, 2
RANDOM = np.random.default_rng(0)
IMAGE, ROWS, SEQUENCE = ("N", 3, 7, 6), (4, WIDTH), ("N", "T", WIDTH)
SIZES = {"N": BATCH, "T": TOKENS}


def some(*shape):
    return RANDOM.normal(size=shape).astype(np.float32)


def bits(*shape):
    return RANDOM.integers(0, 256, shape).astype(np.uint8)


def norm(operator, *more, **attributes):
    """A normalization of a sequence and, where it takes that, what is added to it."""
    return operator, {"x": SEQUENCE, "skip": SEQUENCE}, more, attributes


def n_bits(width, *more, **attributes):
    own = {"N": 6, "K": 40, "bits": width, "block_size": 16, **attributes}
    return "MatMulNBits", {"x": ("N", "T", 40)}, (bits(6, 3, 2 * width), np.abs(some(18)), *more), own


FORMS = {
    "gelu": ("Gelu", {"x": SEQUENCE}, (), {}),
    "gelu of a bias": ("BiasGelu", {"x": SEQUENCE}, (some(WIDTH),), {}),
    "fast gelu": ("FastGelu", {"x": SEQUENCE}, (), {}),
    "fast gelu of a bias": ("FastGelu", {"x": SEQUENCE}, (some(WIDTH),), {}),
    "quick gelu": ("QuickGelu", {"x": SEQUENCE}, (), {"alpha": 1.3}),
    "skip": norm("SkipLayerNormalization", some(WIDTH), some(WIDTH), epsilon=0.1),
    "skip without bias": norm("SkipLayerNormalization", some(WIDTH)),
    "skip of a bias": norm("SkipLayerNormalization", some(WIDTH), some(WIDTH), some(WIDTH)),
    "skip of RMS": norm("SkipSimplifiedLayerNormalization", some(WIDTH), some(WIDTH), epsilon=0.1),
    "relu": ("FusedConv", {"x": IMAGE}, (some(4, 3, 3, 3), some(4)), {"activation": "Relu", "pads": [1, 1, 0, 0], "strides": [2, 1]}),
    "leaky": ("FusedConv", {"x": IMAGE}, (some(3, 1, 3, 3),), {"activation": "LeakyRelu", "activation_params": [0.3], "group": 3}),
    "hard": ("FusedConv", {"x": IMAGE}, (some(4, 3, 1, 1),), {"activation": "HardSigmoid", "activation_params": [0.3, 0.4]}),
    "sum": ("FusedConv", {"x": IMAGE}, (some(4, 3, 1, 1), some(4), some(2, 4, 7, 6)), {"activation": "Relu"}),
    "gemm": ("FusedGemm", {"x": ROWS}, (some(6, WIDTH), some(6)), {"activation": "Tanh", "transB": 1, "alpha": 0.5}),
    "product": ("FusedMatMul", {"x": SEQUENCE}, (some(WIDTH, 6),), {"alpha": 0.25}),
    "turned weight": ("FusedMatMul", {"x": SEQUENCE}, (some(6, WIDTH),), {"transB": 1}),
    "turned": ("FusedMatMul", {"x": SEQUENCE, "b": SEQUENCE}, (), {"transA": 1, "alpha": 3.0}),
    "scores": ("FusedMatMul", {"x": SEQUENCE, "b": SEQUENCE}, (), {"transB": 1}),
    "4 bits": n_bits(4),
    "4 bits with zero points": n_bits(4, bits(12)),
    "8 bits": n_bits(8),
    "attention": ("Attention", {"x": SEQUENCE}, (some(WIDTH, 3 * WIDTH), some(3 * WIDTH)), {"num_heads": HEADS}),
    "scaled attention": ("Attention", {"x": SEQUENCE}, (some(WIDTH, 3 * WIDTH), some(3 * WIDTH)), {"num_heads": HEADS, "scale": 0.7}),
    "several heads": ("MultiHeadAttention", dict.fromkeys("qkv", SEQUENCE), (some(3 * WIDTH),), {"num_heads": HEADS}),
}


def model_of(operator, inputs, weights, attributes, opset=13, domain="com.microsoft"):
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    constants = [numpy_helper.from_array(array, f"w{index}") for index, array in enumerate(weights)]
    names = [*inputs, *(tensor.name for tensor in constants)]
    fused = helper.make_node(operator, names, ["made"], name="fused", domain=domain, **attributes)
    nodes = [fused, helper.make_node("Neg", ["made"], ["y"])]
    graph = helper.make_graph(nodes, "graph", values, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)], ir_version=8)


def run(model, feed):
    options = ort.SessionOptions()
    options.graph_optimization_level, options.log_severity_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL, 4
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, feed)


def agree(model, feed, operator):
    written = adopt(model, "model.onnx")
    assert written.remarks[0].endswith(f"1 {operator}")
    assert not {node.domain for node in written.model.graph.node} - {""}
    for expected, found in zip(run(model, feed), run(written.model, feed)):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("form", FORMS)
def test_it_computes_what_onnx_runtime_does(form, opset):
    operator, inputs, weights, attributes = FORMS[form]
    feed = {name: some(*(SIZES.get(size, size) for size in shape)) for name, shape in inputs.items()}
    agree(model_of(operator, inputs, weights, attributes, opset), feed, operator)


@pytest.mark.parametrize("operator", ["LayerNormalization", "SimplifiedLayerNormalization"])
def test_normalizations_without_a_domain(operator):
    weights = (some(WIDTH), some(WIDTH))[: 2 if operator == "LayerNormalization" else 1]
    agree(model_of(operator, {"x": SEQUENCE}, weights, {"epsilon": 0.1}, 13, ""), {"x": some(BATCH, TOKENS, WIDTH)}, operator)


@pytest.mark.parametrize("operator", ["Attention", "MultiHeadAttention"])
def test_masks(operator):
    inputs = {"x": SEQUENCE} if operator == "Attention" else dict.fromkeys("qkv", SEQUENCE)
    weights = (some(WIDTH, 3 * WIDTH), some(3 * WIDTH)) if operator == "Attention" else (some(3 * WIDTH),)
    model = model_of(operator, inputs, weights, {"num_heads": HEADS})
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.INT32, ["N", "T"]))
    model.graph.node[0].input.append("mask")
    mask = np.ones((BATCH, TOKENS), np.int32)
    mask[1, 3:] = 0
    feed = {name: some(BATCH, TOKENS, WIDTH) for name in inputs} | {"mask": mask}
    agree(model, feed, operator)
    del model.graph.input[-1].type.tensor_type.shape.dim[1]  # lengths: another form
    assert "Attention" in {node.op_type[-9:] for node in with_onnx_operators(Graph.from_model(model))[0].nodes}


def test_embeddings():
    tables = [some(11, WIDTH), some(9, WIDTH), some(2, WIDTH), some(WIDTH), some(WIDTH)]
    names = ["ids", "segments", *(f"w{index}" for index in range(5)), "mask"]
    node = helper.make_node("EmbedLayerNormalization", names, ["y", "count"], name="fused", domain="com.microsoft", epsilon=0.1)
    values = [helper.make_tensor_value_info(name, TensorProto.INT32, ["N", "T"]) for name in ("ids", "segments", "mask")]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None), helper.make_tensor_value_info("count", TensorProto.INT32, None)]
    graph = helper.make_graph([node], "graph", values, outputs, [numpy_helper.from_array(a, f"w{i}") for i, a in enumerate(tables)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13), helper.make_opsetid("com.microsoft", 1)], ir_version=8)
    most = {"ids": 11, "segments": 2, "mask": 2}
    agree(model, {name: RANDOM.integers(0, size, (BATCH, TOKENS)).astype(np.int32) for name, size in most.items()}, node.op_type)


def test_the_sum_of_a_skip_is_an_output_too():
    model = model_of(*FORMS["skip of a bias"])
    model.graph.node[0].output.extend(["", "", "sum"])
    model.graph.output.append(helper.make_tensor_value_info("sum", TensorProto.FLOAT, None))
    agree(model, {name: some(BATCH, TOKENS, WIDTH) for name in ("x", "skip")}, "SkipLayerNormalization")


def test_constants_are_of_the_type_of_the_weights():
    model = model_of(*FORMS["skip"])
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    written, found = with_onnx_operators(Graph.from_model(model))
    assert found == {"SkipLayerNormalization": 1}
    assert {array.dtype.name for array in written.weights.values()} == {"float16"}


@pytest.mark.parametrize(
    "form, change",
    [
        ("attention", {"unidirectional": 1}),
        ("relu", {"activation": "Mystery"}),
        ("product", {"transBatchA": 1}),
        ("4 bits", {"bits": 3}),
    ],
)
def test_other_forms_stay(form, change):
    operator, inputs, weights, attributes = FORMS[form]
    graph = Graph.from_model(model_of(operator, inputs, weights, {**attributes, **change}))
    written, found = with_onnx_operators(graph)
    assert not found and [node.op_type for node in written.nodes] == [operator, "Neg"] and written.weights.keys() == graph.weights.keys()


def test_all_are_tried():
    tried = {form[0] for form in FORMS.values()} | {"EmbedLayerNormalization", "LayerNormalization", "SimplifiedLayerNormalization"}
    assert tried == MAKERS.keys()
