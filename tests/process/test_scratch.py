"""process/scratch.py: whatever stands in a run's own temporary folder goes with the run."""

import errno
import os
import signal
import subprocess
import sys
import tempfile

import pytest
from helpers import ROOT

from onnx2trt.base import locks
from onnx2trt.process.scratch import LOCK, Scratch, remove_abandoned


@pytest.fixture(autouse=True)
def temporaries(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def killed(folder) -> None:
    """A run that is killed with a file in its folder."""
    program = "import os\nfrom onnx2trt.process.scratch import Scratch\nopen(Scratch().path + '/model.data', 'w')\nos.kill(os.getpid(), 9)"
    environment = {**os.environ, "TMPDIR": str(folder), "PYTHONPATH": ROOT}
    assert subprocess.run([sys.executable, "-S", "-c", program], env=environment).returncode == -signal.SIGKILL


def test_the_folder_goes_with_all_that_is_in_it(temporaries):
    made = Scratch()
    os.makedirs(os.path.join(made.path, "matplotlib-x", "deeper"))
    assert os.listdir(temporaries) == [os.path.basename(made.path)]
    made.remove()
    made.remove()
    assert os.listdir(temporaries) == []


def test_what_a_killed_run_left_goes_with_the_next_and_that_of_a_live_one_stays(temporaries):
    killed(temporaries)
    (left,) = os.listdir(temporaries)
    assert sorted(os.listdir(temporaries / left)) == [LOCK, "model.data"]
    live = Scratch()
    remove_abandoned()
    assert os.listdir(temporaries) == [os.path.basename(live.path)]
    live.remove()


@pytest.mark.parametrize("name", ["onnx2trt-mine.tmp", "onnx2trt-results", "other"])
def test_folders_of_others_stay(temporaries, name):
    (temporaries / name).mkdir()
    (temporaries / name / "results").write_text("of the user")
    (temporaries / "onnx2trt-link.tmp").symlink_to(temporaries / name)
    Scratch().remove()
    assert sorted(os.listdir(temporaries)) == sorted({name, "onnx2trt-link.tmp"}) and (temporaries / name / "results").exists()


def test_a_link_to_a_folder_with_a_lock_is_not_followed(temporaries):
    (temporaries / "kept").mkdir()
    (temporaries / "kept" / LOCK).touch()
    (temporaries / "onnx2trt-link.tmp").symlink_to(temporaries / "kept")
    Scratch().remove()
    assert (temporaries / "kept" / LOCK).exists()


def test_where_there_is_no_room_for_it_the_systems_own_folder_will_do(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/proc/nowhere")
    made = Scratch()
    assert made.path is None
    made.remove()


def test_without_locks_nothing_is_removed(temporaries, monkeypatch):
    killed(temporaries)

    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    Scratch().remove()
    assert len(os.listdir(temporaries)) == 1
