"""Auto-PGD in l∞ and l2: pyautoattack's points step by step, checkpoints, ball and range, lanes of their own."""

import sys
from functools import cache
from itertools import cycle, pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from harness import lively_weights, load, problem
from hypothesis import given, settings
from hypothesis import strategies as st

from stcore.attacks import counter_random
from stcore.attacks.apgd import APGD, checkpoints, loss_and_gradient
from stcore.core.losses import cross_entropy
from stcore.errors import UsageError
from stcore.models import load_weights
from stcore.protocols import Mode

RADII = {"linf": 0.01, "l2": 0.15}
LOSSES = {"cross_entropy": "ce", "dlr": "dlr", "targeted_dlr": "dlr-targeted"}
CLASSES = 5


def pixels(batch=6, side=8, channels=3, seed=0):
    """Images (B, H, W, C), some pixels at the ends of the range."""
    x = np.random.default_rng(seed).uniform(-0.1, 1.1, size=(batch, side, side, channels))
    return np.clip(x, 0, 1)


@cache
def build(backend, net="tiny", *, side=8, channels=3, classes=CLASSES, seed=0):
    """A network whose logits are 30 times as far from their mean, so that small steps change the class.

    Read only.
    """
    model = backend.build(net, side=side, channels=channels, classes=classes, seed=seed)
    classifier, ways = backend.classifier(model), backend.images(pixels(20, side, channels))
    mean = backend.array(classifier.logits(ways, Mode.EVAL)).mean(axis=0).round(6)
    weights = dict(lively_weights(net, seed, channels, classes))
    weights["linear.weight"] = 30 * weights["linear.weight"]
    weights["linear.bias"] = 30 * (weights["linear.bias"] - mean)
    if backend.name == "strict":
        model.weights.update(weights)
    else:
        load_weights(model, weights)
    return model.eval() if backend.name == "torch" else model


def lane_keys(batch, seed=0):
    return counter_random.keys(seed, np.arange(batch))


class Run:
    """Lanes under attack on one backend: host arrays at the door, and a history of host states."""

    def __init__(self, backend, attack, model, x, y, target=None, noise=None, dtype="float64"):
        self.backend, self.attack, self.ops, self.dtype = backend, attack, backend.ops, dtype
        self.x, self.y = backend.images(x, dtype), backend.tensor(y)
        self.target = self.y if target is None else backend.tensor(target)
        self.noise = attack.noise(lane_keys(len(x)), x.shape[1:]) if noise is None else noise
        self.model = model if hasattr(model, "ops") else backend.classifier(model)
        self.step = getattr(self.model, "compile", lambda fn: fn)(
            lambda *given: self.ops.unrecorded(attack.step, self.model, *given)
        )

    def __call__(self, evaluations=None):
        """The host states: of the start, and after each evaluation."""
        noise = tuple(self.backend.images(n, self.dtype) for n in self.noise)
        state = self.attack.start(self.ops, self.x, self.y, self.target, noise)
        history = [self.host(state)]
        for k in range(self.attack.evaluations if evaluations is None else evaluations):
            pace = self.attack.pace(np.full(self.noise[0].shape[0], k))
            told = {name: self.backend.tensor(value.astype(self.dtype)) for name, value in pace.items()}
            state = self.step(self.x, self.y, self.target, state, told)
            history.append(self.host(state))
        return history

    def host(self, state):
        images = {"point", "before", "best", "gradient", "adversarial"}
        read = {name: self.backend.nhwc if name in images else self.backend.array for name in state}
        return SimpleNamespace(**{name: read[name](value).copy() for name, value in state.items()})


# pyautoattack's run, watched from inside its model


class Watched:
    """A model that notes the points it is asked at, and the variables of the attack that asks."""

    def __init__(self, model):
        self.model, self.seen = model, []

    def __call__(self, x):
        variables = sys._getframe(1).f_locals
        names = ("step_size", "loss_best", "x_best", "topk", "sp_old")
        kept = {name: variables[name].detach().numpy().copy() for name in names if name in variables}
        point = x.detach().numpy().transpose(0, 2, 3, 1).copy()
        self.seen.append(SimpleNamespace(point=point, **kept))
        return self.model(x)


