"""data/holdout.py: what INT8 is fitted to, and what its accuracy is measured on, are never the same samples."""

from types import SimpleNamespace

import numpy as np
import pytest

from onnx2trt.base.errors import ExitCode
from onnx2trt.base.model_info import Profile, TensorSpec
from onnx2trt.data import samples
from onnx2trt.data.datasets import Data
from onnx2trt.data.holdout import ENOUGH_TO_HOLD_OUT, FOLDS, HELD_OUT_PARTS, MOST_MEASURED, Parts, choose_split, without
from onnx2trt.data.reader import Reader
from onnx2trt.data.rows import Rows
from onnx2trt.data.samples import Dataset
from onnx2trt.quant.histograms import Collector


def dataset(count: int, unused: int = 0, code=ExitCode.CALIBRATION, origin="data") -> Dataset:
    names = [f"{origin}/{index:04}.npy" for index in range(count + unused)]
    return Dataset("arrays", origin, tuple(names[:count]), code, tuple(names[count:]))


def split_of(count: int, unused: int = 0, validation: Dataset | None = None):
    return choose_split(Data(None, dataset(count, unused), validation, None))


def test_without_calibration_data_there_is_nothing_to_split():
    assert choose_split(Data(None, None, None, None)) is None
    validation = dataset(9, code=ExitCode.VALIDATION)
    split = choose_split(Data(None, None, validation, None))
    assert split.to_measure().samples == validation.samples and split.trials == 0 and not split.may_fit, "layers are judged by it, no more"


@pytest.mark.parametrize("count", [1, 10, 100])
def test_a_validation_folder_is_measured_on_and_nothing_is_left_out(count):
    validation = dataset(150, code=ExitCode.VALIDATION, origin="validation")
    split = split_of(count, 50, validation)
    assert split.trials == 0 and set(split.to_fit().samples) == set(dataset(count).samples)
    measured = split.to_measure()
    assert measured.origin == "validation" and len(measured.samples) == MOST_MEASURED
    assert split.cuts(measured) == (measured,)


@pytest.mark.parametrize("unused, taken", [(FOLDS - 1, False), (FOLDS, True), (300, True)])
def test_the_rest_of_the_folder_is_measured_on_where_it_is_large_enough(unused, taken):
    split = split_of(70, unused)
    assert (split.measured is not None) is taken and split.trials == (0 if taken else 1)
    if taken:
        measured = split.to_measure()
        assert set(measured.samples) <= set(dataset(70, unused).unused) and len(measured.samples) == min(unused, MOST_MEASURED)
        assert split.cuts(measured) == (measured,)


@pytest.mark.parametrize("count, parts, trials", [(1, 1, 0), (2, 2, 2), (4, 4, 4), (6, 5, 5), (63, 5, 5), (64, 4, 1), (500, 4, 1)])
def test_folds_of_few_samples_and_one_part_of_many(count, parts, trials):
    split = split_of(count)
    assert (split.parts, split.trials, split.measured) == (parts, trials, None)
    assert (count >= ENOUGH_TO_HOLD_OUT) == (split.parts == HELD_OUT_PARTS and trials == 1)


def test_a_single_sample_is_fitted_to_and_measured_on():
    split = split_of(1)
    assert split.to_measure().samples == split.to_fit().samples == split.fitted.samples
    assert split.part_of(split.fitted.samples[0]) == -1 and split.blind and not split_of(2).blind


@pytest.mark.parametrize("count", [2, 7, 63, 64, 253, 500])
def test_each_trial_leaves_out_what_it_is_measured_on_and_little_else(count):
    split = split_of(count)
    parts = {path: split.part_of(path) for path in split.fitted.samples}
    for trial in range(split.trials):
        left_out = [path for path, part in parts.items() if part == trial]
        assert abs(len(left_out) - count / split.parts) < 1
    assert set(parts.values()) == {*range(split.trials), *([-1] if split.trials < split.parts else [])}
    measured = split.to_measure().samples
    assert all(parts[path] >= 0 for path in measured)
    assert len(measured) == min(sum(part >= 0 for part in parts.values()), MOST_MEASURED)


