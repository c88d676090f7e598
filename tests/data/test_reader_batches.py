"""data/reader.py: preprocessing from flags and model, and batches of images and arrays."""

import numpy as np
import pytest
from helpers import encode, image, prepared, refused

from onnx2trt.base.errors import ExitCode
from onnx2trt.base.model_info import ImageInput, Profile, TensorSpec
from onnx2trt.data import reader as reader_module
from onnx2trt.data.reader import Reader, load_image, make_preprocessing
from onnx2trt.data.reused_arrays import ReusedArrays
from onnx2trt.data.rows import Rows, rows_of
from onnx2trt.data.samples import Dataset, find, samples_in, synthetic
from onnx2trt.plan.parts import Preprocess

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def put(tmp_path, data: bytes, name: str) -> str:
    (tmp_path / name).write_bytes(data)
    return str(tmp_path / name)


def override(**changes) -> Preprocess:
    return Preprocess(**{"color": None, "resize": "stretch", "input_range": 1, "mean": (), "std": (), **changes})


def wanted(channels: int = 3, dtype: str = "float32", layout: str = "NCHW") -> ImageInput:
    return ImageInput("image", layout, 1, channels, 24, 32, dtype)


@pytest.mark.parametrize(
    ("typed", "model", "expected"),
    [
        (override(), wanted(), prepared()),
        (override(), wanted(1), prepared(1)),
        (override(), wanted(4, layout="NHWC"), prepared(4, layout="NHWC")),
        (override(color="bgr", resize="crop"), wanted(), prepared(color="bgr", resize="crop")),
        (override(mean=(0.5,), std=(2.0,)), wanted(), prepared(mean=(0.5,) * 3, std=(2.0,) * 3)),
        (override(mean=MEAN, std=STD, input_range=255), wanted(), prepared(mean=MEAN, std=STD, input_range=255)),
        (override(), wanted(dtype="uint8"), prepared(dtype="uint8", input_range=255)),
        (override(), wanted(dtype="float16"), prepared(dtype="float16")),
    ],
)
def test_make_preprocessing(typed, model, expected):
    assert make_preprocessing(typed, model) == expected


@pytest.mark.parametrize(
    ("typed", "model", "fragments", "hint"),
    [
        (override(color="gray"), wanted(), ["--color gray", "'image' has 3 channels"], "--color rgb or bgr"),
        (override(color="rgb"), wanted(1), ["--color rgb", "'image' has 1 channel"], "--color gray"),
        (override(mean=MEAN), wanted(4), ["--mean has 3 numbers", "'image' has 4 channels"], ""),
        (override(std=STD), wanted(1), ["--std has 3 numbers"], ""),
        (override(mean=(1.0,)), wanted(dtype="uint8"), ["'image'", "uint8"], ""),
        (override(std=(1.0,)), wanted(dtype="uint8"), ["uint8 and takes pixels as they are"], ""),
    ],
)
def test_flags_that_do_not_fit_the_model(typed, model, fragments, hint):
    with refused(ExitCode.USAGE, *fragments, hint=hint):
        make_preprocessing(typed, model)


def test_the_description_is_enough_to_repeat_it():
    assert prepared(resize="crop", mean=MEAN, std=STD).describe() == {
        "size": [32, 24],
        "layout": "NCHW",
        "channels": 3,
        "dtype": "float32",
        "color": "rgb",
        "resize": "crop",
        "interpolation": "linear",
        "range": 1,
        "mean": list(MEAN),
        "std": list(STD),
    }


# ---- batches


def reader(shape=("N", 3, 24, 32), batch: int = 1, dtype: str = "float32") -> Reader:
    spec = TensorSpec("x", shape, dtype)
    opt = tuple(dim if isinstance(dim, int) else batch for dim in shape)
    return Reader((spec,), (Profile("x", opt, opt, opt),), prepared(), rows_of((spec,), (Profile("x", opt, opt, opt),)))


def images(tmp_path, count: int, *bad: int) -> Dataset:
    paths = [put(tmp_path, b"" if i in bad else encode(".png", image(24, 32, seed=i)), f"{i}.png") for i in range(count)]
    return Dataset("images", str(tmp_path), tuple(paths), ExitCode.CALIBRATION)


def arrays(tmp_path, *files) -> Dataset:
    samples = []
    for i, array in enumerate(files):
        np.savez(tmp_path / f"{i}.npz", x=array)
        samples += samples_in(str(tmp_path / f"{i}.npz"), len(array) if array.ndim > 1 else 1, ExitCode.CALIBRATION)
    return Dataset("arrays", "folder", tuple(samples), ExitCode.VALIDATION)


def test_one_image_at_a_time_where_the_batch_is_free(tmp_path):
    data = images(tmp_path, 3)
    batches = list(reader().batches(data))
    assert [(batch.rows, batch.real_rows, batch.samples) for batch in batches] == [(1, 1, (path,)) for path in data.samples]
    for batch, path in zip(batches, data.samples):
        assert np.array_equal(batch.arrays["x"], load_image(path, prepared())[None])


