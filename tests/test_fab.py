"""FAB: against a plain rewrite, pyautoattack and closed forms, on both backends and on the protocol alone."""

from functools import cache
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from harness import load, problem
from test_hyperplane import ORDERS, by_sorting

from stcore.attacks.counter_random import keys
from stcore.attacks.fab import FAB
from stcore.errors import UsageError
from stcore.protocols import Mode

CLASSES = 4


@cache
def setting(backend, batch=6, side=8, dtype="float64", net="tiny-smooth", share=1.0):
    """Images that the network is right about, each with its second likeliest class as the target. Read only.

    share: how much of what one class is above another on the average is taken away: 1 puts the boundaries nearest.
    """
    given = problem(batch, side, classes=CLASSES)
    model = backend.learner(backend.build(net, side=side, dtype=dtype, classes=CLASSES))
    x = backend.images(given.x, dtype)
    weights, logits = model.weights(), backend.array(model.logits(x, Mode.EVAL))
    weights["linear.bias"] = weights["linear.bias"] - share * logits.mean(0)
    model.load_weights(weights)
    order = np.argsort(-backend.array(model.logits(x, Mode.EVAL)), axis=1)
    return model, x, order[:, 0], order[:, 1]


def lengths(norm, x):
    return np.linalg.norm(x.reshape(len(x), -1), ord=ORDERS[norm], axis=1)


def walk(backend, attack, model, x, y, target, noise=()):
    """The state at the start and after each step, as numpy: no lane leaves when it is done."""
    y, target = backend.tensor(y), backend.tensor(target)
    state = attack.start(model.ops, x, y, target, noise)
    for number in range(attack.evaluations + 1):
        images = ("point", "adversarial")
        yield {name: (backend.nhwc if name in images else backend.array)(v) for name, v in state.items()}
        if number < attack.evaluations:
            state = attack.step(model, x, y, target, state, {})


def run(*args):
    """The last of them."""
    *_, last = walk(*args)
    return last


def rewritten(ask, attack, x, y, target, look_again):
    """One image's smallest adversarial distance and last point, in numpy, a case at a time.

    ask: point → logits (C,), their gradients (C, D).   look_again: the boundary is linearised at the point gone
    back to, as in the published code, and not at the point found misclassified.
    """
    best, point, order = np.inf, x, ORDERS[attack.norm]
    dual = {"linf": 1, "l2": 2, "l1": np.inf}[attack.norm]
    for _ in range(attack.evaluations):
        logits, gradients = ask(point)
        base = point
        if logits.argmax() != y:
            best = min(best, np.linalg.norm(point - x, ord=order))
            base = x + attack.beta * (point - x)
            if look_again:
                logits, gradients = ask(base)
                point = base
        f, w = logits - logits[y], gradients - gradients[y]
        others = [target] if attack.targeted else [k for k in range(len(f)) if k != y]
        k = min(others, key=lambda k: abs(f[k]) / np.linalg.norm(w[k], ord=dual))
        b = w[k] @ point - f[k]
        d1, d2 = (by_sorting(attack.norm, p, w[k], w[k] @ p - b) for p in (base, x))
        a1, a2 = (max(np.linalg.norm(d, ord=order), 1e-8) for d in (d1, d2))
        a = min(a1 / (a1 + a2), attack.alpha_max)
        point = np.clip((1 - a) * (base + attack.eta * d1) + a * (x + attack.eta * d2), 0, 1)
    return best, point


def asking(model, shape, dtype="float64"):
    """`rewritten`'s `ask` by PyTorch's own autograd; points are flattened NCHW."""
    import torch

    def ask(point):
        copies = torch.tensor(point, dtype=getattr(torch, dtype)).repeat(CLASSES, 1).requires_grad_()
        logits = model.logits(copies.reshape(CLASSES, *shape), Mode.EVAL)  # a copy for each class's gradient
        (gradients,) = torch.autograd.grad(logits.diagonal().sum(), copies)
        return logits[0].detach().numpy(), gradients.numpy()

    return ask


