"""Reading ahead of a consumer on all cores."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from onnx2trt.base.cores import usable_cores
from onnx2trt.base.errors import DataError

MOST_WORKERS = 8
T = TypeVar("T")


def read_ahead(items: Iterable[T], load: Callable[[T], object], workers: int = 0, ahead: int = 0) -> Iterator[tuple[T, object]]:
    """(item, load(item)) in the order of items; a DataError is returned.

    Args:
        items: taken one by one, shortly before they are loaded, so they may hold the memory to load into.
        workers: threads; 0: as many as there are cores.
        ahead: loads that are under way or waiting for the consumer, at most; twice the workers where that is more.
    """
    workers = workers or min(usable_cores(), MOST_WORKERS)
    ahead = max(ahead, 2 * workers)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="read")
    pending: deque = deque()

    def attempt(item: T):
        try:
            return load(item)
        except DataError as error:
            return DataError(*error.args)  # this one's frames hold what was read, and somebody may keep it for long

    def first():
        item, future = pending.popleft()
        return item, future.result()

    try:
        for item in items:
            pending.append((item, pool.submit(attempt, item)))
            del item  # only `pending` and whoever is given it hold it
            if len(pending) > ahead:
                yield first()
        while pending:
            yield first()
    finally:
        # A consumer that raised may leave us to the garbage collector, which comes in any thread, even in one that is just starting:
        # to wait there for the pool's threads never ends.
        pool.shutdown(wait=False, cancel_futures=True)


def map_in_order(items: Iterable[T], work: Callable[[T], object], at_once: int = 1) -> Iterator[tuple[T, object]]:
    """(item, work(item)) in the order of items; `at_once` threads work at the same time, none but the caller's where that is 1."""
    return read_ahead(items, work, at_once) if at_once > 1 else ((item, work(item)) for item in items)
