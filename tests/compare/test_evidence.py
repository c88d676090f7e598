"""compare/evidence.py: what an output is shown as, and how much of it is kept for the report."""

import numpy as np
import pytest

from onnx2trt.compare.detections import Detector
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


# ---- detectors, vectors, sequences


def scores_at(place: int, score: float) -> np.ndarray:
    """A detector's output [5, 40] with a box at one place."""
    output = np.zeros((5, 40), np.float32)
    output[:4] = np.array([[50.0], [50.0], [20.0], [20.0]])
    output[4, place] = score
    return output


def watched(evidence: Evidence, samples: list, detector: Detector | None = None, origin: str = "data") -> Watch:
    """After all samples (model's output, the other's) were seen."""
    study, watch = Study("y"), Watch(evidence, origin, (100, 100), False, detector)
    for index, (reference, output) in enumerate(samples):
        study.add(reference, output, f"{index}.npy")
        watch.see(study, reference, output, f"{index}.npy")
    watch.end({"y": study}, {"y": study.judged()})
    return watch


def test_boxes_are_kept_of_a_detector_and_of_the_first_sample_that_has_some():
    samples = [(scores_at(index, score), scores_at(index, 0.9 * score)) for index, score in enumerate((0.0, 0.0, 0.9, 0.8))]
    watch = watched(Evidence(), samples, Detector((100, 100), names={0: "thing"}))
    assert watch.outputs["y"].kind == "boxes" and not len(watch.outputs["y"].reference)
    path, example = watch.examples["y"]
    assert path == "2.npy" and example.reference[0, 4] == pytest.approx(0.9) and example.candidate[0, 4] == pytest.approx(0.81)
    assert watched(Evidence(), samples).outputs["y"].kind == "values", "nobody says that it is a detector"
    assert watched(Evidence(), samples[2:], Detector((100, 100))).examples == {}


def test_made_up_inputs_have_no_boxes():
    watch = watched(Evidence(), [(scores_at(0, 0.9),) * 2], Detector((100, 100), names={0: "thing"}), "synthetic")
    assert watch.outputs["y"].kind == "values"


def test_the_worst_sample_is_kept_of_values_too():
    random = np.random.default_rng(0)
    references = [random.standard_normal(40).astype(np.float32) for _ in range(6)]
    evidence = Evidence()
    watch = watched(evidence, [(one, one + (0.5 if index == 4 else 0.001)) for index, one in enumerate(references)])
    assert watch.outputs["y"].kind == "values" and watch.worst["y"][1] == "4.npy"
    (vectors,) = evidence.vectors
    assert vectors.paths == tuple(f"{index}.npy" for index in range(6)) and vectors.candidate.shape == (6, 40)
    np.testing.assert_allclose(vectors.reference, references)


@pytest.mark.parametrize("shape", [(15,), (2, 40), (5000,)])
def test_no_vectors_are_kept_of_what_is_too_short_too_long_or_no_vector(shape):
    random, evidence = np.random.default_rng(0), Evidence()
    watched(evidence, [(random.standard_normal(shape),) * 2 for _ in range(4)])
    assert evidence.vectors == []


def test_a_line_goes_through_a_vector_or_through_the_channel_that_differs_most():
    wave = np.sin(np.arange(5000) / 9)
    other = wave.copy()
    other[4900] += 1
    series = look("y", "values", None, wave[None], other[None], False).series
    assert series.shape == (2, 800) and (series[0] != series[1]).sum() == 1, "the part in which they differ"
    both = np.random.default_rng(0).standard_normal((2, 50, 7))
    both[1] = both[0] + 0.001
    both[1, :, 3] += 1
    np.testing.assert_array_equal(look("y", "values", None, *both, False).series, both[:, :, 3])
    assert look("y", "values", None, blobs(4), blobs(4), False).series is None
    assert look("y", "values", None, np.zeros(15), np.zeros(15), False).series is None
