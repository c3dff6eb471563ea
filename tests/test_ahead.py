"""Work ahead: order, bound, the place of an exception, and threads that end."""

import gc
import threading
import time
import weakref
from contextlib import closing
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stcore.base.ahead import NAME, ordered_ahead
from stcore.errors import UsageError


def alive():
    return [thread for thread in threading.enumerate() if thread.name.startswith(NAME)]


@pytest.fixture(autouse=True)
def threads_end():
    assert not alive()
    yield
    assert not alive()


def square(number):
    return number * number


NUMBERS = {"workers": st.integers(0, 4), "bound": st.integers(1, 9)}


@given(total=st.integers(0, 30), late=st.sets(st.integers(0, 29)), **NUMBERS)
def test_results_come_in_the_items_order(total, workers, bound, late):
    def slow(number):
        if number in late:
            time.sleep(0.001)
        return square(number)

    assert list(ordered_ahead(slow, range(total), workers, bound)) == list(map(square, range(total)))


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("bound", [1, 2, 5])
def test_no_more_is_taken_than_the_bound(workers, bound):
    taken, given, most = count(), 0, 0
    ahead = threading.Event()

    def items():
        nonlocal most
        for number in range(30):
            most = max(most, next(taken) + 1 - given)
            if number + 1 == bound:
                ahead.set()
            yield number

    with closing(ordered_ahead(square, items(), workers, bound)) as results:
        for number, result in enumerate(results):
            assert result == square(number)
            assert ahead.wait(10)  # taken without being asked for
            given += 1
    assert most in (bound, bound + 1)  # one more while the caller has a result that it has not counted yet
    assert given == 30


def test_workers_work_at_the_same_time():
    meeting = threading.Barrier(3, timeout=10)
    assert len(set(ordered_ahead(lambda _: meeting.wait(), range(9), 3, 3))) == 3


def test_without_workers_nothing_is_ahead():
    seen = []
    results = ordered_ahead(lambda item: (item, threading.current_thread()), map(seen.append, range(9)), 0, 5)
    assert next(results) == (None, threading.main_thread())
    assert seen == [0]


@given(broken=st.integers(0, 20), items=st.booleans(), **NUMBERS)
def test_an_exception_comes_in_its_place(broken, workers, bound, items):
    def fail(number):
        if number == broken:
            raise KeyError(number)
        return number

    got = []
    given = map(fail, count()) if items else count()
    results = ordered_ahead(square if items else fail, given, workers, bound)
    for _ in range(broken):
        got.append(next(results))
    with pytest.raises(KeyError, match=str(broken)):
        next(results)
    assert got == [square(n) if items else n for n in range(broken)]
    assert not alive()
    assert list(results) == []


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("leave", ["close", "drop", "raise", "end"])
def test_items_are_closed_and_threads_end(workers, leave):
    closed = []

    def items():
        try:
            yield from range(5 if leave == "end" else 10**9)
        finally:
            closed.append(threading.active_count())

    before = threading.active_count()
    results = ordered_ahead(square, items(), workers, 4)
    assert next(results) == 0
    assert len(alive()) == workers
    if leave == "close":
        results.close()
    elif leave == "raise":
        with pytest.raises(KeyboardInterrupt), closing(results):
            raise KeyboardInterrupt
    elif leave == "end":
        assert list(results) == [1, 4, 9, 16]
    del results
    gc.collect()
    assert closed
    assert threading.active_count() == before


def test_an_interrupt_of_the_wait_ends_the_threads(monkeypatch):
    """Ctrl-C arrives while the caller waits for a result that takes long."""
    begun, go = threading.Event(), threading.Event()

    class Interrupted:
        def __init__(self):
            self.put = lambda item: None

        def get(self):
            begun.wait(10)
            go.set()
            raise KeyboardInterrupt

    monkeypatch.setattr("stcore.base.ahead.SimpleQueue", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(ordered_ahead(lambda _: (begun.set(), go.wait(10)), count(), 2, 4))
    assert not alive()


class Result:
    pass


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_no_result_is_kept_once_the_next_is_asked_for(workers):
    """Neither by the generator nor by a thread that waits."""
    made = []

    def make(number):
        made.append(weakref.ref(result := Result()))
        return result

    with closing(ordered_ahead(make, range(20), workers, 3)) as results:
        for _ in range(9):
            next(results)
        time.sleep(0.01)  # the threads wait for the bound
        gc.collect()
        assert sum(one() is not None for one in made) <= (4 if workers else 1)  # one of them is the caller's


@pytest.mark.parametrize(("workers", "bound"), [(-1, 1), (1, 0), (1.5, 2)])
def test_numbers_that_do_not_fit_are_refused(workers, bound):
    with pytest.raises(UsageError, match=r"(workers|bound): expected a whole number of at least [01]; received"):
        next(ordered_ahead(square, range(3), workers, bound))
