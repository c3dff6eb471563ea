"""The probability margin attack: its authors' description in plain numpy step by step, the ball, any logits."""

import numpy as np
import pytest
from harness import NAMES, load
from hypothesis import given, settings
from hypothesis import strategies as st
from test_apgd import Alternating, Run, build, distance, lane_keys, pixels

import stcore
from stcore.attacks.pma import OPENINGS, PMA
from stcore.autoattack import AutoAttack, stages
from stcore.core.losses import label_probability
from stcore.core.search import forward, value_and_input_gradient
from stcore.errors import UsageError
from stcore.protocols import Mode

RADII = {"linf": 0.02, "l2": 0.3}
EVERY = [(norm, opening) for norm in RADII for opening in OPENINGS]


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


class SoftplusNet:
    """One image's logits A·softplus(W·x) + b and their Jacobian, in numpy and on a backend."""

    def __init__(self, inputs=12, hidden=7, classes=4):
        rng = np.random.default_rng(3)
        self.w, self.a = rng.normal(size=(hidden, inputs)), 0.5 * rng.normal(size=(classes, hidden))
        self.b = -self.a @ np.log1p(np.exp(self.w @ np.full(inputs, 0.5)))  # all classes are near in the middle

    def logits(self, x):
        return self.a @ np.logaddexp(0, self.w @ x) + self.b

    def jacobian(self, x):
        return self.a @ (self.w / (1 + np.exp(-self.w @ x))[:, None])

    def on(self, backend):
        if backend.name == "torch":
            import torch

            layers = [
                torch.nn.Linear(*self.w.shape[::-1]),
                torch.nn.Softplus(),
                torch.nn.Linear(*self.a.shape[::-1]),
            ]
            model = torch.nn.Sequential(*layers).double()
            for parameter, value in zip(
                model.parameters(), (self.w, 0 * self.w[:, 0], self.a, self.b), strict=True
            ):
                parameter.data = torch.tensor(value)
            return model
        import keras

        dense = [
            keras.layers.Dense(len(self.w), activation="softplus", dtype="float64"),
            keras.layers.Dense(len(self.a), dtype="float64"),
        ]
        model = keras.Sequential([keras.Input((self.w.shape[1],), dtype="float64"), *dense])
        model.set_weights([self.w.T, 0 * self.w[:, 0], self.a.T, self.b])
        return model


def by_hand(net, x, y, start, *, epsilon, steps, second_run, norm):
    """One image's points, as published: probabilities and their own gradients, a case at a time."""
    point, points = start, [start]
    for i in range(steps):
        p = softmax(net.logits(point))
        others = [j for j in range(len(p)) if j != y]
        best = max(others, key=lambda j: p[j])
        of = lambda j: p[j] * (np.eye(len(p))[j] - p) @ net.jacobian(point)  # noqa: E731, B023  the gradient of p_j
        if i == 0:
            gradient = of(y)
        elif i < steps / 2:
            gradient = of(best) if second_run else -of(y)
        else:
            gradient = of(best) - of(y)
        since = i - steps / 2 if i > steps / 2 else i
        alpha = 2 * epsilon * 0.5 * (1 + np.cos((since - 1) / (steps / 2) * np.pi))
        if norm == "linf":
            point = np.clip(point + alpha * np.sign(gradient), x - epsilon, x + epsilon)
        else:
            offset = point + alpha * gradient / np.linalg.norm(gradient) - x
            point = x + offset * min(1, epsilon / np.linalg.norm(offset))
        point = np.clip(point, 0, 1)
        points.append(point)
    return points


def flat_run(backend, attack, model, x, y, noise):
    """The points of all lanes, (evaluations, B, D), and which were misclassified at each."""
    ops, classifier = backend.ops, backend.classifier(model)
    native = [backend.tensor(each) for each in (x, y, y)]
    state = attack.start(ops, *native, (backend.tensor(noise),))
    step = classifier.compile(lambda *given: ops.unrecorded(attack.step, classifier, *given))
    points, wrong = [], []
    for k in range(attack.evaluations):
        points.append(backend.array(state["point"]))
        pace = {n: backend.tensor(v) for n, v in attack.pace(np.full(len(x), k)).items()}
        state = step(*native, state, pace)
        wrong.append(backend.array(state["success"]) > 0.5)
        np.testing.assert_array_equal(backend.array(state["adversarial"]), points[-1])
    return np.array(points), np.array(wrong)


