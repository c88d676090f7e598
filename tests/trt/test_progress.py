"""trt/progress.py: the steps of a build, of its outermost phase, with the library that is here and with one that has no count."""

from types import SimpleNamespace

import onnx
import pytest
from helpers import LIBRARIES, parse
from models import conv_net

from onnx2trt.base.model_info import Profile
from onnx2trt.model.preflight import preflight
from onnx2trt.plan.plan import make_plan
from onnx2trt.trt.builder import EngineBuilder
from onnx2trt.trt.library import load_library
from onnx2trt.trt.network import ParserInput
from onnx2trt.trt.progress import watch


class IProgressMonitor:
    pass


def told(*events) -> list[tuple[int, int]]:
    """What is told of these calls: (name of the method, arguments)."""
    said, config = [], SimpleNamespace(progress_monitor=None)
    monitor = watch(SimpleNamespace(IProgressMonitor=IProgressMonitor), config, lambda done, total: said.append((done, total)))
    assert config.progress_monitor is monitor
    for name, *arguments in events:
        assert getattr(monitor, name)(*arguments) is (True if name == "step_complete" else None)
    return said


def test_only_the_outermost_phase_counts():
    inner = [("phase_start", "tactics", "building", 100), ("step_complete", "tactics", 0), ("phase_finish", "tactics")]
    assert told(("phase_start", "building", None, 3), *inner, ("step_complete", "building", 0), ("step_complete", "building", 2)) == [
        (0, 3),
        (1, 3),
        (3, 3),
    ]


def test_more_steps_than_were_announced_are_no_more_than_all():
    assert told(("phase_start", "building", None, 2), ("step_complete", "building", 7))[-1] == (2, 2)


def test_a_library_without_a_count_is_left_alone():
    config = SimpleNamespace()
    assert watch(SimpleNamespace(), config, None) is None and not hasattr(config, "progress_monitor")
    assert watch(SimpleNamespace(IProgressMonitor=IProgressMonitor), config, None) is None, "TensorRT-RTX might have the class alone"


def test_the_library_that_is_here_counts(tmp_path):
    pytest.importorskip("tensorrt_rtx")
    onnx.save(conv_net(), tmp_path / "net.onnx")
    _, info = preflight(str(tmp_path / "net.onnx"))
    builder, said = (
        EngineBuilder(load_library("tensorrt-rtx"), make_plan(parse("--precision", "fp32"), LIBRARIES["rtx"]), lambda *_: None),
        [],
    )
    builder.step = lambda done, total: said.append((done, total))
    builder.parse(ParserInput(path=info.path), info)
    built = builder.build((Profile("x", *[(1, 3, 16, 16)] * 3),), dynamic=True)
    done, (total, *others) = [step for step, _ in said], sorted({of for _, of in said})
    assert built.nbytes and not others and done == sorted(done) and done[0] == 0 and total >= done[-1] > total / 2
