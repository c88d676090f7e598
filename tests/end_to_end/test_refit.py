"""--refit as users call it on a machine without a GPU: what can be checked before is said, and then why it does not go on."""

import base64
import json
import zlib

import made_results
import numpy as np
import onnx
import pytest
from command import onnx2trt
from fake_engines import header_bytes
from helpers import parse
from models import conv_net

from onnx2trt.base.files import sha256
from onnx2trt.model.fingerprint import fingerprint
from onnx2trt.model.graph import Graph
from onnx2trt.plan.refit import to_remember
from onnx2trt.report.built import EngineFile, Refittable
from onnx2trt.report.result import Result, _hash, to_json

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
pytestmark = pytest.mark.skipif("__import__('onnx2trt.base.driver').base.driver.probe_driver().gpu != ''", reason="this machine has a GPU")


@pytest.fixture
def folder(tmp_path):
    """old.engine with its JSON, as a build of conv_net() with --refittable leaves them; new.onnx, the same with other weights."""
    source = conv_net()
    packed = fingerprint(Graph.from_model(source)).pack()
    data = header_bytes(b"vtrt", (1, 7, 1, 116), size=64)
    known = Refittable(to_remember(parse("--refittable")), packed, packed, {}, False, True, False)
    result, key = Result.from_dict(made_results.result()), {"sha256": "0" * 64, "model": "", "options": {}, "data": {}, "versions": {}}
    result.take(status="validated", refit=known, key=key, engine=EngineFile("old.engine", len(data), sha256(data), []))
    result.seal()
    (tmp_path / "old.engine").write_bytes(data)
    (tmp_path / "old.engine.json").write_text(to_json(result))
    for tensor in source.graph.initializer:
        tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * np.float32(0.5), tensor.name))
    onnx.save(source, tmp_path / "new.onnx")
    return tmp_path


def test_no_gpu_is_the_reason_once_the_network_is_the_same(folder):
    done = onnx2trt(folder, "new.onnx", "--refit", "old.engine", "--json", "r.json")
    assert done.code == 4 and "--refit loads the engine, but" in done.error and "GPU" in done.error
    assert done.json("r.json")["status"] == "failed" and not (folder / "new.engine").exists()


def test_another_network_is_named_before_that(folder):
    onnx.save(conv_net(classes=7), folder / "other.onnx")
    done = onnx2trt(folder, "other.onnx", "--refit", "old.engine", "-o", "old.engine")
    assert done.code == 3 and "other.onnx is another network than the engine's: output 'y'" in done.error


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"flags": ["--output=elsewhere"]}, "is no flag that an engine is built with"),
        ({"flags": ["--precision=fp17"]}, "invalid choice"),
        ({"flags": ["--min-shapes=x:4x3x16x16", "--max-shapes=x:1x3x16x16"]}, "damaged, or was changed by hand"),
        ({"flags": {"precision": "fp32"}}, "does not say what"),
        ({"network": {"lines": base64.b64encode(zlib.compress(bytes(2**29))).decode(), "values": {}}}, "is damaged"),
        ({"kept_fp32": {"a": 7}}, "does not say what"),
    ],
    ids=["a flag of files", "a value", "a rule", "the form", "a bomb", "reasons"],
)
def test_a_side_file_that_somebody_else_has_sealed_is_not_believed(folder, changes, said):
    side = folder / "old.engine.json"
    record = json.loads(side.read_text())
    record["refit"].update(changes)
    record["key"]["result_sha256"] = _hash(record)
    side.write_text(json.dumps(record))
    done = onnx2trt(folder, "new.onnx", "--refit", "old.engine")
    assert done.code == 4 and said in done.error and "Traceback" not in done.stderr
    assert not (folder / "new.engine").exists()


def test_an_engine_that_takes_no_weights_is_named(folder):
    (folder / "old.engine.json").write_text((folder / "old.engine.json").read_text().replace('"validated"', '"simulated"'))
    done = onnx2trt(folder, "new.onnx", "--refit", "old.engine")
    assert done.code == 4 and "is damaged, or was changed by hand" in done.error and "--refittable" in done.stderr