@pytest.mark.parametrize("targeted", [True, False])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_it_is_the_rewritten_one(norm, targeted):
    backend = load("torch")
    model, x, y, target = setting(backend)
    attack = FAB(0.1, norm, steps=15, targeted=targeted, classes=CLASSES)
    ours, flat = run(backend, attack, model, x, y, target), x.numpy().reshape(len(y), -1)
    ask = asking(model, x.shape[1:])
    theirs = [rewritten(ask, attack, *row, look_again=False) for row in zip(flat, y, target, strict=True)]
    best, points = (np.array(column) for column in zip(*theirs, strict=True))
    assert np.isfinite(best).all()
    np.testing.assert_allclose(ours["distance"], best, rtol=1e-9)
    points = points.reshape(x.shape).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(ours["point"], points, atol=1e-9)


def assert_as_near(ours, theirs):
    """Their nearest points are about equally far, and the verdict at an ε is all but always the same."""
    assert np.isfinite(ours).all()
    assert np.isfinite(theirs).all()
    assert np.median(np.abs(ours / theirs - 1)) < 0.003
    assert np.quantile(np.abs(ours / theirs - 1), 0.9) < 0.02
    for epsilon in np.quantile(theirs, [0.25, 0.5, 0.75]):
        assert ((ours <= epsilon) == (theirs <= epsilon)).mean() >= 0.97


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_one_look_a_step_finds_what_two_find(norm):
    backend = load("torch")
    model, x, y, target = setting(backend, batch=35, side=4, net="tiny", share=0.8)
    attack = FAB(0.1, norm, steps=25)
    ours, flat = run(backend, attack, model, x, y, target)["distance"], x.numpy().reshape(len(y), -1)
    ask = asking(model, x.shape[1:])
    two = [rewritten(ask, attack, *row, look_again=True)[0] for row in zip(flat, y, target, strict=True)]
    assert (np.abs(ours / two - 1) > 1e-9).mean() > 0.3  # the others never leave a linear piece
    assert_as_near(ours, np.array(two))


@pytest.mark.parametrize("targeted", [True, False])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_it_finds_what_pyautoattack_finds(norm, targeted):
    fab = pytest.importorskip("pyautoattack.fab_pt")
    torch = pytest.importorskip("torch")
    backend = load("torch")
    model, x, y, target = setting(backend, batch=64, dtype="float32", net="tiny", share=0.8)
    attack = FAB(0.1, norm, steps=30, targeted=targeted, classes=CLASSES)
    ours = run(backend, attack, model, x, y, target)["distance"]
    name = {"linf": "Linf", "l2": "L2", "l1": "L1"}[norm]
    theirs = fab.FABAttack_PT(lambda p: model.logits(p, Mode.EVAL), norm=name, n_iter=30, eps=0.1, device="cpu")
    theirs.target_class = 2  # the second likeliest
    distances = lengths(norm, (theirs.attack_single_run(x, torch.tensor(y), is_targeted=targeted) - x).numpy())
    assert_as_near(ours, np.where(distances > 0, distances, np.inf))


