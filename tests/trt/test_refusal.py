"""trt/refusal.py: why an engine does not load, in one sentence with the next step."""

import pytest

from onnx2trt.trt.refusal import explain

REFUSALS = [  # what TensorRT says, made by, here -> the sentence
    ("The engine plan file is generated on an incompatible device, expecting compute 8.6 got compute 7.5, please rebuild.", "", "", "7.5"),
    ("The engine cannot run on this GPU, which has compute capability 9.0.", "", "", "the one here has 9.0"),
    (
        "The engine plan file is not compatible with this version of TensorRT, expecting library version 10.6.0.26 got 10.3.0.26, please "
        "rebuild.",
        "",
        "",
        "made by version 10.3.0.26, here is 10.6.0.26",
    ),
    ("something odd", "8.6.1.6", "10.6.0.26", "made by version 8.6.1.6, here is 10.6.0.26"),
    ("Serialization assertion creator failed.Cannot deserialize plugin since corresponding IPluginCreator not found", "", "", "a plugin"),
    (
        "IPluginRegistry::getCreator: Error Code 4: Cannot find plugin: EfficientNMS_TRT, version: 1, namespace:.",
        "",
        "",
        "EfficientNMS_TRT",
    ),
    (
        "Cannot deserialize engine with lean runtime since IRuntime::getEngineHostCodeAllowed() is false.",
        "10.6.0.26",
        "10.15.1",
        "brings code of its own",
    ),
    ("Serialization assertion plan.header.size == blobSize failed. In parsePlan", "1.7.1.116", "1.7.1.116", "damaged or cut off"),
    ("Serialization assertion header.magicTag == kEXPECTED_MAGIC_TAG failed", "", "", "another version"),
    ("Version tag does not match. Note: Current Version: 237, Serialized Engine Version: 239", "", "", "another version"),
    ("Error Code 2: OutOfMemory (Requested size was 1 bytes; out of memory)", "", "", "not enough free memory"),
]


@pytest.mark.parametrize("errors, made_by, here, words", REFUSALS, ids=lambda value: value[:30])
def test_the_reason_in_one_sentence_with_the_next_step(errors, made_by, here, words):
    why, hint = explain(errors, made_by, here)
    assert words in why and hint.endswith(".") and "\n" not in why


def test_no_reason_is_made_up():
    assert explain("something odd", "10.6.0.26", "10.6.0") == ("", "")
