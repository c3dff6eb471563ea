"""Randomness by address: the same numbers whoever asks, in whatever company."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stcore.base.seeding import Stream, generator, sample_ball, sample_normal, sample_uniform
from stcore.errors import UsageError

SAMPLERS = [sample_normal, sample_uniform, sample_ball]
words = st.integers(0, 2**64 - 1)
places = st.integers(0, 2**63 - 1)


@pytest.mark.parametrize("sample", SAMPLERS)
@given(seed=words, epoch=words, positions=st.lists(places, max_size=6), data=st.data())
def test_a_position_gets_the_same_numbers_in_any_batch(sample, seed, epoch, positions, data):
    whole = sample(seed, Stream.NOISE, np.array(positions, np.int64), (3, 2, 1), epoch=epoch)
    assert whole.shape == (len(positions), 3, 2, 1)
    order = data.draw(st.permutations(range(len(positions))))
    for row in order:
        alone = sample(seed, Stream.NOISE, [positions[row]], (3, 2, 1), epoch=epoch)
        np.testing.assert_array_equal(alone[0], whole[row])


def test_each_row_is_the_generator_of_its_address():
    rows = sample_normal(7, Stream.ATTACK, [4, 9], (5,), epoch=3, draw=2)
    for row, position in zip(rows, [4, 9], strict=True):
        rng = generator(7, Stream.ATTACK, epoch=3, position=position, draw=2)
        np.testing.assert_array_equal(row, rng.standard_normal(5, dtype=np.float32))


@pytest.mark.parametrize("sample", SAMPLERS)
def test_every_part_of_the_address_matters(sample):
    base = {"seed": 1, "stream": Stream.NOISE, "positions": [5], "epoch": 2, "draw": 0}
    changes = [{}, {"seed": 2}, {"stream": Stream.ATTACK}, {"positions": [6]}, {"epoch": 3}, {"draw": 1}]
    drawn = {sample(**{**base, **change}, shape=(4, 4, 3)).tobytes() for change in changes}
    assert len(drawn) == len(changes)


def test_the_numbers_are_pinned():
    """A change here changes every run of every seed: say so in the changelog."""
    assert int(generator(1, Stream.ORDER).bit_generator.random_raw()) == 5599841837815857887
    np.testing.assert_allclose(
        sample_uniform(1, Stream.NOISE, [2], (2,), epoch=3, draw=1)[0],
        [-0.701927661895752, 0.4053328037261963],
    )
    assert [stream.value for stream in Stream] == list(range(len(Stream)))


@pytest.mark.parametrize("sample", SAMPLERS)
def test_float64_is_float32_widened(sample):
    single = sample(0, Stream.NOISE, np.arange(3), (8, 8, 3))
    double = sample(0, Stream.NOISE, np.arange(3), (8, 8, 3), dtype=np.float64)
    assert (single.dtype, double.dtype) == (np.float32, np.float64)
    np.testing.assert_array_equal(single, double)


def test_normals_are_standard():
    drawn = sample_normal(0, Stream.NOISE, np.arange(100), (10, 10, 3), dtype=np.float64)
    assert abs(drawn.mean()) < 0.02
    assert abs(drawn.std() - 1) < 0.02
    assert abs(np.corrcoef(drawn[0].ravel(), drawn[1].ravel())[0, 1]) < 0.2


def test_uniforms_fill_the_interval_and_never_reach_one():
    drawn = sample_uniform(0, Stream.NOISE, np.arange(100), (10, 10, 10))
    assert drawn.min() >= -1
    assert drawn.max() < 1
    np.testing.assert_allclose(np.quantile(drawn, [0.1, 0.5, 0.9]), [-0.8, 0, 0.8], atol=0.02)


@pytest.mark.parametrize("dimension", [1, 2, 12])
def test_ball_points_are_uniform_in_the_ball(dimension):
    drawn = sample_ball(0, Stream.NOISE, np.arange(4000), (dimension,), dtype=np.float64)
    radius = np.linalg.norm(drawn, axis=1)
    assert radius.max() <= 1 + 1e-6
    # radius^d is uniform on [0, 1], and the direction has no preference.
    np.testing.assert_allclose(np.quantile(radius**dimension, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.03)
    assert np.abs(drawn.mean(axis=0)).max() < 0.05


def test_nothing_global_is_read_or_moved():
    np.random.seed(3)
    before = np.random.get_state()[1].tobytes()
    first = sample_normal(0, Stream.NOISE, [0], (4,))
    np.random.seed(4)
    np.testing.assert_array_equal(first, sample_normal(0, Stream.NOISE, [0], (4,)))
    np.random.seed(3)
    assert np.random.get_state()[1].tobytes() == before


@pytest.mark.parametrize("bad", [-1, 2**64, 1.5, None])
@pytest.mark.parametrize("word", ["seed", "epoch", "position", "draw"])
def test_an_address_out_of_range_is_refused(word, bad):
    with pytest.raises(UsageError, match=rf"expected {word} as an integer in \[0, 2\^64\), received"):
        generator(**{"seed": 0, "stream": Stream.NOISE, word: bad})


@pytest.mark.parametrize("positions", [3, [[1]], [0.5], [-1], [True]])
def test_positions_that_are_none_are_refused(positions):
    with pytest.raises(UsageError, match="expected positions as a one-dimensional array of integers >= 0"):
        sample_normal(0, Stream.NOISE, positions, (2,))


def test_another_dtype_is_refused():
    with pytest.raises(UsageError, match="expected dtype float32 or float64, received float16"):
        sample_uniform(0, Stream.NOISE, [0], (2,), dtype=np.float16)
