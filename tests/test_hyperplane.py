"""The shortest way onto a hyperplane within a box: against sorting, pyautoattack and the definition."""

from types import SimpleNamespace

import numpy as np
import pytest
from harness import load
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stcore.attacks.hyperplane import DUAL, displacement, length
from stcore.protocols import Ops

ORDERS = {"linf": np.inf, "l2": 2, "l1": 1}
NORMS = tuple(ORDERS)
UNIT = (0.0, 1.0)


def by_sorting(norm, t, w, gap, bounds=UNIT):
    """One example's shortest displacement: the coordinates are walked through in the order in which they stop."""
    side, slope = -np.sign(gap) * np.sign(w), np.abs(w)
    room = np.where(side > 0, bounds[1] - t, t - bounds[0])
    if norm == "l1":
        move, left = np.zeros_like(t), abs(gap)
        for i in np.argsort(-slope, kind="stable"):
            if slope[i] > 0 and left > 0:
                move[i] = min(room[i], left / slope[i])
                left -= slope[i] * room[i]
        return side * move
    speed = np.where(slope > 0, 1.0, 0.0) if norm == "linf" else slope / max(slope.max(), 1e-300)
    stops = np.where(speed > 0, room / np.where(speed > 0, speed, 1), 0)
    order = np.argsort(stops)
    stopped = np.concatenate([[0.0], np.cumsum((slope * room)[order])])
    moving = np.cumsum((slope * speed)[order][::-1])[::-1]
    for i, at in enumerate(stops[order]):
        if moving[i] > 0 and stopped[i] + moving[i] * at >= abs(gap):
            return side * np.minimum((abs(gap) - stopped[i]) / moving[i] * speed, room)
    return side * room


def hard(weights, points, size=(24, 600), seed=0):
    rng = np.random.default_rng(seed)
    w = {
        "normal": rng.normal(size=size),
        "cauchy": rng.standard_cauchy(size),
        "decades": rng.choice([-1, 1], size) * 10 ** rng.uniform(-10, 0, size),
        "sparse": rng.normal(size=size) * (rng.uniform(size=size) < 0.1),
        "tiny": 1e-25 * rng.normal(size=size),  # its squares are no float32
    }[weights]
    t = rng.uniform(size=size)
    if points == "edges":
        t = np.where(rng.uniform(size=size) < 0.7, np.round(t), t)
    side = rng.choice([-1.0, 1.0], size[0])
    room = np.where(side[:, None] * w < 0, 1 - t, t)
    shares = np.resize([0.0, 1e-6, 0.01, 0.2, 0.7, 0.99, 0.9999, 1.5], size[0])
    return t, w, side * shares * (np.abs(w) * room).sum(1)


def found(backend, norm, t, w, gap, bounds=UNIT):
    return backend.array(displacement(backend.ops, norm, *map(backend.tensor, (t, w, gap)), bounds))


@pytest.mark.parametrize("points", ["uniform", "edges"])
@pytest.mark.parametrize("weights", ["normal", "cauchy", "decades", "sparse", "tiny"])
@pytest.mark.parametrize("norm", NORMS)
def test_it_is_what_sorting_finds(every_backend, norm, weights, points):
    t, w, gap = hard(weights, points)
    exact = np.array([by_sorting(norm, *row) for row in zip(t, w, gap, strict=True)])
    move = found(every_backend, norm, t, w, gap)
    if norm == "l1":  # coordinates with all but equal weights may share: as good, but another point
        np.testing.assert_allclose(np.abs(move).sum(1), np.abs(exact).sum(1), rtol=1e-9)
        np.testing.assert_allclose((w * move).sum(1), (w * exact).sum(1), rtol=1e-9)
    else:
        np.testing.assert_allclose(move, exact, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("weights", ["normal", "tiny"])
@pytest.mark.parametrize("norm", NORMS)
def test_it_is_as_good_in_float32(backend, norm, weights):
    t, w, gap = (a.astype(np.float32) for a in hard(weights, "edges"))
    exact = [by_sorting(norm, *row) for row in zip(*(a.astype(float) for a in (t, w, gap)), strict=True)]
    lengths = np.linalg.norm(found(backend, norm, t, w, gap), ord=ORDERS[norm], axis=1)
    reachable = np.arange(len(t)) % 8 < 5  # nearer to the corner, rounding of the sum decides
    np.testing.assert_allclose(
        lengths[reachable], np.linalg.norm(exact, ord=ORDERS[norm], axis=1)[reachable], rtol=1e-4
    )


@pytest.mark.parametrize("norm", NORMS)
def test_it_is_pyautoattacks(norm):
    projections = pytest.importorskip("pyautoattack.fab_projections")
    torch = pytest.importorskip("torch")
    backend = load("torch")
    for points in ("uniform", "edges"):
        t, w, gap = hard("normal", points, size=(40, 192), seed=1)
        projection = getattr(projections, f"projection_{norm}")
        theirs = projection(*(torch.tensor(a) for a in (t, w, (w * t).sum(1) - gap))).numpy()
        np.testing.assert_allclose(found(backend, norm, t, w, gap), theirs, atol=1e-9)


def with_loop(ops, loop):
    """The operations with another `fixed_point`."""
    names = [name for name in vars(Ops) if name[0] != "_"]
    return SimpleNamespace(**{name: getattr(ops, name) for name in names} | {"fixed_point": loop})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("norm", NORMS)
def test_a_search_that_stops_early_finds_the_same_bits(backend, norm, dtype):
    slow = with_loop(backend.ops, backend.ops.fori_loop)
    for weights in ("normal", "cauchy", "decades", "sparse", "tiny"):
        problem = [backend.tensor(a.astype(dtype)) for a in hard(weights, "edges")]
        one, other = (backend.array(displacement(ops, norm, *problem, UNIT)) for ops in (backend.ops, slow))
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_newtons_method_makes_no_step_after_one_that_moves_nothing(every_backend, norm):
    counts = []

    def counted(limit, body, carry):
        counts.append(0)

        def step(*carry):
            counts[-1] += 1
            return body(*carry)

        return every_backend.ops.fixed_point(limit, step, carry)

    t, w, gap = hard("normal", "uniform")
    for gaps in (0.0 * gap, gap):
        displacement(with_loop(every_backend.ops, counted), norm, *map(every_backend.tensor, (t, w, gaps)), UNIT)
    assert counts[0] == 1  # all are on the plane
    assert 3 < counts[1] < 15


@st.composite
def problems(draw):
    """With ties, zero weights, coordinates at the edge, and planes out of reach."""
    size = draw(st.integers(1, 8))
    numbers = st.one_of(st.integers(-3, 3).map(float), st.floats(-10, 10, allow_subnormal=False))
    low, high = draw(st.sampled_from([UNIT, (-1.0, 1.0), (0.0, 255.0)]))
    w = np.array(draw(st.lists(numbers, min_size=size, max_size=size)))
    place = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1))
    t = low + (high - low) * np.array(draw(st.lists(place, min_size=size, max_size=size)))
    return t, w, draw(st.one_of(st.just(0.0), st.floats(-50, 50))), (low, high)


