"""compare/outputs.py: how outputs become samples, and all of them a verdict."""

import numpy as np
import pytest
from models import random

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.compare.outputs import Comparison, OtherShape
from onnx2trt.data.reader import Batch


def row(expected, found, rows, metric="auto"):
    """The comparison of one output of one inference."""
    batch = Batch({}, rows, rows, ("a.npz",) * max(rows, 1))
    choice = () if metric == "auto" else (("", metric),)
    return Comparison(("y",), choice).compare(lambda _: {"y": expected}, lambda _: {"y": found}, [batch], origin="data")[0]


def runs(reference, output, **options):
    """Of several inferences: [(outputs of the reference, of the candidate, real rows, rows)]."""
    batches = [Batch({"at": np.array(index)}, rows, real, (f"{index}.npz",) * max(real, 1)) for index, (real, rows) in enumerate(output)]
    pairs = iter(reference)
    by_batch = [next(pairs) for _ in batches]
    names = tuple(by_batch[0][0])
    comparison = Comparison(names, **options)
    return comparison.compare(
        lambda b: by_batch[int(b.arrays["at"])][0], lambda b: by_batch[int(b.arrays["at"])][1], batches, origin="data"
    )


def test_classes_are_compared_along_their_own_axis_where_inputs_have_no_common_batch():
    expected = random(1, 3, 8, 8)
    assert row(expected, -expected, rows=0).drop_percent > 90
    assert row(expected, -expected, rows=1).drop_percent > 90


def test_the_first_axis_counts_samples_for_top1():
    expected = np.eye(6, 5, dtype=np.float32)
    found = expected.copy()
    found[0] = [0, 1, 0, 0, 0]
    for rows in (0, 1, 6):
        accuracy = row(expected, found, rows, metric="top1")
        assert accuracy.samples == 6 and abs(accuracy.drop_percent - 100 / 6) < 1e-9


def test_argmax_over_the_last_axis_of_a_sequence():
    expected = random(1, 20, 7)
    found = expected.copy()
    found[0, :5] *= -1
    accuracy = row(expected, found, rows=1, metric="argmax")
    assert accuracy.metric == "argmax" and abs(accuracy.drop_percent - 25) < 1e-9


def test_rows_that_fill_up_a_batch_count_nowhere():
    expected = random(4, 10, seed=1)
    broken = expected.copy()
    broken[2:] = np.nan
    found = runs([({"y": expected}, {"y": expected}), ({"y": expected}, {"y": broken})], [(4, 4), (2, 4)])[0]
    assert found.samples == 6 and found.nonfinite == 0 and found.drop_percent == 0


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_batch_changes_nothing(batch):
    reference, output = random(10, 3, 9, 9), random(10, 3, 9, 9) + random(10, 3, 9, 9, seed=1, scale=0.02)
    pairs = [({"y": reference[at : at + batch]}, {"y": output[at : at + batch]}) for at in range(0, 10, batch)]
    found = runs(pairs, [(batch, batch)] * len(pairs))[0]
    alone = runs([({"y": a[None]}, {"y": b[None]}) for a, b in zip(reference, output)], [(1, 1)] * 10)[0]
    assert found.drop_percent == pytest.approx(alone.drop_percent) and found.samples == alone.samples == 10


def test_an_output_without_the_batch_is_one_sample_of_each_inference():
    pairs = [
        ({"y": random(7, 3, seed=s), "z": random(2, 4, seed=s)}, {"y": random(7, 3, seed=s), "z": random(2, 4, seed=s)}) for s in range(5)
    ]
    found = {one.output: one for one in runs(pairs, [(2, 2)] * 5)}
    assert found["y"].samples == 5 and found["z"].samples == 10


def test_metrics_of_single_outputs():
    values = {"a": random(40, 6), "b": random(40, 6, seed=1)}
    found = runs([(values, values)], [(40, 40)], metric=(("", "top1"), ("b", "noise")))
    assert {one.output: (one.metric, one.kind) for one in found} == {"a": ("top1", "as asked"), "b": ("noise", "as asked")}
    assert {one.kind for one in runs([(values, values)], [(40, 40)], metric=(("b", "noise"),))} == {"values", "as asked"}
    with pytest.raises(ConversionError) as problem:
        runs([(values, values)], [(40, 40)], metric=(("b", "argmax"),))
    assert problem.value.code is ExitCode.USAGE and "b:argmax" in problem.value.message


def test_another_shape_is_an_error_but_for_lists():
    with pytest.raises(OtherShape, match=r"output 'y' has shape \[1, 2, 9\], the ONNX model gives \[1, 3, 9\]"):
        runs([({"y": random(1, 3, 9)}, {"y": random(1, 2, 9)})] * 3, [(1, 1)] * 3)
    with pytest.raises(OtherShape, match=r"output 'y' has shape \[2, 9\], the ONNX model gives \[3, 9\]"):
        runs([({"y": random(3, 9)}, {"y": random(2, 9)})], [(3, 3)])
    boxes = random(30, 4, scale=50)
    found = runs([({"y": boxes}, {"y": boxes[:29]})] * 3, [(1, 1)] * 3)[0]
    assert found.kind == found.metric == "rows" and found.drop_percent == 0 and found.excess(1.0) <= 1


