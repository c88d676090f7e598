"""report/neighbours.py: whether samples keep their nearest one."""

import numpy as np
import pytest
from html_page import Page
from made_results import result

from onnx2trt.compare.evidence import Evidence, Sample, Vectors, look
from onnx2trt.report import html
from onnx2trt.report.neighbours import ROWS, neighbours


def evidence(reference: np.ndarray, candidate: np.ndarray) -> Evidence:
    paths = tuple(f"faces/{index}.jpg" for index in range(len(reference)))
    return Evidence(True, vectors=[Vectors("faces", "embedding", paths, reference, candidate)])


def vectors(count: int = 12) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 32)).astype(np.float32)


def test_a_little_noise_and_other_lengths_change_nothing():
    reference = vectors()
    (found,) = neighbours(evidence(reference, 3 * reference + 1e-4))
    assert found["same"] == found["samples"] == 12 and len(found["rows"]) == ROWS and all(row["same"] for row in found["rows"])


def test_a_sample_that_has_another_neighbour_stands_first():
    reference = vectors()
    reference[1] = reference[0] + 0.01
    candidate = reference.copy()
    candidate[0] = reference[7] + 0.01
    (found,) = neighbours(evidence(reference, candidate))
    first = found["rows"][0]
    assert found["same"] < 12 and not first["same"]
    row = next(row for row in found["rows"] if row["path"] == "faces/0.jpg")
    assert row["model"][0] == "faces/1.jpg" and row["engine"][0] == "faces/7.jpg" and row["model"][1] == pytest.approx(1, abs=1e-3)


def test_equally_near_ones_are_the_same():
    reference = np.eye(32, dtype=np.float32)[:4]
    (found,) = neighbours(evidence(reference, reference[::-1]))
    assert found["same"] == 4


def test_vectors_of_zeros_and_nan_can_be_shown():
    reference = vectors()
    reference[0], candidate = 0, vectors()
    candidate[3] = np.nan
    (found,) = neighbours(evidence(reference, candidate))
    assert found["samples"] == 12


def test_two_samples_say_nothing():
    assert neighbours(evidence(vectors(2), vectors(2))) == []


def test_the_page_names_the_samples():
    reference = vectors()
    kept = evidence(reference, reference[::-1])
    kept.sample = Sample("faces", "faces/0.jpg", None, (look("embedding", "values", None, reference[0], reference[0], False),))
    shown = Page(html.render(result(), kept, [])).sections["outputs"]
    assert "Which samples are alike" in shown and "of 12 samples keep their nearest neighbour" in shown and "another" in shown
