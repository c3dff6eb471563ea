"""DeepFool: on linear models, where one step is exact, and on a network, where it has to go on."""

import numpy as np
import pytest
from harness import problem

import stcore
from stcore.attacks.deepfool import DeepFool
from stcore.errors import UsageError
from stcore.protocols import Mode

CLASSES, DIMENSION = 4, 12


def linear(backend, seed=0):
    """Logits W x + b of flat inputs in float64, with W (C, D) and b (C,)."""
    rng = np.random.default_rng(seed)
    w = rng.normal(size=(CLASSES, DIMENSION))
    b = -w @ np.full(DIMENSION, 0.5)  # so that every class occurs
    if backend.name == "torch":
        import torch

        model = torch.nn.Sequential(torch.nn.Linear(DIMENSION, CLASSES)).double()
        with torch.no_grad():
            model[0].weight.copy_(torch.tensor(w))
            model[0].bias.copy_(torch.tensor(b))
    else:
        import keras

        model = keras.Sequential(
            [keras.Input((DIMENSION,), dtype="float64"), keras.layers.Dense(CLASSES, dtype="float64")]
        )
        model.layers[0].set_weights([w.T, b])
    return model, w, b


def images(w, b, count=40):
    """Far enough from the edges of [0, 1] that the nearest boundary lies within; with their predictions."""
    x = np.random.default_rng(1).uniform(0.4, 0.6, (count, DIMENSION))
    return x, (x @ w.T + b).argmax(1)


def shortest(x, y, w, b, norm, rivals=None):
    """The perturbation to the nearest boundary, (B, D): for l2 along w, for l∞ along its sign."""
    moves = []
    for i, (point, label) in enumerate(zip(x, y, strict=True)):
        ways = []
        for k in range(CLASSES) if rivals is None else [rivals[i]]:
            if k != label:
                f, g = (w[k] - w[label]) @ point + b[k] - b[label], w[k] - w[label]
                ways.append(-f / np.abs(g).sum() * np.sign(g) if norm == "linf" else -f / (g @ g) * g)
        moves.append(min(ways, key=lambda way: np.linalg.norm(way, ord=np.inf if norm == "linf" else 2)))
    return np.array(moves)


def attacked(backend, attack, model, x, y):
    return backend.array(attack(model, backend.tensor(x), backend.tensor(y)))


@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_on_a_linear_model_it_is_the_nearest_boundary_and_the_overshoot(backend, norm, steps):
    model, w, b = linear(backend)
    x, y = images(w, b)
    found = attacked(backend, DeepFool(steps, overshoot=0.05, norm=norm), model, x, y)
    np.testing.assert_allclose(found - x, 1.05 * shortest(x, y, w, b, norm), rtol=1e-9, atol=1e-12)
    assert ((found @ w.T + b).argmax(1) != y).all()


def test_of_two_classes_the_likeliest_other_is_gone_to(backend):
    model, w, b = linear(backend)
    x, y = images(w, b)
    second = np.argsort(x @ w.T + b, axis=1)[:, -2]
    found = attacked(backend, DeepFool(1, classes=2), model, x, y) - x
    by_hand = 1.02 * shortest(x, y, w, b, "l2", rivals=second)
    np.testing.assert_allclose(found, by_hand, rtol=1e-9, atol=1e-12)
    assert np.abs(by_hand - 1.02 * shortest(x, y, w, b, "l2")).max() > 1e-3  # not always the nearest


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_given_a_radius_the_result_is_in_the_ball(backend, norm):
    model, w, b = linear(backend)
    x, y = images(w, b)
    moves = attacked(backend, DeepFool(3, norm=norm), model, x, y) - x
    order = np.inf if norm == "linf" else 2
    sizes = np.linalg.norm(moves, ord=order, axis=1)
    epsilon = float(np.median(sizes))
    within = attacked(backend, DeepFool(3, norm=norm, epsilon=epsilon), model, x, y) - x
    near = sizes < epsilon
    np.testing.assert_allclose(within[near], moves[near], atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(within[~near], ord=order, axis=1), epsilon)
    scores = stcore.evaluate(model, (x, y), {"it": DeepFool(3, norm=norm, epsilon=epsilon)})
    assert scores["it"].correct == (sizes / 1.02 > epsilon).sum()  # without the overshoot, as far as the boundary


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_on_a_network_it_goes_on_until_across_and_no_further(backend, norm):
    given, net = problem(batch=8, classes=CLASSES), backend.build(classes=CLASSES)
    model = backend.learner(net)
    x = backend.images(given.x)
    weights = model.weights()
    weights["linear.bias"] = weights["linear.bias"] - 0.9 * backend.array(model.logits(x, Mode.EVAL)).mean(0)
    model.load_weights(weights)

    def predicted(pixels):
        return backend.array(model.logits(pixels, Mode.EVAL)).argmax(1)

    y = predicted(x)
    labels = backend.tensor(y)
    trail = [x] + [DeepFool(n, norm=norm)(net, x, labels) for n in range(1, 8)]
    across = np.array([predicted(point) != y for point in trail])
    assert across[-1].all()
    assert (~across[1]).any()  # one step is not enough for all
    for n in range(1, len(trail) - 1):
        before, now = (backend.nhwc(trail[n + i]) for i in (0, 1))
        moved = (before != now).any((1, 2, 3))
        np.testing.assert_array_equal(moved, ~across[n])
        assert now.min() >= 0
        assert now.max() <= 1
    halfway = (backend.array(x) + backend.array(trail[-1])) / 2
    assert (predicted(backend.tensor(halfway)) == y).all()  # not far beyond the boundary


def test_what_is_misclassified_stays(backend):
    model, w, b = linear(backend)
    x, y = images(w, b)
    np.testing.assert_array_equal(attacked(backend, DeepFool(3), model, x, (y + 1) % CLASSES), x)


@pytest.mark.parametrize("epsilon", [None, 0.5])
@pytest.mark.parametrize(
    "wrong",
    [{"norm": "l1"}, {"steps": 0}, {"overshoot": -0.1}, {"classes": 1}, {"bounds": (1.0, 0.0)}],
    ids=str,
)
def test_settings_are_checked(wrong, epsilon):
    with pytest.raises(UsageError, match=f"{next(iter(wrong))}: expected"):
        DeepFool(**{"epsilon": epsilon, **wrong})