@pytest.mark.parametrize(("shape", "batch"), [((4, 3, 24, 32), 1), (("N", 3, 24, 32), 4)], ids=["fixed", "free"])
def test_a_batch_is_filled_up_with_its_last_image(tmp_path, shape, batch):
    data = images(tmp_path, 6)
    first, second = reader(shape, batch).batches(data)
    singles = [load_image(path, prepared()) for path in data.samples]
    assert np.array_equal(first.arrays["x"], np.stack(singles[:4]))
    assert np.array_equal(second.arrays["x"], np.stack([singles[4], singles[5], singles[5], singles[5]]))
    assert (first.rows, first.real_rows, first.samples) == (4, 4, data.samples[:4])
    assert (second.rows, second.real_rows, second.samples) == (4, 2, data.samples[4:])


def test_unusable_files_are_skipped_and_reported_and_leave_no_gap(tmp_path):
    data, skipped = images(tmp_path, 5, 0, 2), []
    (batch,) = reader(batch=3).batches(data, skipped)
    assert batch.samples == (data.samples[1], data.samples[3], data.samples[4]) and batch.real_rows == 3
    assert skipped == [(data.samples[0], "is empty"), (data.samples[2], "is empty")]


def test_an_unusable_file_is_an_error_where_nothing_may_be_skipped(tmp_path):
    data = images(tmp_path, 3, 1)
    with refused(ExitCode.CALIBRATION, f"{data.samples[1]} is empty", hint="another file"):
        list(reader().batches(data))


def test_arrays_of_several_samples_are_joined_across_files(tmp_path):
    data = arrays(tmp_path, np.arange(9, dtype=np.float32).reshape(3, 3), np.arange(9, 12, dtype=np.float32))
    first, second = reader(("N", 3), 3).batches(data)
    assert first.arrays["x"].tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert first.samples == tuple(f"{data.files[0]}[{row}]" for row in range(3)) and second.samples == (data.files[1],)
    assert second.arrays["x"].tolist() == [[9, 10, 11]] * 3 and (second.rows, second.real_rows) == (3, 1)


def test_a_file_for_a_fixed_batch_whose_rows_are_independent_holds_that_many_samples(tmp_path):
    (batch,) = reader((4, 3), 1).batches(arrays(tmp_path, np.ones((4, 3), np.float32)))
    assert (batch.arrays["x"].shape, batch.rows, batch.real_rows, len(batch.samples)) == ((4, 3), 4, 4, 4)


@pytest.mark.parametrize("shape, sizes", [((4, 3), (4, 4)), (("T", 3), (5, 2))], ids=["fixed", "free"])
def test_rows_that_depend_on_each_other_stay_together(tmp_path, shape, sizes):
    """A sequence, or statistics over the batch: the file is what the user wants computed at once."""
    specs = (TensorSpec("x", shape, "float32"),)
    profile = Profile("x", (min(sizes), 3), (max(sizes), 3), (max(sizes), 3))
    for index, size in enumerate(sizes):
        np.save(tmp_path / f"{index}.npy", np.arange(3 * size, dtype=np.float32).reshape(size, 3))
    rows = rows_of(specs, (profile,), independent=False)
    data = find(str(tmp_path), "--calibration-dir", 9, ExitCode.CALIBRATION, lambda path: rows.count(path, specs))
    batches = list(Reader(specs, (profile,), None, rows).batches(data))
    assert [len(batch.arrays["x"]) for batch in batches] == list(sizes)
    assert [(batch.rows, batch.samples) for batch in batches] == [(0, (path,)) for path in data.files]


def test_arrays_are_not_joined_where_the_model_has_a_fixed_batch(tmp_path):
    data = arrays(tmp_path, np.ones((1, 3), np.float32), np.ones((1, 3), np.float32))
    assert [batch.rows for batch in reader((1, 3), 2).batches(data)] == [1, 1]


def test_samples_of_different_sizes_cannot_share_a_batch(tmp_path):
    data = arrays(tmp_path, np.ones((1, 3), np.float32), np.ones((1, 4), np.float32))
    with refused(ExitCode.VALIDATION, "folder", "different shapes", "batch of 2"):
        list(reader(("N", "n"), 2).batches(data))
    assert len(list(reader(("N", "n"), 1).batches(data))) == 2


def test_a_damaged_array_is_named_with_its_file(tmp_path):
    data = arrays(tmp_path, np.ones((1, 3), np.float32), np.array([[object()]]))
    with refused(ExitCode.VALIDATION, data.samples[1], "Python objects"):
        list(reader(("N", 3)).batches(data))


def test_inputs_without_a_common_first_axis_have_no_rows(tmp_path):
    specs = (TensorSpec("a", (2, 3), "float32"), TensorSpec("b", (5,), "float32"))
    np.savez(tmp_path / "s.npz", a=np.ones((2, 3), np.float32), b=np.ones(5, np.float32))
    data = Dataset("arrays", "s.npz", (str(tmp_path / "s.npz"),), ExitCode.VALIDATION)
    (batch,) = Reader(specs, tuple(Profile(s.name, s.shape, s.shape, s.shape) for s in specs), None).batches(data)
    assert (batch.rows, batch.real_rows) == (0, 0)


