"""What every search starts from: the laws of its noise, and its first points."""

from types import SimpleNamespace

import numpy as np
import pytest

from stcore.core.search import noise_laws, starts

LAWS = {
    ("gaussian", "linf"): ("normal", "normal"),
    ("gaussian", "l2"): ("normal", "normal"),
    ("uniform", "linf"): ("uniform", "uniform"),
    ("uniform", "l2"): ("ball", "ball"),
    ("natural", "linf"): (),
    ("natural", "l2"): (),
}


@pytest.mark.parametrize(("init", "norm"), LAWS)
def test_a_search_names_the_law_of_each_start(init, norm):
    assert noise_laws(SimpleNamespace(init=init, norm=norm), 2) == LAWS[init, norm]


@pytest.mark.parametrize(("init", "scale"), [("gaussian", 0.001), ("uniform", 0.25)])
def test_starts_are_scaled_by_their_law(init, scale):
    x, noise = np.array([0.5, 1.0]), (np.array([1.0, 2.0]), np.array([-1.0, 0.0]))
    search = SimpleNamespace(init=init, noise_std=0.001, epsilon=0.25)
    for start, unit in zip(starts(search, x, noise), noise, strict=True):
        np.testing.assert_array_equal(start, x + scale * unit)


def test_without_noise_a_search_starts_at_x():
    x = np.array([0.5, 1.0])
    (start,) = starts(SimpleNamespace(init="natural", epsilon=0.25), x, ())
    assert start is x
