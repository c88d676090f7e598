"""base/cache_folders.py: where files are kept between conversions."""

import re

import pytest

from onnx2trt.base.cache_folders import default_path, user_cache_folder


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"XDG_CACHE_HOME": "/c", "HOME": "/h"}, "/c/onnx2trt"),
        ({"HOME": "/h"}, "/h/.cache/onnx2trt"),
        ({"XDG_CACHE_HOME": "", "HOME": "/h"}, "/h/.cache/onnx2trt"),
        ({"XDG_CACHE_HOME": "relative", "HOME": "/h"}, "/h/.cache/onnx2trt"),
        ({"XDG_CACHE_HOME": "relative", "HOME": "relative"}, ""),
    ],
)
def test_the_users_cache_folder(environ, expected):
    assert user_cache_folder(environ) == expected


def test_the_file_is_named_by_library_and_gpu():
    made = ("tensorrt", "10.6.0.26", "NVIDIA H200", "9.0")
    path = default_path("/c", *made)
    assert path == "/c/timing/tensorrt-10.6.0.26-NVIDIA_H200-sm90.cache"
    for index, other in enumerate(("tensorrt-rtx", "10.6.1.26", "NVIDIA H100", "8.9")):
        assert default_path("/c", *made[:index], other, *made[index + 1 :]) != path
    assert re.fullmatch(r"/c/timing/[\w.-]+", default_path("/c", "tensorrt", "10", "../../A/B: \0*", "9.0"))
    assert default_path("", *made) is None