@pytest.mark.parametrize("steps", [1, 7, 20])
@pytest.mark.parametrize(("norm", "opening"), EVERY)
def test_points_are_those_of_the_description(backend, norm, opening, steps):
    net, rng = SoftplusNet(), np.random.default_rng(1)
    x = np.clip(rng.uniform(-0.1, 1.1, (9, 12)), 0, 1)
    y = np.array([net.logits(each).argmax() for each in x])
    attack = PMA({"linf": 0.1, "l2": 0.25}[norm], opening, steps, norm=norm)
    (noise,) = attack.noise(lane_keys(9), (12,))
    points, wrong = flat_run(backend, attack, net.on(backend), x, y, noise)
    assert len(points) == steps + 1
    told = {"epsilon": attack.epsilon, "steps": steps, "second_run": opening == "other", "norm": norm}
    for lane in range(9):
        start = np.clip(x[lane] + attack.epsilon * noise[lane], 0, 1)
        expected = by_hand(net, x[lane], y[lane], start, **told)
        np.testing.assert_allclose(points[:, lane], expected, rtol=0, atol=1e-9)
        np.testing.assert_array_equal(wrong[:, lane], [net.logits(p).argmax() != y[lane] for p in expected])
    assert 0 < wrong.any(axis=0).sum() < 9 or steps == 1


def test_the_step_sizes_of_100_steps():
    pace = PMA(0.1).pace(np.arange(100))
    size = pace["size"]
    assert size[1] == size[51] == pytest.approx(0.2)
    assert size[50] < 0.001 > size[99]
    assert (np.diff(size[1:51]) < 0).all()
    assert (np.diff(size[51:]) < 0).all()
    assert list(np.flatnonzero(pace["first"])) == [0]
    assert list(np.flatnonzero(pace["margin"])) == list(range(50, 100))


@pytest.mark.parametrize(("norm", "opening"), EVERY)
def test_both_frameworks_go_the_same_way(norm, opening):
    x, y = pixels(), np.arange(6) % 5
    attack = PMA(RADII[norm], opening, 20, norm=norm)
    one, other = (Run(load(name), attack, build(load(name)), x, y)() for name in NAMES)
    for left, right in zip(one, other, strict=True):
        np.testing.assert_allclose(left.point, right.point, rtol=0, atol=1e-9)
        np.testing.assert_array_equal(left.success, right.success)


def test_the_protocol_alone_is_enough():
    x, y = pixels(2, 4), np.array([0, 1])
    strict, torch = (
        Run(load(name), PMA(0.05, steps=6), build(load(name), "tiny-smooth", side=4, classes=4), x, y)()
        for name in ("strict", "torch")
    )
    for one, other in zip(strict, torch, strict=True):
        np.testing.assert_allclose(one.point, other.point, atol=1e-6)


