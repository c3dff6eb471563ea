"""The Square attack: published schedule, ball and range, lanes of their own, and pyautoattack's verdicts."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stcore.attacks import counter_random, l1_ball
from stcore.attacks.square import Square
from stcore.attacks.windows import Windows, place
from stcore.errors import UsageError

RADII = {"linf": 0.1, "l2": 0.7, "l1": 4.0}
SHAPES = [(8, 8, 3), (9, 5, 1), (1, 7, 2), (3, 12, 3), (20,), (2,)]


def measure(norm, delta):
    flat = delta.reshape(len(delta), -1).astype(np.float64)
    return np.linalg.norm(flat, {"linf": math.inf, "l2": 2, "l1": 1}[norm], axis=1)


def pixels(shape, batch=5, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).uniform(size=(batch, *shape)).astype(dtype)


def crooked(x):
    """Logits (B, 3) of a fixed network, each example by itself: the same bits in any batch."""
    return np.stack([_crooked(example.reshape(-1).astype(np.float64)) for example in x])


def _crooked(flat):
    rng = np.random.default_rng(len(flat))
    hidden = np.tanh((rng.normal(size=(4, len(flat))) * (flat - 0.5)).sum(axis=1))
    return (rng.normal(size=(3, 4)) * hidden).sum(axis=1)


def lane_keys(batch, seed=0):
    return counter_random.keys(seed, np.arange(batch))


def run(attack, x, y, network=crooked, keys=None, steps=None):
    """The states of all steps; a success does not leave."""
    keys = lane_keys(len(x)) if keys is None else keys
    state, history = attack.start(x, keys), []
    for step in range(attack.evaluations if steps is None else steps):
        points = attack.propose(x, state, np.full(len(x), step), keys)
        seen = points.copy()
        state = attack.judge(state, points, network(points), y)
        history.append({name: value.copy() for name, value in state.items()} | {"seen": seen})
    return history


# The schedule

PUBLISHED = [(0, 29), (10, 29), (11, 20), (50, 20), (51, 14), (200, 14), (201, 10), (500, 10), (501, 7)]
PUBLISHED += [(1000, 7), (1001, 5), (2000, 5), (2001, 4), (4000, 4), (4001, 3), (4999, 3)]


def test_the_published_sides():
    iterations, sides = np.array(PUBLISHED).T
    np.testing.assert_array_equal(Square().sides(iterations + 1, 32, 32), sides)
    odd = [side + 1 - side % 2 for side in sides]
    np.testing.assert_array_equal(Square(norm="l2").sides(iterations + 1, 32, 32), odd)
    assert list(Square(norm="l1", queries=9000).sides(np.array([1, 8002]), 8, 8)) == [7, 3]
    assert Square().evaluations == 5001


@pytest.mark.parametrize("norm", RADII)
@pytest.mark.parametrize("rescale", [False, True])
def test_the_schedule_is_pyautoattacks(norm, rescale):
    pytest.importorskip("pyautoattack")
    from pyautoattack.square import SquareAttack

    reference = SquareAttack(None, n_queries=700, p_init=0.3, resc_schedule=rescale)
    shares = np.array([reference.p_selection(i) for i in range(700)])
    sides = np.maximum(np.rint(np.sqrt(shares * 32 * 32)), 1 if norm == "linf" else 3)
    attack = Square(norm=norm, queries=700, p_init=0.3, rescale_schedule=rescale)
    expected = sides if norm == "linf" else sides + 1 - sides % 2
    np.testing.assert_array_equal(attack.sides(np.arange(1, 701), 32, 32), expected)


# Windows


def test_every_position_is_as_likely_the_last_row_and_column_too():
    chance = counter_random.uniforms(lane_keys(40_000), (2,))
    windows = place(chance, np.arange(40_000), 3, (5, 8))
    assert (windows.height, windows.width) == (3, 3)
    counts = np.bincount(windows.top * 6 + windows.left, minlength=3 * 6)
    assert len(counts) == 18
    expected = 40_000 / 18
    assert np.abs(counts - expected).max() < 5 * math.sqrt(expected)


def test_a_window_is_cut_off_where_the_image_ends():
    windows = place(np.array([[0.99, 0.5]]), np.array([0]), 6, (9, 4))
    assert (windows.top[0], windows.left[0], windows.height, windows.width) == (3, 0, 6, 4)


def test_windows_read_and_write_no_more_than_themselves():
    images = pixels((6, 7, 2), batch=4)
    before = images.copy()
    windows = Windows(np.array([1, 3]), np.array([2, 0]), np.array([4, 1]), 3, 2)
    read = windows.read(images)
    np.testing.assert_array_equal(read, np.stack([before[1, 2:5, 4:6], before[3, 0:3, 1:3]]))
    windows.write(images, 2.0)
    changed = np.zeros(images.shape, bool)
    changed[1, 2:5, 4:6] = changed[3, 0:3, 1:3] = True
    np.testing.assert_array_equal(images, np.where(changed, 2.0, before))
    assert read.max() < 2


# Proposals


@settings(max_examples=40, deadline=None)
@given(
    norm=st.sampled_from(list(RADII)),
    shape=st.sampled_from(SHAPES),
    dtype=st.sampled_from([np.float32, np.float64]),
    bounds=st.sampled_from([(0.0, 1.0), (-1.0, 2.0)]),
    seed=st.integers(0, 1000),
    first=st.sampled_from([0, 1, 300, 4500]),
)
def test_points_lie_in_the_ball_and_the_range(norm, shape, dtype, bounds, seed, first):
    x = pixels(shape, 3, seed, dtype)
    x[0] = np.round(x[0])  # at the bounds
    x = (bounds[0] + x * (bounds[1] - bounds[0])).astype(dtype)
    attack, keys, y = Square(RADII[norm], norm, bounds), lane_keys(3, seed), np.array([0, 1, 2])
    state = attack.start(x, keys)
    for step in [0, *range(first + 1, first + 9)]:
        points = attack.propose(x, state, np.full(3, step), keys)
        assert points.dtype == state["adversarial"].dtype == dtype
        for found in (points, state["adversarial"]):
            assert found.shape == x.shape
            assert measure(norm, found - x).max() <= RADII[norm] * (1 + 1e-5)
            assert found.min() >= bounds[0]
            assert found.max() <= bounds[1]
        state = attack.judge(state, points, crooked(points), y)


@pytest.mark.parametrize("norm", RADII)
def test_in_the_middle_of_the_range_the_whole_ball_is_used(norm):
    x = np.full((4, 9, 9, 3), 0.5)
    for state in run(Square(RADII[norm], norm, queries=20), x, np.arange(4) % 3):
        np.testing.assert_allclose(measure(norm, state["seen"] - x), RADII[norm], rtol=1e-5)


def test_the_first_points_of_linf_are_vertical_stripes():
    x = np.full((6, 5, 7, 3), 0.5)
    delta = (Square(0.1).start(x, lane_keys(6))["adversarial"] - x) / 0.1
    np.testing.assert_allclose(np.abs(delta), 1)
    np.testing.assert_array_equal(delta, np.broadcast_to(delta[:, :1], delta.shape))
    assert 0.3 < (delta[:, 0] > 0).mean() < 0.7


def test_a_proposal_of_linf_is_the_best_point_with_one_square_of_one_sign_a_channel():
    x, keys, attack = np.full((50, 32, 32, 3), 0.5), lane_keys(50), Square(0.1)
    state = attack.start(x, keys)
    best, spots = state["adversarial"].copy(), set()
    for step in range(700, 720):  # 7 × 7; every proposal is turned down
        points = attack.propose(x, state, np.full(50, step), keys)
        changed = points != best
        for lane in range(50):
            rows, columns, _ = np.nonzero(changed[lane])
            assert np.ptp(rows) < 7
            assert np.ptp(columns) < 7
            spots.add((step, rows.min(), columns.min()))
            for channel in range(3):
                values = points[lane, ..., channel][changed[lane, ..., channel]]
                assert len(set(values)) <= 1
        state = attack.judge(state, points, np.tile([np.inf, 0.0], (50, 1)), np.zeros(50, int))
        np.testing.assert_array_equal(state["adversarial"], best)
    assert len(spots) > 500  # every lane has windows of its own


@pytest.mark.parametrize(("norm", "epsilon"), [("l2", math.sqrt(75)), ("l1", 80.0)])  # so that nothing is cut
def test_the_first_points_of_l2_and_l1_are_tiles_of_pyautoattacks_bumps(norm, epsilon):
    """Five by five tiles of 6 × 6 behind a margin of one pixel, each a bump of one of two signs and directions."""
    pytest.importorskip("pyautoattack")
    import torch
    from pyautoattack.square import SquareAttack

    reference = SquareAttack(None, norm=norm.upper(), device="cpu")
    torch.manual_seed(0)
    both = {tuple(reference.eta(6).numpy().ravel()) for _ in range(20)}
    known = np.array([np.multiply(sign, bump) for sign in (1, -1) for bump in both])
    assert len(known) == 4
    delta = Square(epsilon, norm, bounds=(-9.0, 9.0)).start(np.zeros((2, 32, 32, 3)), lane_keys(2))["adversarial"]
    inner = delta[:, 1:31, 1:31].reshape(2, 5, 6, 5, 6, 3).transpose(0, 1, 3, 5, 2, 4).reshape(-1, 36)
    assert np.abs(delta).sum() == pytest.approx(np.abs(inner).sum())
    away = np.abs(inner[:, None] - known).max(axis=2)
    assert away.min(axis=1).max() < 1e-5
    assert set(away.argmin(axis=1)) == {0, 1, 2, 3}


def test_windows_of_many_steps_are_drawn_at_once(monkeypatch):
    """A step puts back what the one before has written; windows are drawn for 32 steps, and for other lanes."""
    drawn, draw = [], Square.draw
    monkeypatch.setattr(Square, "draw", lambda *args: drawn.append(None) or draw(*args))
    x, keys, attack = pixels((8, 8, 3)), lane_keys(5, seed=77), Square(0.1)
    state, counts = attack.start(x, keys), []
    for step in range(70):
        rows = slice(0, 5 if step < 6 else 3)
        if step == 6:
            state = {name: value[rows] for name, value in state.items()}
        points = attack.propose(x[rows], state, np.full(len(x[rows]), step), keys[rows])
        state = attack.judge(state, points, crooked(points), np.zeros(len(points), int))
        counts.append(len(drawn))
    assert counts == [1] * 6 + [2] * 26 + [3] * 32 + [4] * 6


@pytest.mark.parametrize("shape", [(8, 8, 3), (20,)])
def test_windows_drawn_at_once_are_those_of_each_step(shape, monkeypatch):
    """Lanes that began later, and sides that change within a run: as if each step's were drawn alone."""
    x, y, attack, keys = pixels(shape), np.arange(5) % 3, Square(0.1, queries=60), lane_keys(5)

    def staggered():
        state, seen = attack.start(x, keys), []
        for step in range(58):
            points = attack.propose(x, state, np.array([step + 3, step + 1, step, step, step]), keys)
            seen.append(points.copy())
            state = attack.judge(state, points, crooked(points), y)
        return seen

    def alone(attack, step, keys, *kind):
        return [attack.draw(each[None], keys, *kind)[0] for each in (np.maximum(step - 1, 0), step)]

    together, runs = staggered(), run(attack, x, y, keys=keys)
    monkeypatch.setattr("stcore.attacks.square._windows", alone)
    np.testing.assert_array_equal(together, staggered())
    for one, other in zip(runs, run(attack, x, y, keys=keys), strict=True):
        for name, value in one.items():
            np.testing.assert_array_equal(value, other[name])


