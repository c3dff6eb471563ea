"""The counter-based numbers: SplitMix64's published values, laws, and independence of the batch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stcore.attacks.counter_random import integers, keys, normals, signs, uniforms


def test_the_words_are_splitmix64s():
    """The generator's published first values for the seed 1234567."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    np.testing.assert_array_equal(integers(np.array([1234567], np.uint64), 4)[0], np.array(published, np.uint64))


def test_every_word_of_an_address_counts_and_its_place_too():
    addresses = [(a, b, c) for a in range(8) for b in range(8) for c in range(8)]
    assert len(set(keys(*np.array(addresses).T).tolist())) == len(addresses)
    assert keys(1, 2) != keys(2, 1)
    assert keys(0) != keys(0, 0)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**64 - 1), rows=st.lists(st.integers(0, 10_000), min_size=1, max_size=9))
def test_a_row_depends_on_its_address_alone(seed, rows):
    for law in (uniforms, normals, signs):
        together = law(keys(seed, np.array(rows)), (2, 3, 1))
        alone = [law(keys(seed, np.array([row])), (2, 3, 1))[0] for row in rows]
        np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize(("law", "cdf"), [(uniforms, "uniform"), (normals, "norm")])
def test_laws(law, cdf):
    from scipy.stats import kstest

    drawn = law(keys(3, np.arange(40)), (25, 31))
    assert kstest(drawn.reshape(-1), cdf).pvalue > 1e-3
    assert abs(np.mean(drawn[:-1] * drawn[1:]) - np.mean(drawn) ** 2) < 0.02  # neighbouring keys
    assert abs(np.corrcoef(drawn[..., :-1].reshape(-1), drawn[..., 1:].reshape(-1))[0, 1]) < 0.02


def test_signs_are_fair():
    drawn = signs(keys(np.arange(100)), (100,))
    assert set(np.unique(drawn)) == {-1.0, 1.0}
    assert abs(drawn.mean()) < 0.04
