"""The command where calls of the system fail; all of them, one after another: python benchmarks/faults.py calls."""

import errno

import pytest
from faulty_system import SHORT, Fault, System, compiled, missing

from benchmarks import faults

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing() or "there is one")]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return faults.Place(tmp_path_factory.mktemp("faults").resolve(), "engine")


@pytest.fixture(scope="module")
def system(place, tmp_path_factory):
    folder = tmp_path_factory.mktemp("system")
    return System(compiled(folder), place.work.parent, folder / "state")


@pytest.mark.parametrize(
    "fault, code",
    [
        (Fault("write", 1, SHORT, onward=True), 0),
        (Fault("write", 3, errno.ENOSPC, onward=True), 8),
        (Fault("sync", 2, errno.EIO), 8),
        (Fault("rename", 2, errno.EACCES), 8),
        (Fault("lock", 1, errno.ENOLCK, onward=True), 0),
    ],
    ids=str,
)
def test_a_call_that_fails_leaves_old_files_or_complete_new_ones(place, system, fault, code):
    place.renew()
    before = place.contents()
    done = system.run(faults.command(*faults.RUNS["engine"]), fault, cwd=place.work, env=place.environment, capture_output=True, text=True)
    assert system.faults and done.returncode == code, done.stderr
    assert place.problems(before, done.returncode, done.stderr) == []
    if code:
        assert "net.engine" in done.stderr or "s.onnx" in done.stderr or "r.json" in done.stderr


def test_problems_are_seen(place):
    """What is looked for after a fault would be found."""
    place.renew()
    before = place.contents()
    (place.work / "net.engine").write_bytes(b"half")
    (place.work / "r.json").write_bytes(b"{")
    (place.work / "s.onnx").unlink()
    (place.work / ".x.tmp").touch()
    found = place.problems(before, 1, "Traceback")
    wanted = ("code 1", "frames", "no sentence", "left ", "lost s.onnx", "new net.engine", "half r.json", "engine and its JSON do not fit")
    assert all(any(text.startswith(each) for text in found) for each in wanted), found