# Judging


@pytest.mark.parametrize("norm", RADII)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_margin_never_rises_and_belongs_to_the_point_that_is_kept(norm, shape):
    x, y = pixels(shape), np.array([0, 1, 2, 0, 1])
    margins = []
    for state in run(Square(RADII[norm], norm, queries=60), x, y):
        logits = crooked(state["adversarial"])
        own = logits[np.arange(5), y]
        others = np.where(np.arange(3) == y[:, None], -np.inf, logits).max(axis=1)
        np.testing.assert_array_equal(state["margin"], own - others)
        np.testing.assert_array_equal(state["success"], own <= others)
        margins.append(state["margin"])
    assert (np.diff(margins, axis=0) <= 0).all()
    assert (margins[-1] < margins[0]).any()


ANSWERS = [  # of a network, whether the point is kept, and whether the lane claims a success
    ([1.0, 0.0], True, False),
    ([2.0, 0.0], False, False),
    ([1.0, 0.0], False, False),
    ([1.0, 1.0], True, True),  # to be decided by the predicted class
    ([3.0, 3.0], True, True),
    ([np.nan, 1.0], False, True),
    ([1.0, 1.5], True, True),
    ([1.0, 1.25], False, True),
]


def test_lower_margins_are_kept_and_equal_logits_claimed():
    attack, keys, x = Square(0.1), lane_keys(1), np.full((1, 4, 4, 1), 0.5)
    state = attack.start(x, keys)
    for step, (logits, kept, success) in enumerate(ANSWERS):
        points = attack.propose(x, state, np.array([step]), keys)
        points[0, 0, 0, 0] = step / 100  # so that it shows
        state = attack.judge(state, points, np.array([logits]), np.array([0]))
        assert (state["adversarial"][0, 0, 0, 0] == points[0, 0, 0, 0]) == kept
        assert state["success"][0] == success


