"""compare/rows.py: which outputs are lists, and what is lost of their rows."""

import numpy as np
import pytest

from onnx2trt.compare.rows import LOOKED_AT, Lists


def findings(reference, output, **options):
    """Of samples of outputs, as {name: array}."""
    unbatched = options.pop("unbatched", ())
    lists = Lists(**options)
    for a, b in zip(reference, output):
        lists.add({name: (a[name], b[name]) for name in a}, unbatched=unbatched)
    return lists.findings()


def best(random, count=20, samples=4, classes=5):
    """Detections sorted by score."""
    found = []
    for _ in range(samples):
        corner = random.random((count, 2)) * 300
        boxes = np.concatenate([corner, corner + 20 + 40 * random.random((count, 2))], 1).astype(np.float32)
        scores = np.sort(random.random(count)).astype(np.float32)[::-1].copy()
        found.append({"boxes": boxes, "scores": scores, "labels": random.integers(0, classes, count)})
    return found


def each(samples, change):
    return [change({name: array.copy() for name, array in sample.items()}) for sample in samples]


def swapped(sample, first=3):
    order = np.arange(len(sample["scores"]))
    order[[first, first + 1]] = order[[first + 1, first]]
    return {name: array[order] for name, array in sample.items()}


def test_outputs_with_as_many_rows_are_one_list_in_the_order_of_its_scores():
    reference = best(np.random.default_rng(0))
    found = findings(reference, reference)
    assert set(found) == {"boxes", "scores", "labels"} and all(one.drop_percent == 0 for one in found.values())


def test_rows_that_changed_places_are_found_again():
    reference = best(np.random.default_rng(0))
    for one in findings(reference, each(reference, swapped)).values():
        assert one.drop_percent < 1e-6 and one.energies[1] == 0


def test_what_was_lost_is_seen():
    random = np.random.default_rng(0)
    reference = best(random)
    lost = {
        "labels": lambda one: one | {"labels": one["labels"] + 1},
        "objects": lambda one: one | {"boxes": one["boxes"][::-1]},
        "boxes": lambda one: one | {"boxes": one["boxes"] * 0},
        "scores": lambda one: one | {"scores": one["scores"] * 0.5},
    }
    for what, change in lost.items():
        worst = max(findings(reference, each(reference, change)).values(), key=lambda one: one.shown_percent)
        assert worst.shown_percent > 10, what
    shifted = findings(reference, each(reference, lambda one: one | {"boxes": one["boxes"] + 6}))
    assert shifted["boxes"].drop_percent > 3 and shifted["boxes"].column is not None and shifted["labels"].drop_percent == 0


def test_who_just_missed_the_list_is_no_loss():
    reference = best(np.random.default_rng(0), count=30)

    def last(one):
        one["boxes"][-1] = [1, 2, 3, 4]
        one["labels"][-1] += 1
        return one

    assert findings(reference, each(reference, last))["boxes"].drop_percent < 0.1

    def first(one):
        one["boxes"][0] = [1, 2, 3, 4]
        one["labels"][0] += 1
        return one

    assert findings(reference, each(reference, first))["boxes"].drop_percent > 5


def test_columns_of_one_output_are_scores_and_labels():
    """[K, 6] of an end-to-end detector."""
    reference = best(np.random.default_rng(0))

    def joined(one):
        return {"y": np.concatenate([one["boxes"], one["scores"][:, None], one["labels"][:, None]], 1).astype(np.float32)}

    plain = each(reference, joined)
    assert findings(plain, each(each(reference, swapped), joined))["y"].drop_percent < 1e-6
    other = each(each(reference, lambda one: one | {"labels": one["labels"] + 1}), joined)
    assert findings(plain, other)["y"].drop_percent > 90


def test_another_number_of_rows_is_no_failure_by_itself():
    reference = best(np.random.default_rng(0), count=25)
    fewer = each(reference, lambda one: {name: array[:-1] for name, array in one.items()})
    found = findings(reference, fewer)
    assert set(found) == {"boxes", "scores", "labels"} and found["boxes"].drop_percent < 1
    half = each(reference, lambda one: {name: array[::2] for name, array in one.items()})
    assert findings(reference, half)["boxes"].shown_percent > 20


