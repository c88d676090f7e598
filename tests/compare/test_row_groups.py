"""compare/row_groups.py: what rows are worth, and what their columns are held against."""

import numpy as np
import pytest

from onnx2trt.compare.row_groups import Group, Member


def member(name, *pairs, whole=False) -> Member:
    return Member(name, [(np.asarray(a), np.asarray(b)) for a, b in pairs], whole)


SCORES = np.float32([0.9, 0.6, 0.5, 0.3, 0.1])


def found(a, b, **options):
    """The finding of scores and labels of one sample each; sorted by score."""
    scores = member("scores", *[(one["scores"], other["scores"]) for one, other in zip(a, b)])
    labels = member("labels", *[(one["labels"], other["labels"]) for one, other in zip(a, b)], whole=True)
    return Group([scores, labels], 0, options.get("column", 0), options.get("varying", False)).findings()


def sample(labels, scores=SCORES):
    return {"scores": scores, "labels": np.array(labels)}


def test_a_row_counts_by_how_far_its_score_is_above_the_lowest():
    """0.8 + 0.5 + 0.4 + 0.2 of both lists; a lost row counts on both sides."""
    reference = [sample([1, 2, 3, 4, 5])]
    for row, weight in enumerate((0.8, 0.5, 0.4, 0.2, 0.0)):
        labels = [1, 2, 3, 4, 5]
        labels[row] = 9
        assert found(reference, [sample(labels)])["labels"].drop_percent == pytest.approx(100 * weight / 1.9, abs=1e-4)


def test_without_scores_all_rows_count_and_a_tenth_may_come_and_go():
    reference = [sample(range(30), np.linspace(1, 0, 30))]
    for lost, drop in ((3, 0.0), (13, 100 * 10 / 30)):
        output = [sample([*range(lost, 30), *range(100, 100 + lost)], np.linspace(1, 0, 30))]
        labels = [member("labels", (reference[0]["labels"], output[0]["labels"]), whole=True)]
        assert Group(labels, 0, None, True).findings()["labels"].drop_percent == pytest.approx(drop)


def test_errors_of_matched_rows_count_by_column():
    reference = [sample([1, 2, 3, 4, 5])]
    finding = found(reference, [sample([1, 2, 3, 4, 5], SCORES + np.float32(0.03))])
    assert finding["scores"].drop_percent == pytest.approx(100 * 0.03**2 / SCORES.var(ddof=1), rel=1e-3)
    assert finding["scores"].column == 0 and finding["labels"].drop_percent == 0


def test_a_list_may_be_empty():
    empty = {"scores": np.zeros(0, np.float32), "labels": np.zeros(0, int)}
    finding = found([sample([1, 2, 3, 4, 5]), empty], [sample([1, 2, 3, 4, 5]), empty], varying=True)
    assert finding["labels"].drop_percent == 0 and finding["labels"].drops == (0.0, 0.0)
    assert found([empty], [sample([1, 2, 3, 4, 5])], varying=True)["labels"].drop_percent == pytest.approx(100)


def test_rows_that_are_no_padding():
    scores = [np.float32([0.9, 0.4, 0, 0]), np.float32([0.9, 0.8, 0.7, 0.2]), np.zeros(4, np.float32)]
    assert Group([member("scores", *zip(scores, scores))], 0, 0, False).told == [2, 4, 0]
    assert Group([member("scores", *zip(scores, scores))], 0, None, False).told == []
