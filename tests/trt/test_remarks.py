"""trt/remarks.py: what TensorRT warns of, in a few lines that say what it means."""

import pytest

from onnx2trt.trt.remarks import KNOWN, explain, kind

MET = {  # warnings as TensorRT 10.15, 11.2 and TensorRT-RTX 1.7 wrote them -> what the explanation holds
    "WeightsContext.cpp:177: Empty initializer p2o.helper.constant.3 was provided with non-empty data. Overriding data to nullptr": (
        "harmless"
    ),
    "Detected layernorm nodes in FP16.": "kept in FP32",
    "Running layernorm after self-attention with FP16 Reduce or Pow may cause overflow. Forcing Reduce or Pow Layers in FP32 precision, or "
    "exporting the model to use INormalizationLayer (available with ONNX opset >= 17) can help preserving accuracy.": "kept in FP32",
    "No valid obedient candidate choices for node ONNXTRT_ShapeSlice that meet the preferred precision. The remaining candidate choices "
    "will be profiled.": "fastest of the others",
    "Missing scale and zero-point for tensor y, expect fall back to non-int8 implementation for any layer consuming or producing given "
    "tensor": "no INT8 scale",
    "Calibrator is not being used. Users must provide dynamic range for all tensors that are not Int32 or Bool.": "Q/DQ",
    " (foreignNode) Converting conv weight scales to fp32.": "harmless",
    "TensorRT encountered issues when converting weights between types and that could affect accuracy.": "lose digits",
    " - 3 weights are affected by this issue: Detected subnormal FP16 values.": "lose digits",
    "One or more weights outside the range of FLOAT was clamped": "cut down",
    "CUDA lazy loading is not enabled. Enabling it can significantly reduce device memory usage": "CUDA_MODULE_LOADING",
    "Unable to determine GPU memory usage: unspecified launch failure": "harmless",
    "Using an engine plan file across different models of devices is not supported and is likely to affect performance": "another model",
}


@pytest.mark.parametrize("text", MET, ids=lambda text: text[:40])
def test_a_known_warning_is_explained_in_one_line(text):
    for spoken in (text, kind(text)):
        (line,) = explain([(spoken, 6)])
        assert MET[text] in line and "6 times" in line and "\n" not in line and "--verbose" not in line
        assert text[:30].strip() not in line, "said in our words"


def test_the_explanations_are_short():
    assert all(len(meaning) <= 110 and "\n" not in meaning for meaning in KNOWN.values())


def test_what_says_the_same_is_counted_together():
    lines = explain([("Detected layernorm nodes in FP16.", 1), ("Running layernorm after self-attention with FP16 Pow may", 2)])
    assert lines == ["TensorRT warned 3 times: a layer normalisation in FP16: where its measured values are too large it is kept in FP32"]
    assert explain([("Calibrator is not being used.", 1)])[0].startswith("TensorRT warned once: ")


def test_unknown_warnings_are_counted_by_kind_and_the_first_are_named():
    unknown = [(f"Tensor 't{number}' is odd, {number} times", 1) for number in range(5)] + [("Something else " + "x" * 100, 2)]
    assert explain(unknown) == [
        "TensorRT gave 7 warnings of 2 kinds; --verbose shows them: Tensor # is odd, # times; Something else " + "x" * 55 + " ..."
    ]
    assert explain([("Odd", 1)]) == ["TensorRT gave 1 warning; --verbose shows it: Odd"]
    assert explain([("Odd", 2)]) == ["TensorRT gave 2 warnings of one kind; --verbose shows them: Odd"]
    many = explain([(f"kind {letter}", 1) for letter in "abcdef"])[0]
    assert "6 warnings of 6 kinds" in many and "kind c" in many and "kind d" not in many


def test_names_of_types_are_no_numbers():
    assert kind("3 of node 'a/b' (0x1f) in FP16\nmore") == "# of node # (#) in FP16"
    assert kind(" ") == "" and explain([]) == []