# Lanes


@settings(max_examples=25, deadline=None)
@given(
    norm=st.sampled_from(list(RADII)),
    shape=st.sampled_from(SHAPES),
    dtype=st.sampled_from([np.float32, np.float64]),
    steps=st.lists(st.sampled_from([0, 3, 40, 190, 600]), min_size=4, max_size=4),
    alone=st.sets(st.integers(0, 3), min_size=1, max_size=3),
)
def test_a_lane_does_not_depend_on_its_neighbours(norm, shape, dtype, steps, alone):
    """Lanes at different steps, some of them leaving after two steps, the rest put together from pieces."""
    attack, keys, y = Square(RADII[norm], norm), lane_keys(4), np.array([0, 1, 2, 0])
    x, steps, rows = pixels(shape, 4, dtype=dtype), np.array(steps), sorted(alone)

    def advance(state, lanes, shift):
        points = attack.propose(x[lanes], state, steps[lanes] + shift, keys[lanes])
        return attack.judge(state, points, crooked(points), y[lanes])

    together, apart = attack.start(x, keys), attack.start(x[rows], keys[rows])
    for shift in range(2):
        together, apart = advance(together, slice(None), shift), advance(apart, rows, shift)
    together = {name: value[rows] for name, value in together.items()}
    pieces = [{name: value[i : i + 1] for name, value in apart.items()} for i in range(len(rows))]
    for shift in range(2, 6):
        together = advance(together, rows, shift)
        pieces = [advance(piece, [row], shift) for piece, row in zip(pieces, rows, strict=True)]
    for name, value in together.items():
        np.testing.assert_array_equal(value, np.concatenate([piece[name] for piece in pieces]), err_msg=name)


