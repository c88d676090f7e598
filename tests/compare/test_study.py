"""compare/study.py: what outputs are taken for, and what is found of one output."""

import math

import numpy as np
import pytest

from onnx2trt.compare.study import SIGNAL_LIMIT, Study, View

NAN, INF = np.nan, np.inf


def array(*values, dtype="float32") -> np.ndarray:
    return np.array(values, dtype)


def study(pairs, asked="auto", **view) -> Study:
    """Over (reference, output) samples."""
    one = Study("y", asked, View(**view))
    for index, (reference, output) in enumerate(pairs):
        one.add(np.asarray(reference), np.asarray(output), f"{index}.jpg")
    return one


def same(samples):
    return [(sample, sample) for sample in samples]


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def sigmoid(values):
    return (1 / (1 + np.exp(-values))).astype(np.float32)


def softmax(values, axis=-1):
    powers = np.exp(values - values.max(axis, keepdims=True))
    return (powers / powers.sum(axis, keepdims=True)).astype(np.float32)


def spots(n=6, side=24):
    y, x = np.mgrid[:side, :side]
    centre = np.random.default_rng(0).integers(4, side - 4, (n, 2, 1, 1))
    return sigmoid(40 - 3.0 * ((y - centre[:, 0]) ** 2 + (x - centre[:, 1]) ** 2))


KINDS = {  # what the reference gives: (samples, the view) -> (kind, metric)
    "regression": (random(30, 2) * [16, 9] + [190, 170], {}, "values", "values"),
    "embedding": (random(30, 128), {}, "values", "values"),
    "image": (sigmoid(random(5, 3, 24, 24)), {"image": (24, 24)}, "values", "values"),
    "latents": (random(5, 4, 12, 12), {}, "values", "values"),
    "flow": (random(5, 2, 12, 12), {}, "values", "values"),
    "grey values": (sigmoid(random(5, 1, 24, 24)), {"image": (24, 24)}, "values", "values"),
    "probabilities": (softmax(random(30, 10) * 4), {}, "classes", "top1"),
    "probabilities of 1x1": (softmax(random(30, 10) * 4).reshape(30, 10, 1, 1), {}, "classes", "top1"),
    "logits": (random(30, 10) + 9 * np.eye(10, dtype=np.float32)[np.arange(30) % 10], {}, "classes", "top1"),
    "class map": (softmax(random(5, 4, 24, 24) * 4, 1), {"image": (24, 24)}, "class map", "argmax"),
    "class map, channels last": (softmax(random(5, 24, 24, 3) * 4), {"channels_last": True}, "class map", "argmax"),
    "sequence": (softmax(random(5, 30, 40) * 4), {}, "sequence", "argmax"),
    "sequence, classes first": (softmax(random(5, 40, 30) * 4, 1), {}, "sequence", "argmax"),
    "mask": (spots()[:, None], {"image": (24, 24)}, "mask", "mask:0.3"),
    "mask with a sigmoid just above 1": (np.nextafter(spots()[:, None], np.float32(2)), {"image": (24, 24)}, "mask", "mask:0.3"),
    "mask of another size than the image": (spots()[:, None], {"image": (96, 96)}, "values", "values"),
    "bools": (spots() > 0.5, {}, "labels", "equal"),
    "class numbers": (np.random.default_rng(0).integers(0, 9, (5, 24, 24)), {}, "labels", "equal"),
    "class numbers as floats": (np.random.default_rng(0).integers(0, 9, (5, 24, 24)).astype(np.float32), {}, "labels", "equal"),
    "zeros": (np.zeros((5, 3, 8, 8), np.float32), {}, "values", "values"),
    "a scalar": (random(9), {}, "values", "values"),
}


@pytest.mark.parametrize("what", KINDS)
def test_what_outputs_are_taken_for(what):
    samples, view, name, metric = KINDS[what]
    judged = study(same(samples), **view).judged()
    assert (judged.kind.name, judged.kind.metric) == (name, metric)
    assert judged.drop_percent == judged.shown_percent == 0 and (judged.signal_percent or 0) == 0


def test_synthetic_inputs_and_choices_of_the_user_are_no_evidence():
    samples = softmax(random(30, 10))
    assert study(same(samples), synthetic=True).judged().kind.metric == "noise"
    for asked in ("values", "top1", "noise", "cosine", "mask:0.5", "equal"):
        kind = study(same(samples), asked).judged().kind
        assert (kind.name, kind.metric) == ("as asked", asked)


def test_winners_and_the_signal_behind_them():
    """The same classes win, with a hundredth of the lead: nothing is left for a threshold."""
    logits = random(200, 10) + 9 * np.eye(10, dtype=np.float32)[np.arange(200) % 10]
    judged = study(list(zip(softmax(logits), softmax(logits / 50)))).judged()
    assert judged.kind.metric == "top1" and judged.drop_percent == 0 and judged.signal_percent > SIGNAL_LIMIT
    assert study(list(zip(softmax(logits), softmax(logits / 50))), "top1").judged().signal_percent is None, "as the user wants it"


