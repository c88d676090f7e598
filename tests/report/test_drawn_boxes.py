"""report/drawn_boxes.py: boxes of both on the page, with their numbers, and what they come to in a sentence."""

import numpy as np
import pytest
from html_page import Page
from made_results import result

from onnx2trt.compare.detections import Detector
from onnx2trt.compare.evidence import Evidence, Output, Sample
from onnx2trt.report import html
from onnx2trt.report.drawn_boxes import ROWS, boxes

DETECTOR = Detector((240, 320), names={0: "<b>cat", 1: "dog"})
ONE, TWO, THREE = ([x, 10, x + 40, 60, score, kind] for x, score, kind in ((10, 0.9, 0), (110, 0.7, 1), (210, 0.4, 1)))


def output(model: list, engine: list) -> Output:
    both = (np.array(found, np.float64).reshape(-1, 6) for found in (model, engine))
    return Output("y", "boxes", (6, 100), *both, detector=DETECTOR)


def moved(box: list, score: float = 0.0, kind: int | None = None) -> list:
    return [*(place + 1 for place in box[:4]), box[4] + score, box[5] if kind is None else kind]


SENTENCES = [
    ([], [], "Neither finds anything in this image."),
    ([], [ONE], "The model finds nothing in this image; the engine finds 1."),
    ([ONE], [ONE], "The one box of the model is found again by the engine; scores differ by less than 0.001."),
    ([ONE], [], "The one box of the model is not found again by the engine."),
    ([ONE, TWO], [moved(ONE, -0.05), TWO], "All 2 boxes of the model are found again by the engine; scores differ by 0.050 at most."),
    ([ONE, TWO], [ONE, THREE], "1 of 2 boxes of the model are found again by the engine; scores differ by less than 0.001. "),
    ([ONE], [moved(ONE, 0, 1)], "The one box of the model is not found again by the engine."),
]


@pytest.mark.parametrize("model, engine, sentence", SENTENCES)
def test_the_sentence(model, engine, sentence):
    assert boxes(output(model, engine), "engine")["sentence"].startswith(sentence)


def test_rows_and_marks_have_the_same_numbers_and_a_changed_class_is_named():
    found = boxes(output([ONE, TWO], [moved(ONE, -0.1), moved(TWO, 0, 0), THREE]), "engine")
    assert [row["name"] for row in found["rows"]] == ["<b>cat", "dog → <b>cat", "dog"]
    assert [row["same"] for row in found["rows"]] == [True, False, False]
    assert found["rows"][0]["model"] == 0.9 and found["rows"][0]["engine"] == pytest.approx(0.8) and found["rows"][2]["overlap"] is None
    assert [(mark["of"], mark["number"]) for mark in found["marks"]] == [
        ("model", 1),
        ("engine", None),
        ("model", 2),
        ("engine", None),
        ("engine", 3),
    ]
    assert found["size"] == (320, 240)


def test_many_boxes_are_cut_short():
    many = [[5 * index, 0, 5 * index + 4, 9, 0.9, 0] for index in range(ROWS + 7)]
    found = boxes(output(many, many), "engine")
    assert len(found["rows"]) == ROWS and found["more"] == 7


@pytest.mark.parametrize("image", [True, False])
def test_the_page_draws_both_over_the_image(image):
    pixels = np.full((240, 320, 3), 90, np.uint8) if image else None
    one = output([ONE, TWO], [ONE, THREE])
    kept = Evidence(True, Sample("p", "p/first.jpg", pixels, (one,)))
    kept.worst = [Sample("p", "p/worst.jpg", pixels, (one,))]
    kept.examples = [Sample("p", "p/found.jpg", pixels, (one,)), Sample("p", "p/worst.jpg", pixels, (one,))]
    read = Page(html.render(result(), kept, []))
    read.check_alone()
    shown = read.sections["outputs"]
    assert len(read.images) == 3 * image and read.source.count('<rect class="by-model"') == 3 * 2 == read.source.count('"by-engine" x')
    assert "<b>cat" in shown and "0.900" in shown and "1 of 2 boxes" in shown and ("so there is no image" in shown) is not image
    assert "found.jpg" in shown and shown.count("worst.jpg") == 1, "a sample is shown once"