@settings(max_examples=6, deadline=None)
@given(
    norm=st.sampled_from(list(RADII)),
    opening=st.sampled_from(list(OPENINGS)),
    epsilon=st.sampled_from([0.0, 1e-3, 0.1, 0.7]),
    bounds=st.sampled_from([(0.0, 1.0), (-1.0, 2.0)]),
    steps=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_points_stay_in_the_ball_and_in_range(backend, norm, opening, epsilon, bounds, steps, seed):
    x = bounds[0] + (bounds[1] - bounds[0]) * pixels(3, seed=seed)
    y = np.random.default_rng(seed).integers(5, size=3)
    attack = PMA(epsilon, opening, steps, norm=norm, bounds=bounds)
    run = Run(backend, attack, build(backend), x, y)
    run.step = lambda *given: run.ops.unrecorded(attack.step, run.model, *given)  # a graph for each is slower
    for state in run():
        assert distance(norm, state.point - x).max() <= epsilon * (1 + 1e-10) + 1e-12
        assert bounds[0] <= state.point.min() <= state.point.max() <= bounds[1]


@pytest.mark.parametrize("norm", RADII)
def test_starts_fill_the_ball_and_depend_on_their_key_alone(norm):
    (noise,) = PMA(norm=norm).noise(lane_keys(200), (2,))
    radius = distance(norm, noise)
    assert radius.max() <= 1
    assert np.mean(radius**2) == pytest.approx(0.5, abs=0.05)  # uniform in two dimensions
    np.testing.assert_array_equal(PMA(norm=norm).noise(lane_keys(200)[[7, 2]], (2,))[0], noise[[7, 2]])


def steepest(backend, model, x, y):
    """The gradient of the first step's loss, log-odds of p_y, at images."""
    ops, classifier = backend.ops, backend.classifier(model)
    at_x = forward(classifier, backend.images(x), Mode.EVAL)
    loss = lambda z: label_probability(ops, z, backend.tensor(y))  # noqa: E731
    return backend.nhwc(value_and_input_gradient(ops, at_x, loss)[1])


def test_averaged_gradients_and_the_majority(backend):
    """Two networks in turn: the step is that of the mean gradient, and one of two errors is no success."""
    x, models = pixels(), [build(backend, seed=seed) for seed in (0, 1)]
    found = [backend.classifier(model).eval_logits(backend.images(x)).argmax(1) for model in models]
    y = found[0]
    attack = PMA(0.05, steps=4, samples=2)
    both = Run(backend, attack, Alternating(backend, models), x, y)
    both.noise = (np.zeros_like(x),)
    at_x = both(1)[-1]
    assert (found[1] != y).any()
    assert not at_x.success.any()  # the first is right
    gradients = [steepest(backend, model, x, y) for model in models]
    np.testing.assert_allclose(at_x.point, np.clip(x + 0.05 * np.sign(sum(gradients)), 0, 1), atol=1e-12)
    assert (np.sign(sum(gradients)) != np.sign(gradients[0])).any()
    assert (attack.forwards, attack.backwards) == (2, 2)


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e6])
def test_saturated_logits_are_attacked_as_others(backend, scale):
    """In float32 p_y is 1 and its gradient 0; the attack still comes to the worst point of a linear network."""
    rng = np.random.default_rng(0)
    w, x = rng.normal(size=(30, 2)), rng.uniform(0.3, 0.7, (40, 30))
    w -= w.mean(axis=0)
    margin = (x @ w) @ [1, -1]
    y, reach = (margin < 0).astype(int), 0.02 * np.abs(w @ [1, -1]).sum()
    clear = np.abs(np.abs(margin) - reach) > 0.05
    if backend.name == "torch":
        import torch

        model = torch.nn.Sequential(torch.nn.Linear(30, 2, bias=False))
        model[0].weight.data = torch.tensor(scale * w.T, dtype=torch.float32)
    else:
        import keras

        model = keras.Sequential([keras.Input((30,)), keras.layers.Dense(2, use_bias=False)])
        model.set_weights([(scale * w).astype("float32")])
    data = x[clear].astype("float32"), y[clear]
    for name in ("pma", "apgd-pm"):
        scores = stcore.evaluate(model, data, [name], epsilon=0.02, audit=False)
        assert scores[name].correct == (np.abs(margin) > reach)[clear].sum()
        assert 0.1 < scores[name].value < 0.9


def test_the_published_attack_is_a_run_of_each_opening():
    attack = AutoAttack(0.1, version="custom", attacks=("pma",))
    runs = [(stage.attack.opening, stage.first, stage.restarts) for stage in attack.stages(10)]
    assert runs == [("label", 0, 1), ("other", 1, 1)]
    assert all(stage.attack.steps == 100 for stage in stages("custom", "l2", 0.5, 10, attacks=("pma",)))


@pytest.mark.parametrize(
    "wrong",
    [{"norm": "l1"}, {"opening": "margin"}, {"steps": 0}, {"samples": 0}, {"epsilon": -1}, {"bounds": (1, 0)}],
    ids=str,
)
def test_wrong_settings(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        PMA(**wrong)
