"""report/triton_config.py: what is written is what Triton's own protobuf reads, whatever the names; when there is a batch."""

import random

import pytest
from helpers import refused
from triton_proto import parsed, type_name

from onnx2trt.base.errors import ExitCode
from onnx2trt.report.triton_config import PlanFile, Tensor, Warmup, interface, max_batch_size, model_config, plans_in, quoted

OWN = {"9.0": PlanFile("model.plan", "e" * 64, "m" * 64, "i" * 64)}
X = Tensor("x", "float32", (-1, 3, 16, 16), True, (1, 8))
Y = Tensor("y", "float32", (-1, 4), False)


def config_of(*tensors, batch=0, warmup=None, plans=OWN):
    return parsed(model_config("net", tensors, batch, warmup or {}, plans))


# ---- the batch


@pytest.mark.parametrize(
    ("tensors", "independent", "expected"),
    [
        ((X, Y), True, 8),
        ((X, Y), False, 0),  # the first axis is a sequence
        ((X, Tensor("z", "int64", (-1, 5), True, (1, 4)), Y), True, 4),  # all inputs have to take it
        ((X, Tensor("z", "int64", (5,), True, (5, 5)), Y), True, 0),  # an input without a batch
        ((X, Tensor("y", "float32", (4,), False)), True, 0),  # an output without
        ((X, Tensor("y", "float32", (), False)), True, 0),
        ((Tensor("x", "float32", (1, 3), True, (1, 1)), Tensor("y", "float32", (1, 4), False)), True, 0),  # fixed
        ((Tensor("x", "float32", (-1, 3), True, (2, 8)), Y), True, 0),  # a request of one sample would be refused
        ((Tensor("x", "float32", (-1, 3), True, (1, 1)), Y), True, 1),
        ((X, Tensor("size", "int64", (-1,), True, (1, 2), decides=True), Y), True, 0),
        ((Y,), True, 0),  # no input at all
    ],
)
def test_max_batch_size(tensors, independent, expected):
    assert max_batch_size(tensors, independent) == expected


@pytest.mark.parametrize(("batch", "dynamic"), [(0, False), (1, False), (2, True), (8, True)])
def test_requests_are_joined_where_more_than_one_fits(batch, dynamic):
    config = config_of(X, Y, batch=batch)
    assert config.max_batch_size == batch and config.HasField("dynamic_batching") == dynamic
    assert list(config.input[0].dims) == ([3, 16, 16] if batch else [-1, 3, 16, 16])
    assert list(config.output[0].dims) == ([4] if batch else [-1, 4])


# ---- tensors


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        *(("float32", "TYPE_FP32"), ("float16", "TYPE_FP16"), ("bf16", "TYPE_BF16"), ("int8", "TYPE_INT8"), ("uint8", "TYPE_UINT8")),
        *(("int32", "TYPE_INT32"), ("int64", "TYPE_INT64"), ("bool", "TYPE_BOOL")),
    ],
)
def test_types(dtype, expected):
    assert type_name(config_of(Tensor("x", dtype, (2,), True), Y).input[0].data_type) == expected


def test_a_scalar_is_one_value_to_the_client():
    """Triton refuses empty dims; reshape gives the engine its own shape back."""
    for tensor, batch in ((Tensor("x", "float32", (), True), 0), (Tensor("x", "float32", (-1,), True, (1, 4)), 4)):
        (found,) = config_of(tensor, Y, batch=batch).input
        assert list(found.dims) == [1] and found.HasField("reshape") and list(found.reshape.shape) == []
    assert not config_of(X, Y).input[0].HasField("reshape")


def test_what_decides_about_shapes_is_said():
    config = config_of(X, Tensor("size", "int64", (2,), True, (2, 2), decides=True), Y)
    assert [tensor.is_shape_tensor for tensor in config.input] == [False, True]


@pytest.mark.parametrize("tensor", [Tensor("x", "fp8", (2,), True), Tensor("x", "float32", (-1, 0), True)])
def test_what_triton_does_not_know_is_refused(tensor):
    with refused(ExitCode.MACHINE, "--triton-repository", "'x'", str(list(tensor.shape))):
        config_of(tensor, Y)


# ---- several GPUs, warm-up, names


def test_engines_of_several_gpus():
    plans = {**OWN, "8.9": PlanFile("model_cc89.plan", "f" * 64, "m" * 64, "i" * 64)}
    assert dict(config_of(X, Y, plans=plans).cc_model_filenames) == {"9.0": "model.plan", "8.9": "model_cc89.plan"}
    assert dict(config_of(X, Y).cc_model_filenames) == {}
    text = model_config("net", (X, Y), 8, {}, plans)
    assert plans_in(text) == plans
    assert plans_in(text.replace("max_batch_size: 8", "max_batch_size: 9")) is None
    assert plans_in("name: 'net'\n") is None and plans_in("") is None and plans_in("# onnx2trt: {\n") is None
    assert plans_in('# onnx2trt: {"sha256": "' + "0" * 64 + '", "plans": {}}\n') is None


def test_a_request_before_others():
    config = config_of(X, Y, batch=8, warmup={"x": Warmup("float32", (1, 3, 16, 16), "input0")})
    (warmup,) = config.model_warmup
    assert warmup.batch_size == 1 and list(warmup.inputs) == ["x"]
    part = warmup.inputs["x"]
    assert (type_name(part.data_type), list(part.dims), part.input_data_file) == ("TYPE_FP32", [3, 16, 16], "input0")


def test_any_name_is_read_as_it_is():
    """Names of tensors are free text in ONNX; those of files are bytes, which Python has with surrogates."""
    rng = random.Random(0)
    for _ in range(200):
        name = "".join(rng.choice("ab:/ \"'\\\n\t\0{}[]#7é界😀") for _ in range(rng.randint(1, 12)))
        config = config_of(Tensor(name, "float32", (2,), True), Tensor(name + "o", "int8", (1,), False, labels=name))
        assert config.input[0].name == name
        assert (config.output[0].name, config.output[0].label_filename) == (name + "o", name)
    assert quoted("\udcff1") == '"\\3771"'  # three digits, so that the one behind it stays apart


def test_the_interface_is_names_types_and_shapes():
    same = interface((X, Y))
    assert same == interface((Y, X)) == interface((X, Tensor(*(Y.name, Y.dtype, Y.shape, Y.input), labels="l")))
    for other in (Tensor("z", "float32", (-1, 4), False), Tensor("y", "float16", (-1, 4), False), Tensor("y", "float32", (-1, 5), False)):
        assert interface((X, other)) != same
