"""Seeding of global random generators while a third-party network draws its weights."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from stcore.base.seeding import Stream, generator


@contextmanager
def seeded(seed: int) -> Iterator[int]:
    """Seeds Python's and numpy's generators by `seed` and restores them; yields a seed for the framework's."""
    number = int(generator(seed, Stream.WEIGHTS).integers(2**32))
    python_state, numpy_state = random.getstate(), np.random.get_state()
    random.seed(number)
    np.random.seed(number)
    try:
        yield number
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
