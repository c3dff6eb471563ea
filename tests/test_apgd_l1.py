"""Auto-PGD in l1: projection and sparse steps against sorts, and pyautoattack's points step by step."""

from types import SimpleNamespace

import numpy as np
import pytest
from harness import load
from hypothesis import given, settings
from hypothesis import strategies as st
from test_apgd import (  # noqa: F401  (the fixture is used by name)
    CLASSES,
    LOSSES,
    Alternating,
    Run,
    build,
    in_float64,
    lane_keys,
    near,
    pixels,
    reference,
    torch_images,
)

from stcore.attacks.apgd_l1 import APGDL1
from stcore.attacks.l1_projection import project, signs_of_largest
from stcore.errors import UsageError
from stcore.protocols import Mode

EPSILON = 0.4
CHANNELS = 2  # 128 pixels: shares of a power of two do not round, so pyautoattack's counts of pixels are exact
STARTS = [0, 31, 62]
RADII = EPSILON * np.repeat([3, 2, 1], [31, 31, 41])


def soft_pixels(batch=6, side=8, channels=CHANNELS, seed=0):
    """Grey, black and white pixels, multiples of 1/1024: what pyautoattack adds and takes back leaves no trace."""
    rng = np.random.default_rng(seed)
    grey = on_grid(rng.uniform(0.4, 0.6, size=(batch, side, side, channels)))
    return np.where(rng.uniform(size=grey.shape) < 0.8, grey, grey.round())


def on_grid(array):
    return np.round(1024 * array) / 1024


def size_of(delta):
    return np.abs(delta).reshape(len(delta), -1).sum(axis=1)


# The projection


def projected(backend, x, center, radius, bounds=(0.0, 1.0)):
    radius = backend.tensor(np.broadcast_to(np.asarray(radius, x.dtype), len(x)))
    return backend.array(project(backend.ops, backend.tensor(x), backend.tensor(center), radius, bounds))


def oracle(x, center, radius, bounds=(0.0, 1.0)):
    """One example, exactly: the cut at which the norm, linear between its kinks, comes to the radius."""
    offset = x - center
    size, room = np.abs(offset), np.where(offset > 0, bounds[1] - center, center - bounds[0])
    norm = lambda cut: np.clip(size - cut, 0, room).sum()  # noqa: E731
    if norm(0) <= radius:
        cut = 0
    else:
        kinks = np.unique(np.clip(np.concatenate(([0], size, size - room)), 0, None))
        norms = np.array([norm(kink) for kink in kinks])  # falls
        cut = np.interp(-radius, -norms, kinks)
    return center + np.sign(offset) * np.clip(size - cut, 0, room)