@pytest.mark.parametrize("count", [20, 64, 127, 253, 320, 500])
@pytest.mark.parametrize("most", [4, 16, 64])
def test_a_subset_keeps_parts_and_their_shares(count, most):
    """Every fourth of 253 files is of one and the same part: nothing would be left for the trial without it."""
    split = split_of(count)
    some = split.to_fit(most)
    assert len(set(some.samples)) == len(some.samples) == min(most, count)
    for trial in range(split.trials):
        share = np.mean([split.part_of(path) == trial for path in some.samples])
        assert abs(share - 1 / split.parts) <= 1 / len(some.samples) + 0.01
    again = {path for piece in split.cuts(some) for path in piece.samples}
    assert again == set(some.samples) <= set(split.fitted.samples)


@pytest.fixture
def console():
    return SimpleNamespace(track=lambda found, *_: found, warn=lambda _: None)


def data_of(tmp_path, count: int, batch: int) -> Data:
    (tmp_path / "data").mkdir()
    for index in range(count):
        np.save(tmp_path / "data" / f"{index:03}.npy", np.float32([[index + 1, -index]]))
    inputs = (TensorSpec("x", ("n", 2), "float32"),)
    profile = Profile("x", (1, 2), (batch, 2), (batch, 2))
    found = samples.find(str(tmp_path / "data"), "--calibration-dir", 1000, ExitCode.CALIBRATION)
    return Data(Reader(inputs, (profile,), None, Rows(1, batch)), found, None, None)


@pytest.mark.parametrize("count, batch", [(20, 1), (20, 4), (64, 4), (65, 8), (70, 5)])
@pytest.mark.parametrize("most", [None, 16])
def test_no_inference_mixes_samples_of_different_parts(tmp_path, console, count, batch, most):
    """Batches of 4 of 64 samples in 4 parts all begin with a sample of the first part."""
    data = data_of(tmp_path, count, batch)
    split = choose_split(data)
    parts, seen = Parts(data, split, console, "test", most), {}
    for feed in parts():
        seen.setdefault(parts.current, set()).update(int(value) for value in feed["x"][:, 0] - 1)
    expected = {}
    for path in split.to_fit(most).samples:
        expected.setdefault(split.part_of(path), set()).add(int(path[-7:-4]))
    assert seen == expected and len(parts) == len(split.to_fit(most).samples) == parts.feeds.used
    measured = {int(path[-7:-4]) for path in split.to_measure().samples if split.part_of(path) == 0}
    fitted = set().union(*(values for part, values in seen.items() if part != 0))
    assert measured and fitted and not measured & fitted


def test_collectors_merge_to_what_one_would_have_seen():
    random = np.random.default_rng(0)
    arrays = {part: [random.standard_normal(1000).astype(np.float32) * (part + 3) for _ in range(3)] for part in (-1, 0, 1)}
    collected = {part: Collector() for part in arrays}
    for part, values in arrays.items():
        for array in values:
            collected[part].visit("x", array)
        collected[part].visit(f"only{part}", np.ones(3, np.float32))
    for trial in (None, 0, 1):
        direct = Collector()
        for part, values in arrays.items():
            if part != trial or trial is None:
                for array in values:
                    direct.visit("x", array)
                direct.visit(f"only{part}", np.ones(3, np.float32))
        merged = without(collected, trial, Collector)
        assert merged.histograms.keys() == direct.histograms.keys()
        for name, histogram in direct.histograms.items():
            assert np.array_equal(merged.histograms[name].counts, histogram.counts) and merged.histograms[name].largest == histogram.largest
        assert merged.scales("minmax") == direct.scales("minmax")
    assert collected[0].histograms["x"].counts.sum() == 3000, "merging leaves the parts as they are"
