"""Ordered work ahead: threads compute results before they are asked for, at most so far ahead."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

from stcore.base import checks

Item = TypeVar("Item")
Result = TypeVar("Result")
NAME = "stcore-ahead"
"""Beginning of the threads' names."""


def ordered_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, bound: int
) -> Generator[Result, None, None]:
    """Yields function(item) of each item, in order, computed by `workers` threads ahead of the caller.

    The threads take the items too, one at a time and in order, so that reading an iterator is work ahead as well.
    An exception, of the items or of the function, is raised where its result would have been yielded; results
    before it are yielded first. The end, an exception and `close` stop the threads, wait for them, and then close
    the items if they are a generator: use `contextlib.closing` where a loop may be left early.

    workers: 0 computes each result in the caller's thread when it is asked for.
    bound: items at most that are taken and whose results are not yielded yet, at least 1; unused without workers.
    Raises UsageError, at the first result, if a number does not fit.
    """
    checks.whole("workers", workers)
    checks.whole("bound", bound, 1)
    source = iter(items)
    try:
        yield from _ahead(function, source, workers, bound) if workers else map(function, source)
    finally:
        if isinstance(source, Generator):
            source.close()


def _ahead(
    function: Callable[[Item], Result], source: Any, workers: int, bound: int
) -> Generator[Result, None, None]:
    results: SimpleQueue[Future[Result] | None] = SimpleQueue()  # in the order of the items; None ends them
    free, taking, ended = threading.Semaphore(bound), threading.Lock(), threading.Event()

    def take() -> tuple[Future[Result], Item] | None:
        """The next item and the place of its result; None at the end, or if taking it failed."""
        with taking:
            if ended.is_set():
                return None
            place: Future[Result] = Future()
            try:
                item = next(source)
            except StopIteration:
                ended.set()
                results.put(None)
                return None
            except BaseException as error:
                ended.set()
                place.set_exception(error)
                results.put(place)
                return None
            results.put(place)
            return place, item

    def work() -> None:
        while free.acquire() and (taken := take()) is not None:
            _settle(function, *taken)
            del taken  # a thread that waits holds no result
        free.release()  # the next thread sees the end too

    threads = [threading.Thread(target=work, name=f"{NAME}-{i}", daemon=True) for i in range(workers)]
    try:
        for thread in threads:
            thread.start()
        while (place := results.get()) is not None:
            result = place.result()
            free.release()
            yield result
            del place, result  # the caller's alone while the next is waited for
    finally:
        ended.set()
        free.release()
        for thread in threads:
            if thread.ident is not None:
                thread.join()


def _settle(function: Callable[[Item], Result], place: Future[Result], item: Item) -> None:
    """Computes the result of an item, or the exception in its place."""
    try:
        place.set_result(function(item))
    except BaseException as error:
        place.set_exception(error)
