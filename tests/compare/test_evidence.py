"""compare/evidence.py: what an output is shown as, and how much of it is kept for the report."""

import numpy as np
import pytest

from onnx2trt.compare.evidence import Evidence, Watch, choose_kind, look
from onnx2trt.compare.study import Kind, Study


def blobs(channels: int, height=24, width=32) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((channels, height, width)).astype(np.float32)


KINDS = [  # reference sample, image size, metric -> what it is shown as
    (np.eye(1, 10)[0], None, "top1", "scores"),
    (np.zeros((10, 1, 1)), (24, 32), "argmax", "scores"),
    (blobs(4), (24, 32), "argmax", "classes"),
    (blobs(4), None, "values", "values"),
    (np.zeros((24, 32), np.int64), (24, 32), "equal", "classes"),  # class numbers
    (np.full((1, 24, 32), 0.5), (24, 32), "mask:0.3", "mask"),
    (blobs(1), (24, 32), "mask:0.5", "mask"),  # by the user's choice
    (blobs(1), (24, 32), "values", "map"),
    (np.zeros((24, 32), bool), (24, 32), "equal", "mask"),
    (blobs(1, 4, 4), (24, 32), "noise", "values"),
    (blobs(1)[0], (24, 32), "noise", "map"),
    (blobs(1)[0], None, "argmax", "values"),  # a sequence
    (np.zeros((7, 5)), (24, 32), "values", "values"),
    (np.float32(3), None, "values", "values"),
    (np.zeros((0, 5)), None, "rows", "values"),
]


@pytest.mark.parametrize(("reference", "size", "metric", "expected"), KINDS)
def test_what_an_output_is_shown_as(reference, size, metric, expected):
    assert choose_kind(np.asarray(reference), size, Kind("any", metric), False)[0] == expected
    assert choose_kind(np.asarray(reference), size, Kind("any", metric), True)[0] == "values"  # made-up inputs


@pytest.mark.parametrize("extra", [(), (1,)])
def test_classes_of_channels_last_models(extra):
    values = blobs(4).transpose(1, 2, 0)
    values = values.reshape(*extra, *values.shape)
    assert choose_kind(values, (24, 32), Kind("class map", "argmax"), False)[0] == "classes"
    kept = look("y", "classes", None, values, values, True)
    assert np.array_equal(kept.reference, blobs(4).argmax(0)) and kept.differing_share == 0


def test_what_is_kept_is_bounded_and_a_single_different_pixel_survives():
    reference = np.zeros((2, 1700, 1001), np.float32)
    candidate = reference.copy()
    candidate[1, 1234, 777] = 1
    kept = look("y", "classes", None, reference, candidate, False)
    assert max(kept.reference.shape) <= 800 and kept.differing.shape == kept.reference.shape
    assert kept.differing.sum() == 1 and kept.differing[1234 // 3, 777 // 3]
    assert kept.differing_share == pytest.approx(1 / (1700 * 1001))
    values = look("y", "values", None, reference, candidate, False)
    assert values.reference.size == values.candidate.size == 50_000


def test_the_first_sample_and_the_worst_are_kept_and_the_drop_of_each():
    evidence, study = Evidence(), Study("y")
    watch = Watch(evidence, "data", None, False)
    random = np.random.default_rng(0)
    for index in range(9):
        reference = random.standard_normal((1, 12, 12)).astype(np.float32)
        output = reference + (1 if index == 5 else 0.01)
        study.add(reference, output, f"{index}.npy")
        watch.see(study, reference, output, f"{index}.npy")
    watch.end({"y": study}, {"y": study.judged()})
    assert watch.path == "0.npy" and watch.worst["y"][1] == "5.npy" and watch.outputs["y"].kind == "map"
    (drops,) = evidence.drops
    assert drops.metric == "values" and drops.paths[5] == "5.npy" and int(np.argmax(drops.percent)) == 5 and len(drops.percent) == 9