@pytest.mark.parametrize("norm", RADII)
@pytest.mark.parametrize("shape", [(6, 5, 3), (200,)])
def test_another_order_in_memory_changes_nothing(norm, shape):
    x, y, keys, attack = pixels(shape), np.array([0, 1, 2, 0, 1]), lane_keys(5), Square(RADII[norm], norm)
    turned = np.asfortranarray(x)
    state = {name: np.asfortranarray(value) for name, value in attack.start(turned, keys).items()}
    assert not state["adversarial"].flags.c_contiguous
    for step in range(30):
        points = attack.propose(turned, state, np.full(5, step), keys)
        state = attack.judge(state, points, crooked(points), y)
    np.testing.assert_array_equal(state["adversarial"], run(attack, x, y, steps=30)[-1]["adversarial"])


def test_the_natural_images_stay_as_they_are(global_random_state):
    for norm in RADII:
        x = pixels((8, 8, 3))
        x.flags.writeable = False
        run(Square(RADII[norm], norm, queries=12), x, np.zeros(5, int))


# Verdicts


@pytest.mark.parametrize("norm", RADII)
@pytest.mark.parametrize("shape", [(8, 8, 3), (6, 10, 1), (64,)])
def test_it_succeeds_on_a_linear_model_where_the_ball_reaches_far_enough(norm, shape):
    """Weights of one sign per half of the image; the radius is twice the distance to the boundary."""
    size = math.prod(shape)
    weights = np.where(np.arange(size) < size / 2, 1.0, -1.0) * (1 + pixels(shape, 1).reshape(-1))
    dual = {"linf": 1, "l2": 2, "l1": math.inf}[norm]
    distance = 0.05 if norm == "linf" else 0.2
    offset = distance * np.linalg.norm(weights, dual) + weights.sum() / 2

    def network(points):
        score = points.reshape(len(points), -1) @ weights - offset  # from below zero at the grey image
        return np.stack([-score, score], axis=1)

    x = np.full((6, *shape), 0.5)
    fooled = run(Square(2 * distance, norm, queries=700), x, np.zeros(6, int), network)[-1]
    short = run(Square(0.99 * distance, norm, queries=700), x, np.zeros(6, int), network)[-1]
    assert fooled["success"].all()
    assert not short["success"].any()