@settings(max_examples=25, deadline=None)
@given(
    size=st.integers(1, 40),
    radius=st.floats(0, 6),
    spread=st.floats(0.01, 3),
    bounds=st.sampled_from([(0.0, 1.0), (-1.0, 2.0)]),
    seed=st.integers(0, 10_000),
)
def test_the_projection_is_the_exact_one(every_backend, size, radius, spread, bounds, seed):
    rng = np.random.default_rng(seed)
    center = bounds[0] + np.clip(rng.uniform(-0.1, 1.1, (3, size)), 0, 1) * (bounds[1] - bounds[0])
    x = center + rng.normal(size=(3, size)) * spread * (rng.uniform(size=(3, size)) < 0.7)
    found = projected(every_backend, x, center, radius, bounds)
    expected = [oracle(one, middle, radius, bounds) for one, middle in zip(x, center, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert (size_of(found - center) <= radius + 1e-12).all()
    assert bounds[0] <= found.min() <= found.max() <= bounds[1]


def test_the_projection_is_pyautoattacks(backend, in_float64):  # noqa: F811
    import torch
    from pyautoattack.autopgd_base import L1_projection

    rng = np.random.default_rng(0)
    center = pixels(30).reshape(30, -1)
    x = center + rng.normal(size=center.shape) * rng.choice([0.01, 0.3, 2], (30, 1))
    for radius in (0.5, 4.0, 60.0):
        offset = torch.tensor(x - center)
        theirs = (torch.tensor(center) + offset + L1_projection(torch.tensor(center), offset, radius)).numpy()
        np.testing.assert_allclose(projected(backend, x, center, radius), theirs, rtol=0, atol=1e-12)


def test_each_example_has_its_radius_and_images_are_taken_whole(every_backend):
    center, radius = pixels(3, 4), np.array([0.0, 0.5, 3.0])
    x = center + np.random.default_rng(1).normal(size=center.shape)
    backend = every_backend
    found = backend.nhwc(
        project(backend.ops, backend.images(x), backend.images(center), backend.tensor(radius), (0.0, 1.0))
    )
    np.testing.assert_allclose(size_of(found - center), radius, atol=1e-12)
    for lane in range(3):
        expected = oracle(x[lane].reshape(-1), center[lane].reshape(-1), radius[lane])
        np.testing.assert_allclose(found[lane].reshape(-1), expected, rtol=0, atol=1e-12)


def test_pixels_that_are_not_moved_stay_bit_for_bit(backend):
    center = pixels(4).reshape(4, -1)
    x = center + np.random.default_rng(1).normal(size=center.shape)
    found = projected(backend, x, center, 1.5)
    cut = np.abs(x - center) < 1
    np.testing.assert_array_equal(found[cut], center[cut])
    assert 4 < (found != center).sum() < 100


# Sparse steps


def sorted_signs(gradient, count):
    """As published: the magnitude at an index of the sorted ones is the smallest that is kept."""
    size = np.abs(gradient)
    kept = np.clip(np.ceil(count), 1, size.shape[1]).astype(int)
    threshold = np.sort(size, axis=1)[np.arange(len(size)), size.shape[1] - kept]
    return np.where(size >= threshold[:, None], np.sign(gradient), 0)


@settings(max_examples=30, deadline=None)
@given(
    data=st.data(), size=st.integers(1, 60), seed=st.integers(0, 10_000), scale=st.sampled_from([1e-12, 1, 1e6])
)
def test_the_largest_entries_are_those_of_a_sort(every_backend, data, size, seed, scale):
    rng = np.random.default_rng(seed)
    gradient = scale * rng.normal(size=(4, size)) ** 3
    gradient[1] = rng.integers(-3, 4, size)  # ties, zeros among them
    gradient[2] *= rng.uniform(size=size) < 0.3
    gradient[3] = 0 if data.draw(st.booleans()) else gradient[3]
    count = np.array([data.draw(st.integers(0, 3 * size)) / 3 for _ in range(4)])
    found = signs_of_largest(every_backend.ops, every_backend.tensor(gradient), every_backend.tensor(count))
    np.testing.assert_array_equal(every_backend.array(found), sorted_signs(gradient, count))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_largest_entries_of_a_whole_image_in_either_precision(backend, dtype):
    gradient = (np.random.default_rng(0).standard_t(2, size=(9, 3072)) * 1e-3).astype(dtype)
    changed = np.array([0, 1, 2, 3, 4, 150, 1001, 3000, 3072])
    found = signs_of_largest(backend.ops, backend.tensor(gradient), backend.tensor(changed.astype(dtype)) / 1.5)
    np.testing.assert_array_equal(backend.array(found), sorted_signs(gradient, changed / 1.5))
    np.testing.assert_array_equal(np.abs(backend.array(found)).sum(1), [1, 1, 2, 2, 3, 100, 668, 2000, 2048])


# pyautoattack's run


def compare(ours, theirs):
    """A search's states from its start on, with what pyautoattack's own had come to at each evaluation."""
    for state, their in zip(ours, theirs, strict=False):
        np.testing.assert_allclose(state.point, their.point, rtol=0, atol=1e-8)
    for state, their in zip(ours[1:], theirs[1:], strict=False):
        np.testing.assert_allclose(state.best_loss, their.loss_best, rtol=1e-7)
        np.testing.assert_allclose(state.best, their.x_best.transpose(0, 2, 3, 1), rtol=0, atol=1e-8)
        np.testing.assert_allclose(state.size, their.step_size.reshape(-1), rtol=1e-9)
        np.testing.assert_array_equal(state.changed, their.sp_old)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("net", ["tiny", "tiny-smooth"])
def test_the_first_search_is_pyautoattacks_in_the_largest_ball(net, loss, in_float64):  # noqa: F811
    backend, x = load("torch"), soft_pixels()
    model = build(backend, net, channels=CHANNELS)
    y, target = near(model, x, ranks=(0, 0, 1))
    ours = Run(backend, APGDL1(EPSILON, loss), model, x, y, target)(31)
    theirs = reference(model, "l1", 3 * EPSILON, loss, target, n_iter=30)
    theirs.init_hyperparam(torch_images(x))
    start = torch_images(ours[0].point)
    theirs.attack_single_run(torch_images(x), backend.tensor(y), x_init=start)
    assert len(theirs.model.seen) == 31
    compare(ours[:31], theirs.model.seen)
    sizes = np.array([state.size for state in ours[1:31]])
    assert (sizes[1:] > sizes[:-1]).any()  # anew, from a sparser point
    assert (sizes[1:] < sizes[:-1]).any()


@pytest.mark.parametrize(("loss", "net"), [*zip(LOSSES, ["tiny-smooth", "tiny", "tiny"], strict=True)])
def test_the_three_searches_are_pyautoattacks(net, loss, in_float64, monkeypatch):  # noqa: F811
    import torch

    backend, x = load("torch"), soft_pixels()
    model = build(backend, net, channels=CHANNELS)
    y, target = near(model, x, ranks=(0, 0, 1))
    attack = APGDL1(EPSILON, loss)
    noise = on_grid(attack.noise(lane_keys(6), x.shape[1:])[0])
    monkeypatch.setattr(torch, "randn_like", lambda x: torch_images(noise))
    ours = Run(backend, attack, model, x, y, target, (noise,))()
    theirs = reference(model, "l1", EPSILON, loss, target)
    theirs.init_hyperparam(torch_images(x))
    radii = [3 * EPSILON, 2 * EPSILON, EPSILON]
    best, accurate, best_loss, _ = theirs.decr_eps_pgd(torch_images(x), backend.tensor(y), radii, [30, 30, 40])

    seen = theirs.model.seen
    assert len(seen) == APGDL1().evaluations == len(ours) - 1 == 103
    for first, end in zip(STARTS, (31, 62, 103), strict=True):
        compare(ours[first:end], seen[first:end])
    np.testing.assert_allclose(ours[-1].best, best.numpy().transpose(0, 2, 3, 1), rtol=0, atol=1e-8)
    np.testing.assert_allclose(ours[-1].best_loss, best_loss, rtol=1e-7)
    found = np.any([state.success for state in ours], axis=0)
    np.testing.assert_array_equal(found, ~accurate.numpy())


# By other ways


def test_the_schedule():
    attack = APGDL1(2.0)
    pace = attack.pace(np.arange(103))
    np.testing.assert_array_equal(np.flatnonzero(pace["first"]), STARTS)
    np.testing.assert_array_equal(np.flatnonzero(pace["last"]), [30, 61])
    np.testing.assert_array_equal(np.flatnonzero(pace["final"]), np.arange(62, 103))
    np.testing.assert_array_equal(pace["radius"], np.repeat([6.0, 4.0, 2.0], [30, 31, 42]))
    assert (attack.norm, attack.evaluations, attack.forwards, attack.backwards) == ("l1", 103, 1, 1)
    assert (APGDL1(samples=20).forwards, APGDL1(samples=20).backwards) == (20, 20)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_points_stay_in_their_ball_and_in_range_and_the_best_loss_of_a_search_never_falls(backend, dtype):
    x, y, epsilon = pixels(8).astype(dtype), np.arange(8) % CLASSES, 0.7
    model = backend.build("tiny", dtype=dtype, classes=CLASSES)
    history = Run(backend, APGDL1(epsilon), model, x, y, dtype=dtype)()[1:]
    room = 1 + (1e-6 if dtype == "float32" else 1e-12)
    for state, radius in zip(history, RADII * epsilon / EPSILON, strict=True):
        assert state.adversarial.dtype == dtype
        for points in (state.adversarial, state.best):
            assert size_of(points.astype(float) - x).max() <= radius * room
            assert points.min() >= 0
            assert points.max() <= 1
        assert (size_of(state.adversarial - x) > 0.9 * radius).any()
    losses = np.array([state.best_loss for state in history])
    rises = losses[1:] >= losses[:-1]
    assert np.delete(rises, [30, 61], axis=0).all()  # but where a search starts anew


def test_points_of_larger_balls_are_no_success(backend):
    x = soft_pixels(channels=3)
    model = build(backend)
    classifier = backend.classifier(model)
    predict = lambda x: backend.array(classifier.logits(backend.images(x), Mode.EVAL)).argmax(1)  # noqa: E731
    y = predict(x)
    history = Run(backend, APGDL1(EPSILON), model, x, y)()[1:]
    wrong = predict(np.concatenate([state.adversarial for state in history])).reshape(-1, len(x)) != y
    early, late = wrong[:62].any(axis=0), wrong[62:].any(axis=0)
    assert (early & late).any()
    assert (early & ~late).any()
    np.testing.assert_array_equal([state.success for state in history[:62]], np.zeros((62, len(x))))
    np.testing.assert_array_equal([state.success for state in history[62:]], wrong[62:])


@pytest.mark.parametrize("loss", LOSSES)
def test_both_frameworks_go_the_same_way(loss):
    """Until the third search has begun."""
    x, ways = soft_pixels(), []
    y, target = near(build(load("torch"), channels=CHANNELS), x, ranks=(0, 0, 1))
    for backend in (load("torch"), load("keras")):
        model = build(backend, channels=CHANNELS)
        ways.append(Run(backend, APGDL1(EPSILON, loss), model, x, y, target)(66))
    for one, other in zip(*ways, strict=True):
        for name, value in vars(one).items():
            np.testing.assert_allclose(value, vars(other)[name], rtol=1e-6, atol=1e-7, err_msg=name)


def test_the_protocol_alone_is_enough():
    x, y, ways = soft_pixels(2, 4), np.array([0, 1]), []
    for backend in (load("strict"), load("torch")):
        model = build(backend, "tiny-smooth", side=4, channels=CHANNELS, classes=4)
        ways.append(Run(backend, APGDL1(EPSILON, "targeted_dlr"), model, x, y, y + 1)(8))
    for one, other in zip(*ways, strict=True):
        np.testing.assert_allclose(one.point, other.point, rtol=0, atol=1e-6)
        np.testing.assert_allclose(one.size, other.size)


def test_a_lane_depends_neither_on_its_neighbours_nor_on_their_step(backend):
    """One of two lanes is eight steps ahead, so it goes on to a smaller ball first."""
    x, y = soft_pixels(2), np.array([0, 1])
    attack, model, ahead = APGDL1(EPSILON), build(backend, channels=CHANNELS), 8
    run = Run(backend, attack, model, x, y)
    together, alone = run(ahead), []
    for i in range(2):
        one = Run(backend, attack, model, x[[i]], y[[i]], noise=attack.noise(lane_keys(2)[[i]], x.shape[1:]))
        one.step = run.step  # compiled once for any number of lanes
        alone.append(one(70))
    np.testing.assert_allclose(together[-1].point[[0]], alone[0][ahead].point, rtol=0, atol=1e-10)
    late, early = vars(together[-1]), vars(together[0])
    mixed = {name: np.stack((late[name][0], early[name][1])) for name in late}
    state = {name: backend.images(v) if v.ndim == 4 else backend.tensor(v) for name, v in mixed.items()}
    for k in range(70 - ahead):
        told = {n: backend.tensor(v) for n, v in attack.pace(np.array([ahead + k, k])).items()}
        state = run.step(run.x, run.y, run.target, state, told)
        now = run.host(state)
        for lane, when in enumerate((ahead + k + 1, k + 1)):
            np.testing.assert_allclose(now.point[[lane]], alone[lane][when].point, rtol=0, atol=1e-9)


def test_several_forwards(backend):
    """Two networks in turn, of which one alone misclassifies: no success; two of three: one."""
    x, models = soft_pixels(1), [build(backend, seed=seed, channels=CHANNELS) for seed in range(3)]
    predicted = [
        int(backend.array(backend.classifier(m).logits(backend.images(x), Mode.EVAL)).argmax(1)[0]) for m in models
    ]
    y = np.array([predicted[0]])
    other = next(m for m, p in zip(models, predicted, strict=True) if p != y[0])
    for turns, expected in (([models[0], other], 0), ([models[0], other, other], 1)):
        attack = APGDL1(EPSILON, samples=len(turns))
        run = Run(backend, attack, Alternating(backend, turns), x, y, noise=(np.zeros_like(x),))
        history = run(1)
        pace = {n: backend.tensor(v) for n, v in attack.pace(np.array([62])).items()}
        start = attack.start(backend.ops, run.x, run.y, run.target, (run.x * 0.0,))
        assert run.host(run.step(run.x, run.y, run.target, start, pace)).success == expected
        assert history[-1].success == 0


@pytest.mark.parametrize("pixels", [3, 6])
def test_on_a_linear_model_it_comes_to_the_worst_point(backend, pixels):
    """The loss is largest where the largest weights' pixels go to the end of the range, until ε is spent."""
    w, x = np.random.default_rng(3).normal(size=(1, 4, 4, 2)) / 4, np.full((3, 4, 4, 2), 0.5)
    ops, weights = backend.ops, backend.images(np.repeat(w, 3, axis=0))
    signs = backend.tensor(np.tile([-1.0, 1.0], (3, 1)))
    linear = SimpleNamespace(
        ops=ops,
        compile=backend.classifier(backend.build()).compile,
        logits=lambda x, mode: signs * ops.expand_dims_like(ops.sum(x * weights), signs),
    )
    state = Run(backend, APGDL1(0.5 * pixels), linear, x, np.zeros(3, int))()[-1]
    largest = np.sort(np.abs(w).reshape(-1))[-pixels:]
    np.testing.assert_allclose(((state.best - x) * w).reshape(3, -1).sum(axis=1), 0.5 * largest.sum(), rtol=0.03)


def test_the_start_is_normal_noise_brought_into_the_ball_and_range(backend):
    x = pixels()
    attack = APGDL1(EPSILON)
    (noise,) = attack.noise(lane_keys(6), x.shape[1:])
    assert noise.std() == pytest.approx(1, abs=0.05)
    assert abs(noise.mean()) < 0.1
    np.testing.assert_array_equal(attack.noise(lane_keys(6)[[4, 1]], x.shape[1:])[0], noise[[4, 1]])
    start = Run(backend, attack, backend.build("tiny"), x, np.zeros(6, int))(0)[0]
    for point, image, unit in zip(start.point, x, noise, strict=True):
        expected = oracle((image + unit).reshape(-1), image.reshape(-1), 3 * EPSILON)
        np.testing.assert_allclose(point.reshape(-1), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "wrong", [{"loss": "hinge"}, {"samples": 0}, {"epsilon": -1}, {"bounds": (1, 0)}], ids=str
)
def test_wrong_settings(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        APGDL1(**wrong)