def test_synthetic_data_is_one_inference_at_the_opt_shape_and_always_the_same():
    one, two = (list(reader(batch=4).batches(synthetic())) for _ in range(2))
    assert len(one) == 1 and one[0].samples == ("synthetic",)
    assert one[0].arrays["x"].shape == (4, 3, 24, 32) and one[0].rows == one[0].real_rows == 4
    assert np.array_equal(one[0].arrays["x"], two[0].arrays["x"])


def test_no_data_gives_no_batch(tmp_path):
    assert list(reader().batches(images(tmp_path, 0))) == []


# ---- the memory of batches


@pytest.fixture
def memories(monkeypatch) -> list[ReusedArrays]:
    """The memory of each pass over images."""
    made: list[ReusedArrays] = []

    class Watched(ReusedArrays):
        def __init__(self, *args):
            super().__init__(*args)
            made.append(self)

    monkeypatch.setattr(reader_module, "ReusedArrays", Watched)
    monkeypatch.setattr("onnx2trt.base.read_ahead.usable_cores", lambda: 2)
    return made


@pytest.mark.parametrize("size", [1, 3, 8])
def test_memory_does_not_grow_with_the_number_of_images(tmp_path, memories, size):
    for _ in reader(batch=size).batches(images(tmp_path, 60)):
        pass
    ahead = max(2 * 2, size) + 1  # images under way or waiting, and the one being given out
    assert memories[0].made <= -(-ahead // size) + 2


@pytest.mark.parametrize("size", [1, 3])
def test_batches_that_are_kept_are_not_written_again(tmp_path, memories, size):
    data = images(tmp_path, 30)
    kept = [batch.arrays["x"] for batch in reader(batch=size).batches(data)]
    assert memories[0].made >= len(kept) == 30 // size
    assert np.array_equal(np.concatenate(kept), np.stack([load_image(path, prepared()) for path in data.samples]))


def test_a_view_of_a_batch_is_kept_as_well(tmp_path, memories):
    data = images(tmp_path, 40)
    rows = [batch.arrays["x"][1:].reshape(-1)[:5] for batch in reader(batch=2).batches(data)]
    assert [row.tolist() for row in rows] == [load_image(path, prepared()).reshape(-1)[:5].tolist() for path in data.samples[1::2]]


@pytest.mark.parametrize("every", [1, 2, 5])
def test_batches_stay_what_they_were_while_the_consumer_takes_its_time(tmp_path, memories, every):
    """A consumer that keeps some of them, as calibration keeps the last one while it asks for the next."""
    data, kept = images(tmp_path, 40), []
    for index, batch in enumerate(reader(batch=2).batches(data)):
        kept = [*kept[-every:], (index, batch.arrays["x"])]
        for number, array in kept:
            expected = [load_image(path, prepared()) for path in data.samples[2 * number : 2 * number + 2]]
            assert np.array_equal(array, np.stack(expected))


@pytest.mark.parametrize("bad", [(0,), (1, 2, 3), (3, 4), tuple(range(9)), (0, 5, 10, 15), (15,)])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_images_move_up_over_damaged_ones_even_into_the_batch_before(tmp_path, size, bad):
    data, skipped = images(tmp_path, 16, *bad), []
    good = [path for index, path in enumerate(data.samples) if index not in bad]
    batches = list(reader(batch=size).batches(data, skipped))
    assert [path for batch in batches for path in batch.samples] == good
    assert [path for path, _ in skipped] == [data.samples[index] for index in bad]
    assert [batch.real_rows for batch in batches[:-1]] == [size] * (len(batches) - 1)
    found = np.concatenate([batch.arrays["x"] for batch in batches])
    expected = [load_image(path, prepared()) for path in good]
    assert np.array_equal(found, np.stack(expected + [expected[-1]] * (len(found) - len(good))))


def test_no_usable_image_gives_no_batch(tmp_path):
    skipped = []
    assert list(reader(batch=3).batches(images(tmp_path, 4, 0, 1, 2, 3), skipped)) == [] and len(skipped) == 4


@pytest.mark.parametrize(("layout", "shape"), [("NCHW", (2, 3, 24, 32)), ("NHWC", (2, 24, 32, 3))])
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_a_batch_has_the_layout_and_type_of_the_model(tmp_path, layout, shape, dtype):
    data, pre = images(tmp_path, 2), prepared(layout=layout, dtype=dtype)
    (batch,) = Reader((TensorSpec("x", shape, dtype),), (), pre, Rows(images=2)).batches(data)
    array = batch.arrays["x"]
    assert array.flags.c_contiguous and array.flags.writeable and array.dtype == dtype and array.shape == shape
    assert np.array_equal(array, np.stack([load_image(path, pre) for path in data.samples]))
