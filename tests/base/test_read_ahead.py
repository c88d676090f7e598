"""base/read_ahead.py: reading ahead of a consumer, in order, and no further than asked for."""

import gc
import threading
import weakref

import pytest
from helpers import ends_within, wait_until

from onnx2trt.base.errors import DataError
from onnx2trt.base.read_ahead import read_ahead


def test_the_order_is_that_of_the_paths_whoever_is_ready_first():
    second_done = threading.Event()

    def load(path):
        if path == "a":
            assert second_done.wait(5)  # runs at the same time as "b", and ends after it
        if path == "b":
            second_done.set()
        return path.upper()

    assert list(read_ahead("abc", load, workers=2)) == [("a", "A"), ("b", "B"), ("c", "C")]


@pytest.mark.parametrize(("workers", "ahead"), [(1, 0), (2, 0), (4, 0), (4, 3), (1, 10), (2, 20)])
def test_loads_are_ahead_of_the_consumer_by_a_bounded_number(workers, ahead):
    started = []
    results = read_ahead(range(50), lambda number: started.append(number) or number, workers, ahead)
    most = max(2 * workers, ahead)
    for consumed, (path, _) in enumerate(results, start=1):
        assert path == consumed - 1
        assert len(started) <= consumed + most
        if consumed == 1:
            assert wait_until(lambda: len(started) == 1 + most)  # without anybody asking
    assert len(started) == 50


def test_a_consumer_that_stops_early_leaves_the_rest_unread():
    started = []
    results = read_ahead(range(1000), started.append, workers=2)
    next(results)
    results.close()
    assert len(started) <= 6


def test_what_is_waiting_when_the_consumer_stops_is_not_loaded():
    started, go_on = [], threading.Event()

    def load(number):
        started.append(number)
        assert number == 0 or go_on.wait(5)

    results = read_ahead(range(10), load, workers=1)
    next(results)
    assert wait_until(lambda: started == [0, 1])
    threading.Timer(0.05, go_on.set).start()
    results.close()
    assert started == [0, 1]


def test_a_consumer_that_stops_does_not_wait_for_what_is_being_loaded():
    """The garbage collector can be what ends it, in a thread in which waiting for other threads would never end."""
    go_on = threading.Event()
    results = read_ahead(range(10), lambda number: number == 0 or go_on.wait(30), workers=1)
    next(results)
    assert ends_within(5, results.close)
    go_on.set()


def test_bad_data_is_handed_over_and_other_errors_are_raised():
    def load(path):
        if path == "bad":
            raise DataError("is empty")
        raise MemoryError

    results = read_ahead(["bad", "worse"], load, workers=1)
    path, error = next(results)
    assert path == "bad" and isinstance(error, DataError)
    with pytest.raises(MemoryError):
        next(results)


def test_what_is_refused_keeps_nothing_of_what_was_read():
    """The collector is off in a run, and the reasons of skipped files are kept to its end."""

    class Large:
        pass

    seen = []

    def load(_):
        large = Large()
        seen.append(weakref.ref(large))
        raise DataError("too large")

    gc.disable()
    try:
        kept = [error for _, error in read_ahead(range(3), load)]
    finally:
        gc.enable()
    assert [str(error) for error in kept] == ["too large"] * 3 and [reference() for reference in seen] == [None] * 3