def test_one_of_twenty_samples_shows_nothing():
    """It was undecided, and more than what counts as a tie."""
    logits = random(20, 10) + 9 * np.eye(10, dtype=np.float32)[np.arange(20) % 10]
    logits[7, [0, 1, 7]] = 9, 8.6, 0
    other = logits.copy()
    other[7, :2] = 8.6, 9
    judged = study(list(zip(logits, other))).judged()
    assert judged.drop_percent == pytest.approx(5) and judged.shown_percent == 0 and judged.interval[1] > 20 and judged.count == 20
    assert judged.signal_percent < SIGNAL_LIMIT


def test_a_mask_that_is_gone():
    judged = study([(one, one * 0.2) for one in spots()], image=(24, 24)).judged()
    assert judged.kind.name == "mask" and judged.drop_percent == 100 and judged.signal_percent > SIGNAL_LIMIT


def test_a_label_that_is_gone():
    reference = np.zeros((5, 40, 40), np.int64)
    reference[:, 5:8, 5:8] = 3
    judged = study([(one, one * 0) for one in reference]).judged()
    assert judged.drop_percent < 1 and judged.signal_percent > judged.signal_limit and judged.worst_slice in ("label 0", "label 3")


# ---- what holds whatever the kind


def test_an_identical_output():
    one = study(same(random(5, 3)))
    assert (one.judged().drop_percent, one.max_abs_error, one.nonfinite, one.sqnr_db) == (0, 0, 0, 200)


def test_one_percent_of_noise_is_20_db():
    one = study([(array(10, 0), array(10, 1))], "noise")
    assert one.judged().drop_percent == pytest.approx(1) and one.sqnr_db == pytest.approx(20)


def test_sqnr_is_pooled_and_bounded():
    assert study([(array(3), array(3.3)), (array(4), array(4))]).sqnr_db == pytest.approx(10 * math.log10(25 / 0.09), rel=1e-5)
    assert study([(array(0), array(1))]).sqnr_db == -200
    assert study([(array(1e-30), array(1e30))]).sqnr_db == -200
    assert study([(array(1, dtype="float64"), array(1 + 1e-15, dtype="float64"))]).sqnr_db == 200


def test_max_abs_error_is_the_largest_of_all_samples_and_of_either_sign():
    assert study([(array(1, 2), array(1, -1)), (array(1, 2), array(1.5, 2))]).max_abs_error == 3
    assert study([(array(), array())]).max_abs_error == 0


@pytest.mark.parametrize("asked", ["auto", "values", "noise", "cosine", "mask:0.5", "equal"])
def test_nonfinite_outputs_are_counted_where_the_model_is_finite(asked):
    one = study([(array(1, 2, INF, 4), array(NAN, -INF, INF, 4)), (array(1, 1, 1, 1), array(INF, 1, 1, 1))], asked)
    assert one.nonfinite == 3
    assert math.isfinite(one.judged().drop_percent) and math.isfinite(one.sqnr_db)


def test_a_nan_counts_as_an_error_of_the_whole_value():
    one = study([(array(3, 4), array(3, NAN))], "noise")
    assert one.judged().drop_percent == pytest.approx(100 * 16 / 25) and one.max_abs_error == 4
    assert study([(array(3, 4, INF), array(3, NAN, INF))], "noise").judged().drop_percent == pytest.approx(100 * 16 / 25)


def test_what_the_model_itself_makes_infinite_is_left_out():
    one = study([(array(3, INF), array(3, INF))], "noise")
    assert (one.nonfinite, one.judged().drop_percent, one.sqnr_db) == (0, 0, 200)


def test_drop_and_its_error_come_from_the_samples():
    one = study([(array(1, 0), array(1, 0))] * 3 + [(array(1, 0), array(0, 1))], "top1").judged()
    assert one.drop_percent == 25 and one.standard_error > 0 and one.drops == (0, 0, 0, 100)
    alone = study([(array(1, 0), array(1, 0))], "top1").judged()
    assert alone.standard_error is None and alone.interval == pytest.approx((0, 79.3), abs=0.1)


@pytest.mark.parametrize(
    ("references", "constant"),
    [
        ([array(5, 5)], True),
        ([array(5, 6)], False),  # one sample says nothing about change
        ([array(5, 6), array(5, 6)], True),
        ([array(5, 6), array(5, 6), array(6, 5)], False),
        ([array(5, 6), array(6, 5), array(5, 6)], False),
        ([array(5, 5), array(6, 6)], False),
        ([array(5, 5), array(5, 5)], True),
        ([array()], True),
    ],
)
def test_a_reference_that_never_changes_is_seen(references, constant):
    assert study(same(references)).constant is constant


def test_a_candidate_that_never_changes_is_seen():
    assert study([(array(1, 2), array(1, 2)), (array(1, 3), array(1, 2))]).stuck
    assert not study([(array(1, 2), array(1, 2)), (array(1, 2), array(1, 2))]).stuck, "as the reference"
    assert not study([(array(1, 2), array(3, 4))]).stuck


@pytest.mark.parametrize("asked", ["top1", "argmax"])
def test_masked_classes_do_not_hide_a_wrong_class(asked):
    wide = (array(-INF, -1, -2), array(-INF, -2, -1))
    assert study([wide if asked == "top1" else tuple(one[:, None, None] for one in wide)], asked).judged().drop_percent == 100


def test_the_drop_of_the_last_sample_alone():
    one = Study("y", "noise")
    for error in (1, 0.1):
        one.add(array(10, 0), array(10, error), "a")
    assert one.last_drop(one.kind()) == pytest.approx(0.01)
