"""trt/logger.py: what TensorRT says, by what it means."""

from enum import Enum
from types import SimpleNamespace

import pytest

from onnx2trt.trt.logger import make_logger
from onnx2trt.trt.remarks import is_fault

# of a network that takes batch 1 alone, as TensorRT-RTX 1.7 wrote it
NOT_CONSISTENT = (
    "Profile kMAX values are not self-consistent. IShuffleLayer /transformer/Reshape_5: reshaping failed for tensor: r1 reshape would "
    "change volume 8192 to 1024 In executeReshape at /_src/runtime/core/shapeMachine.cpp:348 Instruction: RESHAPEinput dims{8 16 8 8} "
    "reshape dims{1 16 64}. In executeContinuation at /_src/runtime/core/shapeMachine.cpp:1103"
)


@pytest.fixture
def library():
    class ILogger:
        Severity = Enum("Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE")

    return SimpleNamespace(ILogger=ILogger)


def test_a_profile_that_does_not_hold_is_an_error_with_its_whole_text(library):
    shown = []
    logger, messages = make_logger(library, lambda *said: shown.append(said))
    logger.log(library.ILogger.Severity.WARNING, NOT_CONSISTENT)
    assert messages.take_errors() == [NOT_CONSISTENT] and not messages.warnings
    logger.log(library.ILogger.Severity.VERBOSE, "a kernel")
    assert shown == [(f"[TensorRT WARNING] {NOT_CONSISTENT}", True), ("[TensorRT VERBOSE] a kernel", False)]


def test_other_warnings_are_counted_by_kind(library):
    logger, messages = make_logger(library, lambda *_: None)
    for layer in ("'a'", "'b'"):
        logger.log(library.ILogger.Severity.WARNING, f"layer {layer} is slow")
    logger.log(library.ILogger.Severity.INFO, NOT_CONSISTENT)
    assert messages.take_errors() == [] and dict(messages.warnings) == {"layer # is slow": 2}


@pytest.mark.parametrize("bound", ["kMIN", "kOPT", "kMAX"])
def test_every_bound_of_a_profile_counts(bound):
    assert is_fault(f"Profile {bound} values are not self-consistent. Condition '==' violated: 20 != 1.")
    assert not is_fault(f"Using {bound} values of the profile")
