"""compare/failure.py: why outputs do not pass, in words."""

from dataclasses import replace

from onnx2trt.compare.accuracy import Accuracy
from onnx2trt.compare.failure import failure, not_finite

ROW = Accuracy("simulated", "images", "y", "values", 0.5, 0.1, 23.0, 0.1, 0, 50, "a.png", 0.7, False, "values", 0.5, [0.3, 0.8], 5000.0)


def test_what_passes_has_no_error():
    assert failure((ROW,), 1.0) is None and failure((), 1.0) is None and not_finite((ROW,)) is None


def test_a_drop_above_the_limit():
    error = failure((ROW, replace(ROW, output="z", drop_percent=5.0, shown_percent=4.0, worst_slice="slice 3 of 9 along axis 1")), 1.0)
    assert error.message == (
        "output 'z' on images (50 samples): differs from the ONNX model by 5.00 % (values, slice 3 of 9 along axis 1), "
        "more than --max-accuracy-drop 1; SQNR 23.0 dB"
    )
    assert error.drop_percent == 4.0 and "--metric z:METRIC" in error.hint


def test_winners_that_agree_by_chance():
    lost = replace(ROW, metric="top1", kind="classes", shown_percent=0.0, drop_percent=0.0, signal_percent=42.0, signal_limit_percent=10.0)
    error = failure((lost,), 1.0)
    assert "agrees by top1 (drop 0.00 %), but 42 % of what varies is lost, more than 10" in error.message and error.drop_percent == 4.2


def test_the_same_answer_for_every_sample():
    stuck = replace(ROW, stuck=True)
    assert "gives the same values for every sample, the ONNX model does not" in failure((stuck,), 1.0).message


def test_louder_than_the_signal():
    drowned = replace(ROW, metric="mask:0.3", kind="mask", shown_percent=0.0, sqnr_db=5.0, noise_percent=30.0)
    assert "louder than 10 dB below the signal; SQNR 5.0 dB" in failure((drowned,), 1.0).message


def test_steps_are_no_samples():
    error = failure((replace(ROW, steps=64, samples=64, shown_percent=3.0),), 1.0)
    assert "output 'y' on images (64 steps in a row)" in error.message


def test_values_that_are_no_numbers():
    broken = replace(ROW, nonfinite=3)
    assert "3 values are NaN or infinite" in failure((broken,), 1.0).message and failure((broken,), 1.0).drop_percent is None
    assert "3 values are NaN or infinite" in not_finite((ROW, broken)).message
