"""base/under_way.py: which call has been going on for how long."""

import threading

import pytest

from onnx2trt.base.under_way import UnderWay


def test_the_call_that_began_first_is_the_longest():
    now = [0.0]
    calls = UnderWay(lambda: now[0])
    assert calls.longest() == (0.0, "")
    with calls.call("first"):
        now[0] = 3.0
        with calls.call("second"):
            now[0] = 5.0
            assert calls.longest() == (5.0, "first")
    assert calls.longest() == (0.0, "")


def test_a_call_that_fails_has_ended():
    calls = UnderWay()
    with pytest.raises(ValueError), calls.call("fails"):
        raise ValueError
    assert calls.longest() == (0.0, "")


def test_calls_of_other_threads_are_seen():
    calls, begun, end = UnderWay(), threading.Event(), threading.Event()

    def other():
        with calls.call("beside"):
            begun.set()
            end.wait(5)

    thread = threading.Thread(target=other)
    thread.start()
    begun.wait(5)
    assert calls.longest()[1] == "beside"
    end.set()
    thread.join(5)
    assert calls.longest() == (0.0, "")


def test_the_slowest_that_has_ended_is_known_of_those_that_come_often():
    now = [0.0]
    calls = UnderWay(lambda: now[0])
    for seconds, often in ((3.0, True), (9.0, False), (2.0, True)):
        with calls.call("one", often):
            now[0] += seconds
    with calls.call("not ended", often=True):
        now[0] += 20.0
        assert calls.slowest == 3.0