def test_always_another_number_is_another_shape_but_of_lists_without_a_batch():
    values = np.random.default_rng(0).standard_normal((3, 30, 4))
    reference, output = [{"y": one} for one in values], [{"y": one[:29]} for one in values]
    assert findings(reference, output) == {} and findings(reference, output, unbatched=("y",))["y"].drop_percent == 0


def test_selected_indices_are_a_set():
    random = np.random.default_rng(0)
    reference = [{"y": np.stack([np.zeros(n, int), np.arange(n) % 3, random.permutation(500)[:n]], 1)} for n in (12, 14, 9, 11)]
    turned = [{"y": one["y"][::-1]} for one in reference]
    one_less = [{"y": one["y"][:-1]} for one in reference]
    half = [{"y": one["y"][::2]} for one in reference]
    assert findings(reference, turned)["y"].drop_percent == 0 == findings(reference, one_less)["y"].drop_percent
    assert findings(reference, half)["y"].shown_percent > 10


def test_a_list_of_one_row_looks_like_a_sample_of_a_batch():
    rows = [np.arange(3 * n).reshape(n, 3) + index for index, n in enumerate((2, 1, 4))]
    for order in ((0, 1, 2), (1, 0, 2)):
        samples = [{"y": rows[index][0] if len(rows[index]) == 1 else rows[index]} for index in order]
        assert findings(samples, samples)["y"].drop_percent == 0


def test_the_number_of_rows_of_a_padded_list_belongs_to_it():
    random = np.random.default_rng(0)
    reference = []
    for one in best(random, count=20, samples=6):
        told = one["scores"] > (0.4 if len(reference) else -1)  # the first list is full
        reference.append({"boxes": one["boxes"] * told[:, None], "scores": one["scores"] * told, "number": np.array([told.sum()])})
    reference[0]["scores"][-1] = max(reference[0]["scores"][-1], 0.01)
    output = [one | {"number": one["number"] + 1} for one in reference]
    assert findings(reference, output)["number"].drop_percent == 0


NO_LISTS = {
    "colours": lambda random: np.sort(random.random((3, 20, 20)), 0)[::-1],
    "features": lambda random: random.standard_normal((30, 6)),
    "one falling output": lambda random: np.sort(random.random(50))[::-1],
    "class numbers": lambda random: random.integers(0, 5, (30, 30)),
    "a short sequence of tokens": lambda random: random.integers(0, 50000, 8),
}


@pytest.mark.parametrize("what", NO_LISTS)
def test_other_outputs_are_no_lists(what):
    random = np.random.default_rng(0)
    samples = [{"y": NO_LISTS[what](random)} for _ in range(20)]
    assert findings(samples, samples) == {}


def test_sequences_as_long_as_their_inputs_are_no_lists():
    random = np.random.default_rng(0)
    lists = Lists()
    for length in (20, 25, 30):
        values = random.standard_normal((length, 7))
        lists.add({"y": (values, values)}, inputs=length)
    assert lists.findings() == {}
    lists = Lists()
    for length in (20, 25, 30):
        values = random.standard_normal((length, 7))
        lists.add({"y": (values, values)}, inputs=(1, 3, 640, 640))
    assert set(lists.findings()) == {"y"}


def test_what_is_asked_for_is_a_list():
    samples = [{"y": np.random.default_rng(index).standard_normal((20, 4))} for index in range(3)]
    turned = [{"y": one["y"][::-1]} for one in samples]
    assert findings(samples, turned) == {} and findings(samples, turned, asked=frozenset("y"))["y"].drop_percent < 1e-6


def test_what_shows_no_sign_is_forgotten():
    lists = Lists()
    for index in range(LOOKED_AT + 1):
        values = np.random.default_rng(index).standard_normal((20, 4))
        lists.add({"y": (values, values)})
    assert not lists._outputs and lists.findings() == {}
