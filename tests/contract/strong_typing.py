"""Cases for TensorRT 11.2: flags and calibrators are gone, the graph carries the precision."""

import pytest
from contract.common import CAPS, TRT, Case, plan_for, plugin_library
from models import conv_net, layer_norm, plugin_net, random

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.model.graph import Graph
from onnx2trt.model.maxima import absolute_maxima
from onnx2trt.plan.plan import Route
from onnx2trt.rewrite import qdq
from onnx2trt.rewrite.fp16 import convert
from onnx2trt.rewrite.keep_fp32 import choose_kept_fp32
from onnx2trt.rewrite.opset import raise_opset
from onnx2trt.trt.network import typed_layers


def test_this_is_the_release_that_was_asked_for():
    assert TRT.__version__.startswith("11.2") and not CAPS.weak_typing and plan_for().route is Route.STRONG


def test_fp16_is_real(tmp_path):
    case = Case(tmp_path, conv_net())
    case.parse(convert(case.graph, {}))
    layers = typed_layers(case.network)
    assert layers["fp16"] == 5 and layers["fp32"] == 0
    assert case.network.get_input(0).dtype == TRT.float32 and case.network.get_output(0).dtype == TRT.float32


def test_a_plugin_that_the_library_no_longer_has_is_named(tmp_path):
    case = Case(tmp_path, plugin_net(), "--precision", "fp32", "--plugins", plugin_library())
    with pytest.raises(ConversionError, match="CustomGeluPluginDynamic 'gelu'"):  # left TensorRT with version 11
        case.parse()


def test_layers_kept_in_fp32_are_fp32(tmp_path):
    case = Case(tmp_path, layer_norm())
    feed = {"x": random(1, 8)}
    kept_fp32 = choose_kept_fp32(case.graph, absolute_maxima(case.graph, case.profiles, lambda: [feed]), ())
    case.parse(convert(case.graph, kept_fp32))
    assert typed_layers(case.network)["fp32"] == len(kept_fp32) == 5


def test_int8_by_qdq(tmp_path):
    case = Case(tmp_path, conv_net(), "--precision", "int8", "--calibration-dir", "d")
    graph = raise_opset(case.graph, 19)
    case.parse(convert(qdq.insert(graph, {"x": 0.03, "r1": 0.02, "r2": 0.02}, qdq.quantizable_layers(graph), True), {}))
    layers = typed_layers(case.network)
    assert layers["int8"] == 3 and layers["fp32"] == 0


def test_the_config_is_taken(tmp_path):
    flags = (
        "--workspace-size",
        "0.5",
        "--builder-optimization-level",
        "2",
        "--tactic-sources",
        "JIT_CONVOLUTIONS",
        "--max-batch-size",
        "4",
    )
    case = Case(tmp_path, conv_net(), *flags)
    case.parse(convert(case.graph, {}))
    config = case.config()
    assert case.flags(config) == set() and config.get_tactic_sources() == 1 << int(TRT.TacticSource.JIT_CONVOLUTIONS)
    assert config.num_optimization_profiles == 1 and config.builder_optimization_level == 2


@pytest.mark.parametrize(
    "flags, word",
    [
        (("--quantization", "calibrator", "--precision", "int8"), "no calibrator"),
        (("--dla-core", "0"), "--dla-core"),
        (("--tactic-sources", "CUBLAS"), "CUBLAS"),
        (("--gpu-arch", "8.9"), "--gpu-arch"),
    ],
)
def test_what_left_tensorrt_is_refused(flags, word):
    with pytest.raises(ConversionError, match=word) as caught:
        plan_for(*flags)
    assert caught.value.code is ExitCode.MACHINE


def test_a_build_that_gives_nothing_is_a_clear_failure(tmp_path):
    """Without a GPU this release answers None."""
    case = Case(tmp_path, conv_net())
    case.parse(convert(case.graph, {}))
    with pytest.raises(ConversionError) as caught:
        case.builder.build(case.profiles, True)
    assert caught.value.code is ExitCode.BUILD and "TensorRT" in caught.value.message


def test_opset_and_weights_of_a_plain_model_parse_by_path(tmp_path):
    case = Case(tmp_path, conv_net(), "--precision", "fp32")
    case.parse()
    assert typed_layers(case.network)["fp32"] == 5 and isinstance(case.graph, Graph)