def test_synthetic_inputs_are_compared_by_noise():
    batch = Batch({}, 1, 1, ("synthetic",))
    found = Comparison(("y",)).compare(lambda _: {"y": random(1, 10)}, lambda _: {"y": random(1, 10) * 1.1}, [batch], "synthetic")[0]
    assert found.metric == "noise" and found.drop_percent == pytest.approx(1, rel=1e-4)


def test_no_sample_is_an_error():
    with pytest.raises(ConversionError, match="no sample of data"):
        Comparison(("y",)).compare(None, None, [], "data")


def test_what_is_learned_of_the_reference_holds_for_the_next_pass():
    comparison, few = Comparison(("y",)), random(20, 3)

    def compare(error):
        batches = [Batch({"at": np.array(index)}, 1, 1, (str(index),)) for index in range(20)]
        return comparison.compare(
            lambda b: {"y": few[b.arrays["at"]][None]}, lambda b: {"y": few[b.arrays["at"]][None] + error}, batches, "data"
        )[0]

    first, again = compare(0.1), compare(0.1)
    assert first == again and comparison.learned["y"].variation.samples == 20
    assert compare(0.2).drop_percent == pytest.approx(4 * first.drop_percent, rel=1e-3)


def maps(count, classes, size=12):
    """Logits of classes in blobs, [count, classes, size, size]."""
    field = random(count, classes, 3, 3, scale=6).repeat(size // 3, axis=2).repeat(size // 3, axis=3)
    return field + random(count, classes, size, size, seed=1, scale=0.3)


def sigmoid(values):
    return (1 / (1 + np.exp(-np.clip(values, -50, 50)))).astype(np.float32)


OUTPUTS = {  # what it is taken for -> (reference of 24 samples, error of a candidate, options)
    "class map": (sigmoid(maps(24, 5)) / sigmoid(maps(24, 5)).sum(1, keepdims=True), 0.2, {}),
    "classes": (4 * np.eye(7, dtype=np.float32)[np.arange(24) % 7] + random(24, 7, scale=0.3), 1.5, {}),
    "sequence": (8 * np.eye(9, dtype=np.float32)[np.arange(24 * 11).reshape(24, 11) % 9] + random(24, 11, 9, scale=0.3), 2.0, {}),
    "mask": (sigmoid(20 * maps(24, 1)), 0.2, {"image": (12, 12)}),
    "labels": ((np.arange(24 * 50).reshape(24, 50) // 9 % 4).astype(np.int64), 0.3, {}),
    "values": (random(24, 16, 5), 0.1, {}),
}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_whatever_was_learned_the_verdict_is_that_of_a_first_pass(kind):
    reference, size, options = OUTPUTS[kind]

    def rows(comparison, seed):
        noise = np.random.default_rng(seed).standard_normal(reference.shape).astype(np.float32) * size
        found = reference + noise if reference.dtype.kind == "f" else np.where(noise > 2 * size, 0, reference)
        batches = [Batch({"at": np.array(index)}, 1, 1, (str(index),)) for index in range(len(reference))]
        given, answered = (lambda b, values=values: {"y": values[b.arrays["at"]][None]} for values in (reference, found))
        return comparison.compare(given, answered, batches, "data")

    comparison = Comparison(("y",), **options)
    assert rows(comparison, 0)[0].kind == kind
    for seed in range(1, 4):
        again, fresh = rows(comparison, seed)[0], rows(Comparison(("y",), **options), seed)[0]
        assert again == fresh and again.drop_percent > 0


def test_a_state_that_goes_round_is_compared_over_many_steps():
    def model(keep):
        def run(batch):
            state = keep * batch.arrays["h_in"] + 0.1 * batch.arrays["x"]
            return {"y": state[:, :2].copy(), "h_out": state}

        return run

    batches = [Batch({"x": random(1, 4, seed=index), "h_in": np.zeros((1, 4), np.float32)}, 1, 1, (f"{index}.npz",)) for index in range(8)]
    rows = Comparison(("y", "h_out"), states={"h_out": "h_in"}).compare(model(0.95), model(0.5), batches, "data")
    single, steps = ({one.output: one for one in rows if bool(one.steps) is many} for many in (False, True))
    assert set(single) == set(steps) == {"y", "h_out"} and steps["y"].steps == steps["y"].samples == 64
    assert single["y"].drop_percent == 0 and steps["y"].excess(1.0) > 1, "single steps start from the state that the data gives"
    assert single["h_out"].feeds == "h_in" and single["y"].feeds is None and "fed back to input 'h_in'" in single["h_out"].seen_as()
