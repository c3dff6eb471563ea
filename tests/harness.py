"""What the shared suite needs of a backend: `stcore.testing.backends`, with a skip where one is not installed."""

import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from stcore.core.dispatch import missing_packages
from stcore.models import load_weights
from stcore.testing import backends
from stcore.testing.backends import (
    CHANNELS,
    CLASSES,
    Backend,
    Problem,
    assert_close,
    lively_weights,
    problem,
    worst,
)
from stcore.testing.methods import gradients

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
NAMES = ("torch", "keras")
__all__ = [
    "BENCHMARKS",
    "CHANNELS",
    "CLASSES",
    "NAMES",
    "Backend",
    "Problem",
    "assert_close",
    "assert_same",
    "built",
    "gradients",
    "lively_weights",
    "load",
    "problem",
    "worst",
]


def needs_timm():
    """Skips without timm, which only stcore can import beside a torchvision of another torch."""
    if importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed: pip install '.[timm]'")


def load(name):
    """The backend, or a skip that says what is missing."""
    if name != "strict" and (missing := missing_packages(name)):
        pytest.skip(f"backend {name}: {' and '.join(missing)} not installed")
    return backends.load(name)


def built(backend, net="tiny", **size):
    """The network as built anew, if its last use is over: Keras' is kept and has its weights loaded again.

    Which is quicker by far.
    """
    if backend.name != "keras":
        return backend.build(net, **size)
    model = _kept(net, **size)
    load_weights(model, lively_weights(net))
    return model


@cache
def _kept(net, **size):
    return load("keras").build(net, **size)


def assert_same(one, other):
    """Two dicts of arrays, bit for bit."""
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)
