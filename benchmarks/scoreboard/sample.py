"""The part that runs in CI: some forty of the onnx package's tests, one or two of each kind of operator, type and structure."""

from __future__ import annotations

from pathlib import Path

from . import onnx_tests
from .case import Case

NAMES = """
    add_int8 and2d argmax_default_axis_example attention_4d averagepool_2d_pads basic_conv_with_padding batchnorm_epsilon
    bernoulli_seed_expanded cast_DOUBLE_to_FLOAT cast_FLOAT_to_FLOAT16 causal_conv_with_state_kernel_size_one_expanded celu clip constant
    convtranspose cumsum_1d depthtospace_example dequantizelinear dequantizelinear_e4m3fn einsum_batch_matmul flatten_axis1 gather_0
    gemm_all_attributes gru_defaults if isnan layer_normalization_2d_axis1 logsoftmax_large_number loop11 matmul_3d
    maxpool_2d_default nonzero_example
    optional_get_element_tensor qlinearconv reduce_mean_keepdims_random relu resize_upsample_scales_nearest scatter_elements_with_axis
    sequence_insert_at_back softmax_axis_1 slice string_concat tensorscatter top_k tril_zero l1normalization_axis_0 where_example
    sequence_model1 expand_shape_model1 Conv1d Linear squeezenet
"""


def cases(work: Path) -> list[Case]:
    return onnx_tests.cases(work, frozenset(f"test_{name}" for name in NAMES.split()))
