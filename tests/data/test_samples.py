"""data/samples.py: which files are the data."""

import os

import pytest
from helpers import refused

from onnx2trt.base.errors import ExitCode
from onnx2trt.data.samples import Dataset, evenly_spaced, find, single, synthetic

CODE = ExitCode.CALIBRATION


def fill(folder, *names: str) -> str:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return str(folder)


def found(folder, most: int = 500) -> list[str]:
    data = find(str(folder), "--calibration-dir", most, CODE)
    return [os.path.relpath(path, folder) for path in data.samples]


def test_images_of_all_folders_sorted_by_their_relative_name(tmp_path):
    fill(tmp_path, "b.jpg", "a/z.png", "a.png", "c/d/e.JPEG", "B.bmp")
    assert found(tmp_path) == ["B.bmp", "a.png", "a/z.png", "b.jpg", "c/d/e.JPEG"]


def test_the_order_does_not_depend_on_how_the_folder_is_written(tmp_path):
    names = [f"{i:03}.jpg" for i in range(40)]
    fill(tmp_path / "up", *names)
    fill(tmp_path / "down", *reversed(names))
    assert found(tmp_path / "up") == found(tmp_path / "down") == names


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "png", "bmp", "webp", "tif", "tiff", "ppm", "pgm", "gif", "jp2", "avif", "PNG"])
def test_suffixes_of_images(tmp_path, suffix):
    fill(tmp_path, f"a.{suffix}")
    assert find(str(tmp_path), "--flag", 9, CODE).kind == "images"


@pytest.mark.parametrize("suffix", ["npz", "npy", "NPY"])
def test_suffixes_of_arrays(tmp_path, suffix):
    fill(tmp_path, f"a.{suffix}")
    assert find(str(tmp_path), "--flag", 9, CODE).kind == "arrays"


def test_other_and_hidden_files_and_folders_are_left_out(tmp_path):
    fill(tmp_path, "a.jpg", "labels.txt", ".hidden.jpg", ".cache/b.jpg", "._a.jpg", "noext")
    assert found(tmp_path) == ["a.jpg"]


def test_a_folder_with_the_name_of_an_image_is_a_folder(tmp_path):
    fill(tmp_path, "x.jpg/a.png")
    assert found(tmp_path) == ["x.jpg/a.png"]


def test_names_that_are_not_ascii_and_not_utf8(tmp_path):
    fill(tmp_path, "图片.jpg", os.fsdecode(b"\xff.png"))
    assert len(found(tmp_path)) == 2


def test_a_dataset_remembers_where_it_is_from_and_who_is_at_fault(tmp_path):
    folder = fill(tmp_path, "a.jpg")
    assert find(folder, "--validation-dir", 9, ExitCode.VALIDATION) == Dataset(
        "images", folder, (os.path.join(folder, "a.jpg"),), ExitCode.VALIDATION
    )


def test_too_many_are_thinned_evenly_after_sorting(tmp_path):
    fill(tmp_path, *(f"{i}.jpg" for i in reversed(range(10))))
    assert found(tmp_path, most=4) == ["0.jpg", "3.jpg", "6.jpg", "9.jpg"]


@pytest.mark.parametrize(
    ("names", "fragments", "hint"),
    [
        ([], ["holds no image and no .npz / .npy file (0 other files)"], ".jpeg"),
        (["a.txt", "b.csv"], ["(2 other files)"], "suffix"),
        (["a.jpg", "b.png", "c.npz"], ["2 images and 1 .npz / .npy files"], "one kind of data"),
    ],
)
def test_a_folder_without_usable_data(tmp_path, names, fragments, hint):
    folder = fill(tmp_path, *names)
    with refused(CODE, "--calibration-dir", folder, *fragments, hint=hint):
        find(folder, "--calibration-dir", 9, CODE)


def test_a_folder_that_is_not_there(tmp_path):
    with refused(CODE, f"--calibration-dir {tmp_path / 'no'} does not exist", hint="folder of images"):
        find(str(tmp_path / "no"), "--calibration-dir", 9, CODE)


def test_a_file_in_the_place_of_the_folder(tmp_path):
    fill(tmp_path, "a.jpg")
    with refused(ExitCode.VALIDATION, "--validation-dir", "is not a folder"):
        find(str(tmp_path / "a.jpg"), "--validation-dir", 9, ExitCode.VALIDATION)


def test_a_folder_that_cannot_be_listed_is_no_empty_folder(tmp_path, monkeypatch):
    fill(tmp_path, "a.jpg", "sub/b.jpg")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with refused(CODE, "cannot be read", os.path.join(str(tmp_path), "sub"), "Permission denied"):
        find(str(tmp_path), "--calibration-dir", 9, CODE)


@pytest.mark.parametrize(("name", "kind"), [("a.jpg", "images"), ("a.dat", "images"), ("a.npz", "arrays"), ("a.NPY", "arrays")])
def test_a_single_file(tmp_path, name, kind):
    fill(tmp_path, name)
    path = str(tmp_path / name)
    assert single(path, "--test-image", ExitCode.VALIDATION) == Dataset(kind, path, (path,), ExitCode.VALIDATION)


def test_a_single_file_that_is_none(tmp_path):
    with refused(ExitCode.VALIDATION, f"--test-image {tmp_path / 'no.jpg'} does not exist", hint="one image"):
        single(str(tmp_path / "no.jpg"), "--test-image", ExitCode.VALIDATION)
    with refused(ExitCode.VALIDATION, f"--test-image {tmp_path} is not a file"):
        single(str(tmp_path), "--test-image", ExitCode.VALIDATION)


def test_synthetic_data_has_no_files():
    assert synthetic() == Dataset("synthetic", "synthetic", (), ExitCode.VALIDATION)
    assert synthetic().called == "made-up inputs" and Dataset("images", "a/b/", ("x.png",), ExitCode.VALIDATION).called == "b"


@pytest.mark.parametrize(
    ("count", "most", "expected"),
    [
        (10, 4, (0, 3, 6, 9)),
        (10, 10, tuple(range(10))),
        (3, 10, (0, 1, 2)),
        (10, 1, (0,)),
        (10, 2, (0, 9)),
        (5, 4, (0, 1, 3, 4)),
        (0, 4, ()),
    ],
)
def test_evenly_spaced(count, most, expected):
    assert evenly_spaced(list(range(count)), most) == expected


@pytest.mark.parametrize("most", [2, 3, 64, 499, 500])
def test_evenly_spaced_takes_each_item_once_with_both_ends_and_even_gaps(most):
    chosen = evenly_spaced(list(range(501)), most)
    gaps = {b - a for a, b in zip(chosen, chosen[1:])}
    assert len(chosen) == len(set(chosen)) == most
    assert (chosen[0], chosen[-1]) == (0, 500)
    assert max(gaps) - min(gaps) <= 1


def test_at_most_keeps_everything_but_the_number():
    data = Dataset("arrays", "folder", ("a", "b", "c"), CODE)
    assert data.at_most(2) == Dataset("arrays", "folder", ("a", "c"), CODE)
    assert data.at_most(3) == data