def convolutional():
    """A small network with 60 images 10 × 10, NCHW, and its predictions, every class among them."""
    import torch

    rng = np.random.default_rng(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(8 * 64, 5)
    )
    x = torch.tensor(pixels((3, 10, 10), 60, dtype=np.float32))
    with torch.no_grad():
        for weight in model.parameters():
            fan_in = weight[0].numel()
            weight.copy_(torch.tensor(rng.uniform(-1, 1, weight.shape) / math.sqrt(fan_in)))
        model[3].bias -= model(x).mean(0)
        return model, x, model(x).argmax(1)


@pytest.mark.parametrize(
    ("norm", "epsilon"),
    [("linf", 0.02), ("l2", 0.27), pytest.param("l1", 1.0, marks=pytest.mark.slow)],  # 6 s, for l2's windows
)
def test_it_fools_as_many_as_pyautoattacks(monkeypatch, norm, epsilon):
    """With its windows, which never touch the last row and column, as many; with windows everywhere, no fewer."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("pyautoattack")
    from pyautoattack.square import SquareAttack

    model, x, y = convolutional()
    images, labels = x.permute(0, 2, 3, 1).numpy(), y.numpy()

    def network(points):
        with torch.no_grad():
            return model(torch.tensor(points).permute(0, 3, 1, 2)).numpy()

    def theirs(seed):
        attack = SquareAttack(model, norm.capitalize(), 100, epsilon, seed=seed, resc_schedule=False)
        return int((network(attack.perturb(x, y).permute(0, 2, 3, 1).numpy()).argmax(1) != labels).sum())

    def ours(seed):
        last = run(Square(epsilon, norm, queries=100), images, labels, network, lane_keys(60, seed))[-1]
        fooled = network(last["adversarial"]).argmax(1) != labels
        np.testing.assert_array_equal(fooled, last["success"])
        return int(fooled.sum())

    def published_place(chance, lanes, side, size):
        height, width = (min(side, length) for length in size)
        free = [max(length - side, 1) for length in size]
        top, left = (chance * free).astype(int).T
        return Windows(lanes, top, left, height, width)

    def mean(fooled):
        return np.mean([fooled(seed) for seed in range(8)])

    with torch.random.fork_rng():  # which the reference seeds
        reference = mean(theirs)
    assert 6 < reference < 54
    everywhere = mean(ours)
    monkeypatch.setattr("stcore.attacks.square.place", published_place)
    monkeypatch.setattr("stcore.attacks.square_l2.place", published_place)
    assert mean(ours) == pytest.approx(reference, abs=2)
    assert everywhere > reference - 2


# The l1 ball


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 30), epsilon=st.floats(0.01, 5), spread=st.floats(0.01, 3), seed=st.integers(0, 10_000))
def test_the_l1_projection_is_the_nearest_point(size, epsilon, spread, seed):
    """A point p of a convex set is nearest to v if and only if (v − p) · (q − p) ≤ 0 for all q in the set."""
    rng = np.random.default_rng(seed)
    x, v = rng.uniform(size=(4, size)), rng.normal(size=(4, size)) * spread
    p = l1_ball.project(x, v, epsilon, (0.0, 1.0))

    def inside(d):
        return (
            np.abs(d).sum(axis=1).max() <= epsilon + 1e-9
            and (x + d).min() >= -1e-12
            and (x + d).max() <= 1 + 1e-12
        )

    assert inside(p)
    corners = [e * np.eye(size)[i] * np.ones((4, 1)) for i in range(size) for e in (epsilon, -epsilon)]
    for q in [np.zeros_like(p), *corners, *rng.normal(size=(10, 4, size)) * epsilon]:
        q = np.clip(q, -x, 1 - x)
        q *= np.minimum(1, epsilon / np.maximum(np.abs(q).sum(axis=1, keepdims=True), 1e-30))
        assert inside(q)
        assert ((v - p) * (q - p)).sum(axis=1).max() <= 1e-7 * (1 + spread**2) * size
    np.testing.assert_allclose(l1_ball.project(x, p, epsilon, (0.0, 1.0)), p, atol=1e-9)


def test_the_l1_projection_of_two_pixels_by_hand():
    x = np.array([[0.5, 0.5], [0.9, 0.5], [0.5, 0.5]])
    v = np.array([[0.5, -0.3], [0.6, 0.3], [0.1, 0.2]])
    expected = [[0.4, -0.2], [0.1, 0.3], [0.1, 0.2]]  # cut by 0.1; the range cuts enough; inside
    np.testing.assert_allclose(l1_ball.project(x, v, 0.6, (0.0, 1.0)), expected, atol=1e-8)


# Settings


@pytest.mark.parametrize(
    "wrong",
    [{"norm": "l0"}, {"queries": 0}, {"p_init": 1.5}, {"epsilon": -1}, {"bounds": (1, 0)}, {"queries": 1.5}],
)
def test_wrong_settings(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Square(**wrong)


def test_a_proposal_is_kept_that_lowers_the_margin_or_leaves_it_at_zero():
    """Margins z_0 − z_1 before and after: a tie counts at the boundary alone."""
    before = np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
    after = np.array([0.5, 1.0, 1.5, -0.5, 0.0, 0.5])
    expected = np.array([True, False, False, True, True, False])
    state = {"margin": before, "adversarial": np.zeros((6, 2)), "success": before <= 0}
    logits = np.stack([after, np.zeros(6)], axis=1)
    state = Square(0.1, queries=5).judge(state, np.ones((6, 2)), logits, np.zeros(6, int))
    np.testing.assert_array_equal(state["adversarial"], np.repeat(expected[:, None], 2, 1).astype(float))
    np.testing.assert_array_equal(state["margin"], np.where(expected, after, before))
    np.testing.assert_array_equal(state["success"], [False, False, False, True, True, True])