@settings(max_examples=300, deadline=None)
@given(problems(), st.sampled_from(NORMS))
@example((np.array([0.5, 0.5]), np.zeros(2), 1.0, UNIT), "linf")
@example((np.array([0.5, 0.5]), np.zeros(2), 1.0, UNIT), "l2")
@example((np.array([0.5, 0.5]), np.zeros(2), 1.0, UNIT), "l1")
def test_on_the_plane_in_the_box_and_no_longer_than_need_be(problem, norm):
    t, w, gap, bounds = problem
    (move,) = found(load("strict"), norm, t[None], w[None], np.array([gap]), bounds)
    reach = np.abs(w) @ np.where(gap * w < 0, bounds[1] - t, t - bounds[0])
    closed = np.sign(gap) * min(abs(gap), reach)
    assert abs(w @ move + closed) <= 1e-9 * max(reach, 1e-3)
    assert (t + move >= bounds[0] - 1e-12).all()
    assert (t + move <= bounds[1] + 1e-12).all()
    shortest = np.linalg.norm(by_sorting(norm, t, w, gap, bounds), ord=ORDERS[norm])
    assert np.linalg.norm(move, ord=ORDERS[norm]) <= shortest * (1 + 1e-9) + 1e-12


@pytest.mark.parametrize("norm", NORMS)
def test_equal_weights_share_and_the_steepest_go_first(every_backend, norm):
    t, w = np.full((1, 4), 0.5), np.array([[2.0, 2.0, 1.0, 0.0]])
    by_hand = {"linf": [-0.3, -0.3, -0.3, 0], "l2": [-1 / 3, -1 / 3, -1 / 6, 0], "l1": [-0.375, -0.375, 0, 0]}
    move = found(every_backend, norm, t, w, np.array([1.5]))
    np.testing.assert_allclose(move[0], by_hand[norm], atol=1e-12)
    by_hand = {"linf": [0.48, 0.48, 0.48, 0], "l2": [0.5, 0.5, 0.4, 0], "l1": [0.5, 0.5, 0.4, 0]}
    move = found(every_backend, norm, t, w, np.array([-2.4]))  # beyond the room of the first two
    np.testing.assert_allclose(move[0], by_hand[norm], atol=1e-12)


@pytest.mark.parametrize("norm", NORMS)
def test_lengths_and_their_duals(every_backend, norm):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 5, 4, 4, 3))
    lengths = every_backend.array(length(every_backend.ops, norm, every_backend.tensor(a)))
    np.testing.assert_allclose(lengths, np.linalg.norm(a.reshape(5, -1), ord=ORDERS[norm], axis=1))
    dual = every_backend.array(length(every_backend.ops, DUAL[norm], every_backend.tensor(b)))
    assert (np.abs((a * b).sum((1, 2, 3))) <= lengths * dual).all()
    sharp = {"linf": np.sign(b), "l2": b, "l1": b * (np.abs(b) == np.abs(b).max((1, 2, 3), keepdims=True))}[norm]
    sharp_lengths = np.linalg.norm(sharp.reshape(5, -1), ord=ORDERS[norm], axis=1)
    np.testing.assert_allclose((sharp * b).sum((1, 2, 3)), sharp_lengths * dual)
