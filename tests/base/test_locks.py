"""base/locks.py: who holds what, across processes."""

import errno
import os
import time

import pytest
from command import others_get_the_lock, python

from onnx2trt.base import locks
from onnx2trt.base.locks import abandoned, folder_locked, locked, mark_alive


def test_one_process_holds_it_and_others_wait(tmp_path):
    path = str(tmp_path / "t")
    with locked(path) as held:
        assert held and not others_get_the_lock(path)
    assert others_get_the_lock(path)
    assert os.listdir(tmp_path) == ["t.lock"], "removing it would let two holders in"


def test_waiting_ends_when_the_holder_lets_go(tmp_path):
    path = str(tmp_path / "t")
    program = "from onnx2trt.base.locks import locked\nwith locked(sys.argv[1], 15) as held: print(held)"
    with locked(path):
        waiting = python(program, path)
        time.sleep(0.6)
        assert waiting.poll() is None
    assert waiting.communicate(timeout=20)[0] == "True\n"


def test_a_dead_holder_holds_nothing(tmp_path):
    path = str(tmp_path / "t")
    program = """
    from onnx2trt.base.locks import locked
    import time
    with locked(sys.argv[1]):
        print("held", flush=True)
        time.sleep(60)
    """
    holder = python(program, path)
    assert holder.stdout.readline() == "held\n" and not others_get_the_lock(path)
    holder.kill()
    holder.communicate()
    assert others_get_the_lock(path)


def test_the_lock_that_trtexec_takes_is_the_same_one(tmp_path):
    """lockf; flock, as filelock takes it, would not see it."""
    path = tmp_path / "t"
    program = """
    import fcntl, time
    stream = open(sys.argv[1] + ".lock", "wb+")
    fcntl.lockf(stream, fcntl.LOCK_EX)
    print("held", flush=True)
    time.sleep(60)
    """
    trtexec = python(program, path)
    assert trtexec.stdout.readline() == "held\n"
    with locked(str(path), 0.1) as held:
        assert not held
    trtexec.kill()
    trtexec.communicate()
    with locked(str(path)) as held:
        assert held


@pytest.fixture
def without_locks(monkeypatch):
    """A file system that has none, as some network ones."""

    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    for name in ("flock", "lockf"):
        monkeypatch.setattr(locks.fcntl, name, refuse)


def test_where_there_can_be_no_lock_nobody_waits(tmp_path, without_locks):
    for path in (tmp_path / "no" / "t", tmp_path / "t"):
        with locked(str(path), 60) as held:
            assert not held
        with folder_locked(str(path)):
            pass


def test_whose_writer_is_dead(tmp_path):
    path = str(tmp_path / "t")
    with abandoned(path) as dead:
        assert not dead, "there is no such file"
    with open(path, "wb") as writer:
        mark_alive(writer.fileno())
        with abandoned(path) as dead:
            assert not dead
    with abandoned(path) as dead, abandoned(path) as to_another:
        assert dead and not to_another, "one of several removes it"


def test_nothing_is_taken_for_abandoned_where_there_are_no_locks(tmp_path, without_locks):
    (tmp_path / "t").touch()
    with abandoned(str(tmp_path / "t")) as dead:
        assert not dead


def test_a_link_is_never_abandoned(tmp_path):
    (tmp_path / "t").touch()
    (tmp_path / "link").symlink_to(tmp_path / "t")
    with abandoned(str(tmp_path / "link")) as dead:
        assert not dead