@pytest.mark.parametrize("targeted", [True, False])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_backends_agree(norm, targeted):
    attack = FAB(0.05, norm, steps=3, targeted=targeted, classes=CLASSES)
    states = []
    for backend in map(load, ("torch", "keras", "strict")):
        model, x, y, target = setting(backend, batch=3, side=4)
        states.append(run(backend, attack, model, x, y, target))
    assert np.isfinite(states[0]["distance"]).any()
    for other in states[1:]:
        for name, value in states[0].items():
            np.testing.assert_allclose(other[name], value, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("random_start", [True, False])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_what_is_kept_is_the_nearest_misclassified_point(backend, norm, random_start):
    model, x, y, target = setting(backend)
    attack = FAB(0.08, norm, steps=4, random_start=random_start)
    images = backend.nhwc(x)
    noise = tuple(backend.images(n) for n in attack.noise(keys(0, np.arange(6)), images.shape[1:]))
    trail = list(walk(backend, attack, model, x, y, target, noise))
    assert np.isfinite(trail[-1]["distance"]).any()
    nearest = np.full(6, np.inf)
    for before, now in pairwise(trail):
        logits = backend.array(model.logits(backend.images(before["point"]), Mode.EVAL))
        away = np.where(logits.argmax(1) == y, np.inf, lengths(norm, before["point"] - images))
        nearest = np.minimum(nearest, away)
        np.testing.assert_allclose(now["distance"], nearest, rtol=1e-12)
        for kept, lane, point in zip(now["adversarial"], range(6), before["point"], strict=True):
            if away[lane] == nearest[lane] < np.inf:
                np.testing.assert_array_equal(kept, point)
        claimed = (away == nearest) & (away <= attack.epsilon)  # once: what was refused is not offered again
        np.testing.assert_array_equal(now["success"] > 0.5, claimed)
        assert now["point"].min() >= 0
        assert now["point"].max() <= 1
    np.testing.assert_array_equal(trail[0]["adversarial"], images)


def test_a_misclassified_image_is_its_own_nearest_point(backend):
    model, x, y, target = setting(backend)
    state = run(backend, FAB(0.1, steps=1), model, x, target, y)
    np.testing.assert_array_equal(state["adversarial"], backend.nhwc(x))
    np.testing.assert_array_equal(state["distance"], 0)
    _, first, *_ = walk(backend, FAB(0.1, steps=1), model, x, target, y, ())
    assert (first["success"] > 0.5).all()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_random_starts_are_half_the_radius_away_and_depend_on_the_key_alone(backend, norm):
    x = np.full((4, 8, 8, 3), 0.5)
    attack = FAB(0.2, norm, random_start=True)
    (noise,) = attack.noise(keys(0, [3, 1, 4, 1]), (8, 8, 3))
    np.testing.assert_array_equal(noise[1], noise[3])
    assert np.abs(noise[0] - noise[1]).max() > 0.1 * np.abs(noise).max()
    labels = backend.tensor(np.zeros(4, int))
    state = attack.start(backend.ops, backend.images(x), labels, labels, (backend.images(noise),))
    np.testing.assert_allclose(lengths(norm, backend.nhwc(state["point"]) - x), 0.1)
    edge = attack.start(backend.ops, backend.images(x * 2), labels, labels, (backend.images(noise),))
    assert backend.nhwc(edge["point"]).max() == 1.0
    assert FAB(0.2, norm).noise(keys(0, [3]), (8, 8, 3)) == ()


@pytest.mark.parametrize(("targeted", "classes", "ways"), [(True, 10, 1), (False, 4, 3), (False, 2, 1)])
def test_a_step_asks_once_and_goes_back_as_often_as_it_says(backend, targeted, classes, ways):
    model, x, y, target = setting(backend)
    asked, back = [], []

    def logits(*args):
        asked.append(1)
        return model.logits(*args)

    def vjp(fn, *xs):
        before = len(asked)
        value, pullback = backend.ops.vjp(fn, *xs)
        return value, (lambda c: (back.append(1), pullback(c))[1]) if len(asked) > before else pullback

    ops = SimpleNamespace(**{**vars(backend.ops), "vjp": vjp})
    attack = FAB(0.1, steps=1, targeted=targeted, classes=classes)
    run(backend, attack, SimpleNamespace(ops=ops, logits=logits), x, y, target)
    assert (attack.forwards, attack.backwards) == (1, ways)
    assert (len(asked), len(back)) == (2, 2 * ways)


def test_lanes_do_not_see_their_neighbours(backend):
    model, x, y, target = setting(backend)
    attack = FAB(0.1, steps=4, targeted=False, classes=CLASSES)
    whole = run(backend, attack, model, x, y, target)
    part = run(backend, attack, model, backend.ops.take(x, [4, 1]), y[[4, 1]], target[[4, 1]])
    for name, value in whole.items():
        np.testing.assert_allclose(part[name], value[[4, 1]], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"norm": "l3"}, "norm: expected one of linf, l2, l1"),
        ({"steps": 0}, "steps: expected a whole number of at least 1"),
        ({"classes": 1}, "classes: expected a whole number of at least 2"),
        ({"alpha_max": 1.5}, "alpha_max"),
        ({"eta": 0.9}, "eta"),
        ({"beta": -0.1}, "beta"),
        ({"epsilon": -1.0}, "epsilon"),
    ],
    ids=str,
)
def test_settings_are_checked(wrong, said):
    with pytest.raises(UsageError, match=said):
        FAB(**{"epsilon": 0.1, **wrong})


def test_it_counts_its_evaluations():
    assert FAB(steps=7).evaluations == 8