@pytest.fixture
def in_float64(monkeypatch):
    """pyautoattack reckons in float32 where it can: here in float64."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("pyautoattack")
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def reference(model, norm, epsilon, loss, target=None, **settings):
    """pyautoattack's attack of a watched model."""
    import torch
    from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted

    given = {"norm": norm.capitalize(), "eps": epsilon, **settings}
    if loss == "targeted_dlr":
        attack = APGDAttack_targeted(Watched(model), **given)
        attack.y_target = torch.tensor(target)
    else:
        attack = APGDAttack(Watched(model), loss=LOSSES[loss], **given)
    return attack


def torch_images(x):
    import torch

    return torch.tensor(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def near(model, x, ranks=(0,)):
    """Labels of these ranks in turn and the class after each, for a model of images on PyTorch."""
    import torch

    with torch.no_grad():
        order = model(torch_images(x)).argsort(1, descending=True).numpy()
    lanes, rank = np.arange(len(x)), np.array([rank for rank, _ in zip(cycle(ranks), x, strict=False)])
    return order[lanes, rank], order[lanes, (rank + 1) % order.shape[1]]


def follow(attack, model, x, y, target):
    """Our states, each compared with pyautoattack's."""
    backend = load("torch")
    ours = Run(backend, attack, model, x, y, target)()
    theirs = reference(model, attack.norm, attack.epsilon, attack.loss, target, n_iter=attack.steps)
    theirs.init_hyperparam(torch_images(x))
    start = torch_images(ours[0].point)
    best, accurate, best_loss, _ = theirs.attack_single_run(torch_images(x), backend.tensor(y), x_init=start)

    seen = theirs.model.seen
    assert len(seen) == attack.evaluations == len(ours) - 1
    for state, their in zip(ours, seen, strict=False):
        np.testing.assert_allclose(state.point, their.point, rtol=0, atol=1e-8)
    for state, their in zip(ours[1:], seen[1:], strict=False):
        np.testing.assert_allclose(state.best_loss, their.loss_best, rtol=1e-7)
        np.testing.assert_allclose(state.size, their.step_size.reshape(-1), rtol=1e-12)
    np.testing.assert_allclose(ours[-1].best_loss, best_loss, rtol=1e-7)
    np.testing.assert_allclose(ours[-1].best, best.numpy().transpose(0, 2, 3, 1), rtol=0, atol=1e-8)
    found = np.any([state.success for state in ours], axis=0)
    np.testing.assert_array_equal(found, ~accurate.numpy())
    return ours


@pytest.mark.parametrize(("norm", "net"), [("linf", "tiny"), ("l2", "tiny-smooth")])
@pytest.mark.parametrize("loss", LOSSES)
def test_points_losses_and_step_sizes_are_pyautoattacks(norm, loss, net, in_float64):
    x, model = pixels(), build(load("torch"), net)
    y, target = near(model, x, ranks=(0, 0, 1))
    halvings = rests = 0
    for steps in (4, 13, 100):
        ours = follow(APGD(RADII[norm], loss, steps, norm=norm), model, x, y, target)
        reviewed = [after + 1 for after, _ in checkpoints(steps)]
        sizes = np.array([state.size for state in ours])
        halved = sizes[reviewed] < sizes[np.array(reviewed) - 1]
        halvings, rests = halvings + halved.sum(), rests + (~halved).sum()
    assert halvings > 4  # or there is nothing to compare
    assert rests > 4


@pytest.mark.parametrize("norm", RADII)
def test_a_first_step_downhill_is_taken_for_a_rise_from_zero_as_in_pyautoattack(norm, in_float64):
    """So the first window, of one step, halves nothing; that the best loss stayed counts only later."""
    x, model = pixels(60), build(load("torch"))
    y, target = near(model, x, ranks=(1,))
    ours = follow(APGD(50 * RADII[norm], "targeted_dlr", steps=4, norm=norm), model, x, y, target)
    downhill, halved = ours[2].best_loss == ours[1].best_loss, ours[2].size < ours[1].size
    assert (downhill & (ours[2].loss > 0)).any()
    np.testing.assert_array_equal(halved, ours[2].loss <= 0)


def test_of_two_losses_the_gradient_is_their_mean_as_pyautoattacks(in_float64):
    backend, x = load("torch"), pixels()
    models = [build(backend, seed=seed) for seed in (0, 1)]
    y, _ = near(models[0], x)
    turns = cycle(models)
    theirs = reference(lambda x: next(turns)(x), "linf", 0.05, "cross_entropy", n_iter=20, eot_iter=2)
    theirs.init_hyperparam(torch_images(x))
    ours = Run(backend, APGD(0.05, steps=20, samples=2), Alternating(backend, models), x, y)()
    theirs.attack_single_run(torch_images(x), backend.tensor(y), x_init=torch_images(ours[0].point))
    for state, their in zip(ours, theirs.model.seen[::2], strict=False):
        np.testing.assert_allclose(state.point, their.point, atol=1e-10)
    moved = [np.abs(one.point - two.point).max() for one, two in pairwise(ours)]
    assert min(moved[:-1]) > 0


class Alternating:
    """A network that answers as one classifier, then as the next."""

    def __init__(self, backend, models):
        self.ops, self._turns = backend.ops, cycle([backend.classifier(model) for model in models])

    def logits(self, x, mode, *, dropout=False):
        return next(self._turns).logits(x, mode)


# By other ways


def test_the_checkpoints_of_100_steps():
    windows = [22, 19, 16, 13, 10, 7, 6, 6]
    assert checkpoints(100) == list(zip([22, 41, 57, 70, 80, 87, 93, 99], windows, strict=True))
    limits = APGD().pace(np.arange(101))["limit"]
    assert list(np.flatnonzero(limits >= 0)) == [22, 41, 57, 70, 80, 87, 93, 99]
    np.testing.assert_allclose(limits[limits >= 0], 0.75 * np.array(windows))
    np.testing.assert_array_equal(APGD().pace(np.arange(101))["first"], np.arange(101) == 0)


@pytest.mark.parametrize("samples", [2, 3])
def test_several_forwards(backend, samples):
    """The mean of the gradients, the last loss, and the share that misclassifies; half of them are no success."""
    given = problem(batch=8)
    x, y = backend.images(given.x), backend.tensor(given.y)
    models = [build(backend, seed=seed, classes=3) for seed in range(samples)]
    alone = [
        [backend.array(v) for v in loss_and_gradient(backend.classifier(m), "dlr", 1, x, y, y)] for m in models
    ]
    loss, gradient, wrong = map(
        backend.array, loss_and_gradient(Alternating(backend, models), "dlr", samples, x, y, y)
    )
    np.testing.assert_allclose(loss, alone[-1][0], rtol=1e-12)
    np.testing.assert_allclose(gradient, np.mean([one[1] for one in alone], axis=0), atol=1e-12)
    share = np.mean([one[2] for one in alone], axis=0)
    np.testing.assert_allclose(wrong, share)
    assert len(set(share)) > 2

    run = Run(backend, APGD(0.05, "dlr", samples=samples), Alternating(backend, models), given.x, given.y)
    run.noise = (np.zeros_like(given.x),)
    np.testing.assert_array_equal(run(1)[-1].success, share > 0.5)
    assert (APGD(samples=samples).forwards, APGD(samples=samples).backwards) == (samples, samples)


def test_the_gradient_is_that_of_the_loss(backend):
    given = problem()
    classifier, ops = backend.classifier(backend.build()), backend.ops
    x, y = backend.images(given.x), backend.tensor(given.y)
    loss, gradient, wrong = map(backend.array, loss_and_gradient(classifier, "cross_entropy", 1, x, y, y))
    value, pullback = ops.vjp(lambda x: cross_entropy(ops, classifier.logits(x, Mode.EVAL), y), x)
    np.testing.assert_allclose(loss, backend.array(value), rtol=1e-12)
    np.testing.assert_allclose(gradient, backend.array(pullback(ops.ones_like(value))[0]), atol=1e-14)
    predicted = backend.array(classifier.logits(x, Mode.EVAL)).argmax(1)
    np.testing.assert_array_equal(wrong, predicted != given.y)


@pytest.mark.parametrize("loss", [*LOSSES, "probability_margin"])
@pytest.mark.parametrize("norm", RADII)
def test_both_frameworks_go_the_same_way(norm, loss):
    x, ways = pixels(), []
    y, target = near(build(load("torch")), x, ranks=(0, 0, 1))
    steps = 20 if loss == "probability_margin" else 30  # then it has converged, and rounding says what rises
    for backend in (load("torch"), load("keras")):
        ways.append(Run(backend, APGD(RADII[norm], loss, steps, norm=norm), build(backend), x, y, target)())
    for one, other in zip(*ways, strict=True):
        for name, value in vars(one).items():
            np.testing.assert_allclose(value, vars(other)[name], rtol=1e-6, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("norm", RADII)
def test_the_protocol_alone_is_enough(norm):
    x, y = pixels(2, 4), np.array([0, 1])
    ways = []
    for backend in (load("strict"), load("torch")):
        model = build(backend, "tiny-smooth", side=4, classes=4)
        ways.append(Run(backend, APGD(RADII[norm], "targeted_dlr", 6, norm=norm), model, x, y, y + 1)())
    for one, other in zip(*ways, strict=True):
        np.testing.assert_allclose(one.point, other.point, atol=1e-6)
        np.testing.assert_allclose(one.size, other.size)


@pytest.mark.parametrize("norm", RADII)
def test_a_lane_does_not_depend_on_its_neighbours(backend, norm):
    x, y = pixels(), np.arange(6) % 3
    model = build(backend)
    attack = APGD(RADII[norm], steps=20, norm=norm)
    run = Run(backend, attack, model, x, y)
    together = run()
    for rows in ([4], [0, 2, 5]):
        noise = attack.noise(lane_keys(6)[rows], x.shape[1:])
        apart = Run(backend, attack, model, x[rows], y[rows], noise=noise)
        apart.step = run.step  # compiled once for any number of lanes
        for one, other in zip(together, apart(), strict=True):
            for name, value in vars(one).items():
                np.testing.assert_allclose(value[rows], vars(other)[name], rtol=1e-9, atol=1e-10, err_msg=name)


def test_lanes_at_different_steps_go_on_as_they_would_alone(backend):
    x, y = pixels(2), np.array([0, 1])
    attack, model = APGD(0.05, steps=9), build(backend)
    run = Run(backend, attack, model, x, y)
    history, ahead = run(), 4
    late, early = vars(history[ahead]), vars(history[0])
    mixed = {name: np.stack((late[name][0], early[name][1])) for name in late}
    state = {name: run.backend.images(v) if v.ndim == 4 else run.backend.tensor(v) for name, v in mixed.items()}
    for k in range(attack.evaluations - ahead):
        told = {n: run.backend.tensor(v) for n, v in attack.pace(np.array([ahead + k, k])).items()}
        state = run.step(run.x, run.y, run.target, state, told)
        now = run.host(state)
        for lane, when in enumerate((ahead + k + 1, k + 1)):
            np.testing.assert_allclose(now.point[lane], history[when].point[lane], atol=1e-10)
            assert now.size[lane] == pytest.approx(history[when].size[lane])


def distance(norm, delta):
    flat = delta.reshape(len(delta), -1)
    return np.linalg.norm(flat, np.inf if norm == "linf" else 2, axis=1)


@settings(max_examples=8, deadline=None)
@given(
    norm=st.sampled_from(list(RADII)),
    loss=st.sampled_from([*LOSSES, "probability_margin"]),
    epsilon=st.sampled_from([0.0, 1e-3, 0.1, 0.7]),
    bounds=st.sampled_from([(0.0, 1.0), (-1.0, 2.0)]),
    steps=st.integers(1, 14),
    seed=st.integers(0, 1000),
)
def test_points_stay_in_the_ball_and_in_range_and_the_best_loss_never_falls(
    backend, norm, loss, epsilon, bounds, steps, seed
):
    x = bounds[0] + (bounds[1] - bounds[0]) * pixels(3, seed=seed)
    y = np.random.default_rng(seed).integers(CLASSES, size=3)
    model = build(backend)
    attack = APGD(epsilon, loss, steps, norm=norm, bounds=bounds)
    history = Run(backend, attack, model, x, y, (y + 1) % CLASSES)()
    for state in history:
        for points in (state.point, state.best, state.adversarial):
            assert distance(norm, points - x).max() <= epsilon * (1 + 1e-10) + 1e-12
            assert points.min() >= bounds[0]
            assert points.max() <= bounds[1]
    losses = np.array([state.best_loss for state in history])
    assert (losses[1:] >= losses[:-1]).all()
    assert np.isfinite(losses[1:]).all()


@pytest.mark.parametrize("norm", RADII)
def test_a_claim_is_misclassified_or_undecided(backend, norm):
    x = pixels(8)
    model = build(backend)
    classifier = backend.classifier(model)
    logits = lambda x: backend.array(classifier.logits(backend.images(x), Mode.EVAL))  # noqa: E731
    y = logits(x).argmax(1)
    history = Run(backend, APGD(RADII[norm], steps=30, norm=norm), model, x, y)()
    found = logits(np.concatenate([state.adversarial for state in history[1:]])).argmax(1).reshape(-1, len(y))
    np.testing.assert_array_equal([state.success for state in history[1:]], found != y)
    fooled = np.any([state.success for state in history], axis=0)
    assert fooled.any()
    flat = SimpleNamespace(ops=backend.ops, logits=lambda x, mode: classifier.logits(x, mode) * 0.0)
    assert Run(backend, APGD(RADII[norm], "dlr", norm=norm), flat, x, y)(1)[-1].success.all()


@pytest.mark.parametrize("norm", RADII)
def test_on_a_linear_model_it_comes_to_the_worst_point(backend, norm):
    """logits (−s, s) with s = ⟨w, x⟩: the loss of label 0 is largest at x + ε sign(w), or x + ε w / ‖w‖."""
    w = np.random.default_rng(3).normal(size=(1, 4, 4, 2))
    x = np.full((3, 4, 4, 2), 0.5)
    ops, weights = backend.ops, backend.images(np.repeat(w, 3, axis=0))
    signs = backend.tensor(np.tile([-1.0, 1.0], (3, 1)))

    def logits(x, mode):
        return signs * ops.expand_dims_like(ops.sum(x * weights), signs)

    linear = SimpleNamespace(ops=ops, logits=logits)
    attack = APGD(RADII[norm], steps=30, norm=norm)
    state = Run(backend, attack, linear, x, np.zeros(3, int))()[-1]
    direction = np.sign(w) if norm == "linf" else w / np.linalg.norm(w)
    np.testing.assert_allclose(state.best - x, RADII[norm] * np.repeat(direction, 3, axis=0), atol=1e-3)


@pytest.mark.parametrize("norm", RADII)
def test_starts_lie_on_the_balls_surface_and_depend_on_their_key_alone(norm):
    attack = APGD(norm=norm)
    (noise,) = attack.noise(lane_keys(40), (8, 8, 3))
    np.testing.assert_allclose(distance(norm, noise), 1)
    np.testing.assert_array_equal(attack.noise(lane_keys(40)[[7, 2]], (8, 8, 3))[0], noise[[7, 2]])
    assert abs(np.mean(noise[:, 1:] * noise[:, :-1])) < 0.01 * np.mean(noise**2) ** 0.5
    if norm == "linf":  # uniform: the fourth moment is 9/5 of the variance squared; of a normal 3
        assert np.mean(noise**4) / np.mean(noise**2) ** 2 == pytest.approx(1.8, abs=0.05)
    else:
        assert np.mean(noise**4) / np.mean(noise**2) ** 2 == pytest.approx(3, abs=0.2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"norm": "l1"},
        {"loss": "hinge"},
        {"steps": 0},
        {"rho": 1.5},
        {"samples": 0},
        {"epsilon": -1},
        {"bounds": (1, 0)},
    ],
    ids=str,
)
def test_wrong_settings(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        APGD(**wrong)
