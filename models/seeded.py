"""Initial weights of other people's networks: drawn from global generators, which are set and put back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from stcore.base.seeding import Stream, generator


@contextmanager
def seeded(seed: int) -> Iterator[int]:
    """Python's and numpy's generators as a function of `seed` alone; yields a number to seed a framework's by."""
    number = int(generator(seed, Stream.WEIGHTS).integers(2**32))
    pythons, numpys = random.getstate(), np.random.get_state()
    random.seed(number)
    np.random.seed(number)
    try:
        yield number
    finally:
        random.setstate(pythons)
        np.random.set_state(numpys)
