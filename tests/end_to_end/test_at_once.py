"""Several conversions at the same time on the same output and the same calibration cache: real processes, real engines.

More of it by hand: ONNX2TRT_ROUNDS=20 python -m pytest -m slow tests/end_to_end/test_at_once.py
"""

import contextlib
import hashlib
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import onnx
import pytest
from command import check_schema, onnx2trt
from models import conv_net

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")

ROUNDS = int(os.environ.get("ONNX2TRT_ROUNDS", "1"))  # conversions of each process, one after another
INT8 = ("--precision", "int8", "--calibration-cache", "c.cache", "--quantization-effort", "fast", "--max-accuracy-drop", "100")
FROM_IMAGES = (*INT8, "--calibration-dir", "images")
WAYS = (FROM_IMAGES, FROM_IMAGES, ("--precision", "fp16"), (*FROM_IMAGES, "--calibration-method", "minmax"))
CACHE = ("c.cache", "c.cache.json", "c.cache.fit.npz")


@pytest.fixture
def folder(tmp_path):
    onnx.save(conv_net(), tmp_path / "net.onnx")
    (tmp_path / "images").mkdir()
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 256, (16, 16, 3), np.uint8)
        cv2.imwrite(str(tmp_path / "images" / f"{index}.png"), pixels)
    return tmp_path


@contextlib.contextmanager
def watched(*paths):
    """Path -> SHA-256 of every content that it is seen with during the block."""
    seen, over = {path: set() for path in paths}, threading.Event()

    def look() -> None:
        while not over.wait(0.001):
            for path in paths:
                with contextlib.suppress(FileNotFoundError):
                    seen[path].add(sha256(path))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


def sha256(path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 8])
def test_conversions_at_once_on_one_output_and_one_cache(folder, processes):
    def work(number: int) -> list:
        return [convert(number, index) for index in range(ROUNDS)]

    def convert(number: int, index: int):
        flags = WAYS[(number + index) % len(WAYS)]
        if index % 5 == 4:  # calibrate once more, while others read what there was
            (folder / "c.cache").unlink(missing_ok=True)
        return onnx2trt(folder, "--onnx", "net.onnx", *flags, "--json", f"{number}-{index}.json", "-q", alone=False)

    engine = folder / "net.engine"
    engine.write_bytes(b"the engine of yesterday")
    known = {sha256(engine)}
    with watched(engine) as seen, ThreadPoolExecutor(processes) as pool:
        outcomes = [outcome for several in pool.map(work, range(processes)) for outcome in several]
    for outcome in outcomes:
        # another's method: the cache is stale for us, which is said, and nothing is done
        assert outcome.code == 0 or (outcome.code == 5 and "is stale: it was made from method" in outcome.stderr), outcome.stderr
    results = [json.loads(path.read_text()) for path in folder.glob("*-*.json")]
    assert len(results) == processes * ROUNDS
    built = {result["engine"]["sha256"]: result for result in results if result["exit_code"] == 0}
    assert seen[engine] <= known | set(built), "a reader sees the old engine or a complete new one"
    side = json.loads((folder / "net.engine.json").read_text())
    check_schema(side)
    assert side == built[sha256(engine)] or side["engine"]["sha256"] == sha256(engine), "the last writer's, both of them"
    record = json.loads((folder / "c.cache.json").read_text())
    assert record["cache_sha256"] == sha256(folder / "c.cache") and record["fit_sha256"] == sha256(folder / "c.cache.fit.npz")
    again = onnx2trt(folder, "--onnx", "net.onnx", *INT8, "--output", "again.engine")
    assert again.code == 0 and "fitted weights and the choice of layers come" in again.stderr, again.stderr
    names = {path.name for path in folder.iterdir()} - {path.name for path in folder.glob("*-*.json")}
    assert names == {"net.onnx", "images", *CACHE, *(f"{name}.engine{end}" for name in ("net", "again") for end in ("", ".json"))}
