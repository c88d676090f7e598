"""compare/detections.py: boxes out of the layouts of detectors, without doubles, and which of two answers belong together."""

import numpy as np
import pytest

from onnx2trt.compare.detections import LEAST, MOST_BOXES, SAME, SHOWN, Detector, match, overlap

SIZE = (240, 320)  # height, width
NAMES = {0: "cat", 1: "dog", 2: "bird"}


def made(random: np.random.Generator, count: int = 5) -> np.ndarray:
    """[count, 6] of boxes that do not overlap: corners in whole pixels, score, class; the surest first."""
    rows = []
    for index in range(count):
        x, y = 60 * index + random.integers(0, 10), random.integers(0, 100)
        rows.append((x, y, x + random.integers(10, 48), y + random.integers(10, 100), 0.95 - 0.1 * index, random.integers(0, 3)))
    return np.array(rows, np.float64)


def written(boxes: np.ndarray, form: str, random: np.random.Generator, classes: int = 3, rows: int = 200) -> np.ndarray:
    """What a network gives for these boxes: at random places among rows that find nothing, each twice, but where doubles are removed."""
    if form == "finished":
        found = np.zeros((rows, 6), np.float32)
        found[: len(boxes)] = boxes
        return found
    begin = 5 if form == "objects" else 4
    found = np.zeros((rows, begin + classes), np.float32)
    found[:, :4] = random.uniform(5, 100, (rows, 4))
    places = random.permutation(rows)[: 2 * len(boxes)].reshape(2, -1)
    for place, weaker in zip(places, (1.0, 0.9)):
        found[place, :2], found[place, 2:4] = (boxes[:, :2] + boxes[:, 2:4]) / 2, boxes[:, 2:4] - boxes[:, :2]
        scores = boxes[:, 4] * weaker
        if form == "objects":
            found[place, 4], scores = 0.99, scores / 0.99
        found[place, begin + boxes[:, 5].astype(int)] = scores
    return found.T if form == "columns" else found


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("form", ["columns", "rows", "finished", "objects"])
@pytest.mark.parametrize("lead", [(), (1,)])
def test_every_layout_gives_back_what_was_written(form, named, lead, seed):
    random = np.random.default_rng(seed)
    boxes = made(random)
    output = written(boxes, form, random)
    detector = Detector(SIZE, "yolov5" if form == "objects" else "yolo", names=NAMES if named else {})
    output = output.reshape(*lead, *output.shape)
    assert detector.form(output.shape) == form
    found = detector.boxes(output)
    np.testing.assert_allclose(found, boxes, atol=1e-3)


def test_parts_of_the_image_become_pixels():
    random = np.random.default_rng(0)
    boxes = made(random)
    parts = boxes / (320, 240, 320, 240, 1, 1)
    output = written(parts, "columns", random)
    output[:4] = np.where(output[4:].max(0) > 0, output[:4], 0.1)
    np.testing.assert_allclose(Detector(SIZE, names=NAMES).boxes(output), boxes, atol=1e-2)


@pytest.mark.parametrize("shape", [(7,), (7, 200, 3), (), (1, 1), (4, 200)])
def test_other_outputs_hold_no_boxes(shape):
    assert Detector(SIZE).form(shape) is None and Detector(SIZE, "yolov5").form(shape) is None


def test_a_known_number_of_classes_decides():
    assert Detector(SIZE, names=NAMES).form((1, 7, 200)) == "columns" and Detector(SIZE, names=NAMES).form((1, 9, 200)) is None
    assert Detector(SIZE, task="segment", names=NAMES).form((39, 200)) == "columns", "coefficients of masks stand behind the scores"
    two = Detector(SIZE, names={0: "a", 1: "b"})
    assert two.form((6, 200)) == "columns" and two.form((300, 6)) == "finished"


def test_masks_and_key_points_are_no_classes():
    random = np.random.default_rng(0)
    boxes = made(random)
    output = np.concatenate([written(boxes, "columns", random), np.full((32, 200), 9.0, np.float32)])
    np.testing.assert_allclose(Detector(SIZE, task="segment", names=NAMES).boxes(output), boxes, atol=1e-3)


def test_values_that_are_not_finite_are_no_boxes():
    output = np.full((7, 200), np.nan, np.float32)
    assert Detector(SIZE, names=NAMES).boxes(output).shape == (0, 6)


def test_the_number_of_boxes_is_bounded():
    output = written(np.zeros((0, 6)), "columns", np.random.default_rng(0), rows=5000)
    output[0] = np.arange(5000) * 200.0
    output[4] = 0.9
    assert len(Detector(SIZE, names=NAMES).boxes(output)) == MOST_BOXES


# ---- two answers


def test_overlap_is_intersection_over_union():
    a = np.array([[0, 0, 10, 10]], float)
    b = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30], [3, 3, 3, 3]], float)
    np.testing.assert_allclose(overlap(a, b)[0], [1, 1 / 3, 0, 0])


@pytest.mark.parametrize("seed", range(10))
def test_boxes_that_moved_a_little_are_matched_in_whatever_order(seed):
    random = np.random.default_rng(seed)
    model = made(random)
    engine = model + random.uniform(-1, 1, model.shape) * (0.5, 0.5, 0.5, 0.5, 0.02, 0)
    order = random.permutation(len(model))
    pairs = match(model, engine[order])
    assert len(pairs) == len(model)
    for pair in pairs:
        place = int(np.flatnonzero((model == pair.model).all(1))[0])
        assert np.array_equal(pair.engine, engine[place]) and pair.overlap > SAME


def test_what_only_one_has_stands_alone_and_a_weak_partner_is_a_partner():
    box = [0, 0, 50, 50, 0.9, 0]
    weak = [0, 0, 50, 50, (SHOWN + LEAST) / 2, 0]
    far = [100, 100, 150, 150, 0.5, 1]
    (first, second) = match(np.array([box]), np.array([weak, far]))
    assert first.engine[4] < SHOWN and first.overlap == 1 and second.model is None and second.overlap == 0
    assert match(np.array([weak]), np.array([weak])) == [], "neither has found it"
    assert match(np.zeros((0, 6)), np.zeros((0, 6))) == []


def test_boxes_of_a_class_go_together_before_others_do():
    model = np.array([[0, 0, 50, 50, 0.9, 0.0]])
    engine = np.array([[0, 0, 50, 50, 0.9, 1.0], [0, 0, 50, 40, 0.5, 0.0]])
    pairs = match(model, engine)
    assert [pair.engine[5] for pair in pairs if pair.model is not None] == [0.0]
    (changed,) = match(model, engine[:1])
    assert changed.model[5] == 0 and changed.engine[5] == 1
