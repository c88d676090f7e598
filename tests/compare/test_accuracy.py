"""compare/accuracy.py: one rule of what passes, and the lines that say what an output was taken for."""

import math
from dataclasses import replace

import pytest

from onnx2trt.compare.accuracy import Accuracy, worst_of

ROW = Accuracy("simulated", "images", "y", "values", 0.5, 0.1, 23.0, 0.1, 0, 50, "a.png", 0.7, False, "values", 0.5, [0.3, 0.8], 5000.0)


@pytest.mark.parametrize(
    ("changes", "limit", "excess"),
    [
        ({}, 1.0, 0.5),
        ({"shown_percent": 0.2}, 1.0, 0.2),  # what the samples show, not what they seem to
        ({"shown_percent": None, "drop_percent": 2.0}, 1.0, 2.0),  # of an older record
        ({"standard_error": 9.0}, 1.0, 0.5),  # counts nowhere
        ({"shown_percent": 0.0}, 0.0, 0.0),
        ({"shown_percent": 1e-6}, 0.0, math.inf),
        ({"nonfinite": 1}, 50.0, math.inf),
        ({"signal_percent": 12.0, "signal_limit_percent": 10.0}, 1.0, 1.2),
        ({"signal_percent": 12.0, "signal_limit_percent": 10.0}, 20.0, 0.6),  # a larger limit holds for the signal, too
    ],
)
def test_how_far_it_is_above_what_is_accepted(changes, limit, excess):
    assert replace(ROW, **changes).excess(limit) == pytest.approx(excess)


@pytest.mark.parametrize(
    ("changes", "excess"),
    [
        ({"drop_percent": 2.0, "shown_percent": 0.7}, 2.0),
        ({"drop_percent": 2.0, "shown_percent": 0.7, "metric": "top1", "kind": "classes"}, 0.7),  # one sample of 50
        ({"metric": "top1", "kind": "classes", "signal_percent": 4.0, "signal_limit_percent": 10.0, "noise_percent": 20.0}, 2.0),
        ({"nonfinite": 1}, math.inf),
    ],
)
def test_how_far_it_is_above_as_it_was_measured(changes, excess):
    """Errors count as they are, decisions by what they show."""
    assert replace(ROW, **changes).likely_excess(1.0) == pytest.approx(excess)


def test_below_ten_decibels_nothing_passes_that_was_not_asked_for():
    drowned = replace(ROW, metric="top1", kind="classes", drop_percent=0.0, shown_percent=0.0, sqnr_db=6.0, noise_percent=30.0)
    assert drowned.excess(1.0) > 1
    assert replace(drowned, kind="as asked").excess(1.0) == 0
    assert replace(drowned, constant=True).excess(1.0) == 0, "a constant has no signal"
    assert replace(drowned, noise_percent=2.0).excess(1.0) == 0, "it is small beside what the output does elsewhere"
    assert replace(drowned, sqnr_db=12.0).excess(1.0) == 0


def test_the_same_answer_for_every_sample_never_passes():
    assert replace(ROW, drop_percent=0.01, shown_percent=0.01, stuck=True, noise_percent=0.01).excess(1.0) > 1


def test_the_worst_is_the_one_furthest_above_its_own_limit():
    lost = replace(ROW, output="lost", shown_percent=0.0, signal_percent=20.0, signal_limit_percent=10.0)
    assert worst_of((ROW, lost), 1.0) is lost and worst_of((lost, ROW), 0.1) is ROW


def test_what_decides_is_said_where_the_drop_alone_would_not_pass():
    row = replace(ROW, metric="values", drop_percent=3.4, shown_percent=0.6, change_percent=30.0, noise_percent=3.4)
    assert row.left_open(1.0) == f"{row.samples} samples show 0.60 % of it, the rest may be chance"
    assert replace(row, samples=1).left_open(1.0).startswith("1 sample shows 0.60 %")
    assert (
        replace(row, change_percent=2.23)
        .left_open(1.0)
        .endswith("chance: from sample to sample the output changes by only 2.2 % of its size")
    )
    assert not row.left_open(5.0) and not row.left_open(0.5) and not replace(row, stuck=True).left_open(1.0)


def test_few_samples_are_said_to_be_few():
    few = replace(ROW, metric="top1", samples=20, count=20.0)
    assert few.few(1.0) == "20 samples of images cannot show 1 % for output 'y': one of them is 5 %"
    assert few.few(10.0) == "" and replace(few, count=100.0).few(1.0) == "" and replace(few, inputs="synthetic").few(1.0) == ""
    unsure = replace(ROW, samples=3, drop_percent=2.0, shown_percent=0.1)
    assert unsure.few(1.0) == "3 samples of images cannot show 1 % for output 'y': its error may be off by a factor of 20"
    assert ROW.few(1.0) == ""


def test_samples_that_hardly_differ_are_said_to_be_alike():
    alike = replace(ROW, change_percent=0.3).few(1.0)
    assert alike.startswith("the samples of images are much alike: output 'y' differs from sample to sample by 0.3 % of its size")
    assert replace(ROW, change_percent=30.0).few(1.0) == ""


def test_what_it_was_taken_for_and_how_to_say_otherwise():
    assert ROW.seen_as().startswith(
        "output 'y': taken for values, judged by its error as a share of what varies over the data, in the worst slice; --metric y:"
    )
    mask = replace(ROW, metric="mask:0.3", kind="mask").seen_as()
    assert "taken for a mask, judged by the overlap (IoU) of what is above 0.3; --metric y:values judges it otherwise" in mask
    assert replace(ROW, kind="as asked", metric="noise").seen_as() == "output 'y': the error's energy, as --metric says"
    assert "fed back to input 'h'" in replace(ROW, feeds="h").seen_as()


def test_what_samples_do_not_show_is_no_evidence():
    parts = [{"first": 0, "last": 3, "drop_percent": 1.0}, {"first": 4, "last": 8, "drop_percent": 0.0}]
    assert replace(ROW, parts=parts).still() == ROW.still() == ""
    parts[1]["still"] = True
    row = replace(ROW, parts=parts)
    assert "hardly anything happens in slices 4 to 8 of output 'y' on" in row.still() and "no evidence" in row.still()
    assert row.rounded().parts[1]["still"] is True
    parts[1]["first"] = 8
    assert "happens in slice 8 of output" in replace(ROW, parts=parts).still()


def test_rounded():
    row = replace(ROW, drop_percent=1 / 3, interval_percent=[1 / 3, 2 / 3], parts=[{"first": 0, "drop_percent": 1 / 7}]).rounded()
    assert (
        row.drop_percent == 0.333333
        and row.interval_percent == [0.333333, 0.666667]
        and row.parts == [{"first": 0, "drop_percent": 0.142857}]
    )
