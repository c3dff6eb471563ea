"""The stopwatch tells what is spent once from what each image takes, by a clock that only the tests turn."""

import numpy as np
import pytest

from stcore.costs.stopwatch import Spent, Stopwatch
from stcore.data import Batch

IMAGES = 4


class Clock:
    """What `time` is to the stopwatch: seconds, and as many of CPU time as are told."""

    def __init__(self):
        self.seconds = self.cpu = 100.0

    def perf_counter(self):
        return self.seconds

    def process_time(self):
        return self.cpu

    def turn(self, seconds, cpu=0.0):
        self.seconds += seconds
        self.cpu += cpu


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("stcore.costs.stopwatch.time", clock)
    return clock


def epoch(batches=3):
    for _ in range(batches):
        yield Batch(np.zeros((IMAGES, 1, 1, 1), np.uint8), np.zeros(IMAGES, np.int64), np.arange(IMAGES))


def worked(watch, clock, *, first=0.0, each=0.0, cpu=0.0):
    """Batches handed out, each worked on for so long."""
    handed = 0
    for _ in watch.over(epoch):
        clock.turn(each + (0 if handed else first), cpu)
        handed += 1
    return handed


def close(seconds, cpu_seconds=0.0):
    return Spent(pytest.approx(seconds), pytest.approx(cpu_seconds))


def test_what_is_spent_at_first_is_no_part_of_the_pace(clock):
    watch = Stopwatch(30.0, 40, lambda: None)
    assert worked(watch, clock, first=3.0, each=0.5, cpu=2.0) == 10  # beyond an epoch's three
    assert watch.pace.images == 8 * IMAGES
    assert watch.pace.image == close(0.5 / IMAGES, 2.0 / IMAGES)
    assert watch.pace.once == close(3.0)


def test_it_ends_with_its_time(clock):
    watch = Stopwatch(5.0, 1000, lambda: None)
    assert worked(watch, clock, each=1.0) == 5


def test_a_pace_is_taken_even_where_the_first_batch_is_the_whole_time(clock):
    watch = Stopwatch(1.0, 1000, lambda: None)
    assert worked(watch, clock, first=60.0, each=2.0) == 2
    assert watch.pace.image == close(2.0 / IMAGES)
    assert watch.pace.once == close(60.0)


def test_no_more_than_there_is_to_do(clock):
    watch = Stopwatch(30.0, IMAGES, lambda: None)
    assert worked(watch, clock, first=3.0, each=1.0) == 1
    assert (watch.pace.images, watch.pace.once) == (0, Spent())
    assert watch.pace.image == close(4.0 / IMAGES)


def test_it_waits_for_the_device_where_it_looks_at_the_clock(clock):
    queue = []

    def wait():
        clock.turn(0.5 * len(queue))
        queue.clear()

    watch = Stopwatch(30.0, 6 * IMAGES, wait)
    for _ in watch.over(epoch):
        queue.append(None)
    assert watch.pace.image == close(0.5 / IMAGES)
    assert watch.pace.once == close(0.0)


def test_a_first_batch_faster_than_the_pace_gives_no_time_back(clock):
    watch = Stopwatch(30.0, 4 * IMAGES, lambda: None)
    for number, _ in enumerate(watch.over(epoch)):
        clock.turn(float(number))
    assert watch.pace.once == Spent()


def test_what_was_left_unfinished_has_no_pace(clock):
    watch = Stopwatch(30.0, 1000, lambda: None)
    next(watch.over(epoch))
    assert watch.pace is None


def test_asked_to_stop_it_hands_out_no_more(clock):
    watch = Stopwatch(30.0, 1000, lambda: None, stop=lambda: True)
    assert worked(watch, clock) == 1


def test_spent_adds_up():
    assert Spent(3.0, 1.0) - Spent(1.0, 0.5) + 2 * Spent(0.5, 0.25) == Spent(3.0, 1.0)
