"""base/locks.py: the lock of a file that several processes replace in turn."""

import os
import time

from command import others_get_the_lock, python

from onnx2trt.base import locks
from onnx2trt.base.locks import locked


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


def test_where_there_can_be_no_lock_nobody_waits(tmp_path, monkeypatch):
    with locked(str(tmp_path / "no" / "t"), 60) as held:
        assert not held
    monkeypatch.setattr(locks, "fcntl", None)
    monkeypatch.setattr(locks, "msvcrt", None)
    with locked(str(tmp_path / "t"), 60) as held:
        assert not held
