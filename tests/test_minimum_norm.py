"""Minimum-norm attacks: against readings in plain numpy and closed forms, on both backends, in an evaluation."""

import copy
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from harness import NAMES, load

import stcore
from stcore.attacks import DDN, FMN, SigmaZero
from stcore.attacks.minimum_norm import MinimumNorm
from stcore.attacks.presets import MINIMUM_NORM
from stcore.autoattack.cascade import Cascade
from stcore.autoattack.nearest import NearestSearch
from stcore.base.progress import Silent
from stcore.core.threat import lengths
from stcore.errors import DivergedError, UsageError
from stcore.evaluation.assessment import Assessment
from stcore.evaluation.attack_names import MONITORS, attacks_by_name, split
from stcore.evaluation.evaluator import Evaluator
from stcore.testing.attacks import check_attack

CLASSES, DIMENSION, HIDDEN = 4, 12, 8
ORDERS = {"linf": np.inf, "l2": 2, "l1": 1, "l0": 0}
DUAL = {"linf": 1, "l2": 2, "l1": np.inf}
SLOW = {("fmn", "1"), ("fmn", "0")}
SHORT = [DDN(steps=12, init_norm=0.4), *(FMN(norm=norm, steps=12) for norm in ORDERS), SigmaZero(steps=12)]


def named(attack):
    return f"{attack.NAME}-{attack.norm}"


class Net:
    """z = V tanh(W x + a) + b in float64, in numpy and in a framework; linear without hidden units."""

    def __init__(self, *, hidden=HIDDEN, classes=CLASSES, seed=0):
        rng = np.random.default_rng(seed)
        inner = hidden or DIMENSION
        self.hidden = hidden
        self.w = rng.normal(size=(inner, DIMENSION)) / 2
        self.a = -self.w @ np.full(DIMENSION, 0.5)
        self.v = rng.normal(size=(classes, inner)) * (3 if hidden else 8)
        self.b = np.zeros(classes) if hidden else -self.v @ np.full(DIMENSION, 0.5)

    def ask(self, x):
        """Logits (C,) of one point, and their gradients (C, D)."""
        if not self.hidden:
            return self.v @ x + self.b, self.v
        h = np.tanh(self.w @ x + self.a)
        return self.v @ h + self.b, self.v * (1 - h**2) @ self.w

    def logits(self, x):
        return np.stack([self.ask(point)[0] for point in x])

    def model(self, backend):
        layers = [(self.w, self.a), (self.v, self.b)][not self.hidden :]
        if backend.name == "torch":
            import torch

            parts = []
            for matrix, bias in layers:
                linear = torch.nn.Linear(*matrix.shape[::-1]).double()
                with torch.no_grad():
                    linear.weight.copy_(torch.tensor(matrix))
                    linear.bias.copy_(torch.tensor(bias))
                parts += [linear, torch.nn.Tanh()]
            return torch.nn.Sequential(*parts[:-1])
        import keras

        dense = [keras.layers.Dense(len(bias), dtype="float64") for _, bias in layers]
        for layer in dense[:-1]:
            layer.activation = keras.activations.tanh
        model = keras.Sequential([keras.Input((DIMENSION,), dtype="float64"), *dense])
        for layer, (matrix, bias) in zip(dense, layers, strict=True):
            layer.set_weights([matrix.T, bias])
        return model


NET = Net()


def images(net, count=12):
    """Images with room to the edges and beyond a tenth of a nat from a boundary, with their classes."""
    x = np.random.default_rng(1).uniform(0.1, 0.9, (20 * count, DIMENSION))
    ordered = np.sort(net.logits(x), axis=1)
    x = x[ordered[:, -1] - ordered[:, -2] > 1.0][:count]
    return x, net.logits(x).argmax(1)


# Readings in numpy, of one image


def annealed(first, last, i, steps):
    return last + (first - last) * (1 + np.cos(np.pi * i / steps)) / 2


def margin_of(net, point, y):
    """The likeliest other logit minus the label's, and its gradient."""
    z, gradients = net.ask(point)
    other = max((k for k in range(len(z)) if k != y), key=lambda k: z[k])
    return z[other] - z[y], gradients[other] - gradients[y]


def by_ddn(net, attack, x, y):
    delta, epsilon, best = np.zeros_like(x), attack.init_norm, np.inf
    largest = np.linalg.norm(np.maximum(x, 1 - x))
    for i in range(attack.steps):
        z, gradients = net.ask(x + delta)
        p = np.exp(z - z.max())
        p /= p.sum()
        p[y] -= 1
        g = p @ gradients  # of the cross-entropy
        fools = z.argmax() != y
        if fools:
            best = min(best, np.linalg.norm(delta))
        delta = delta + annealed(1.0, 0.01, i, attack.steps) * g / np.linalg.norm(g)
        epsilon = min(epsilon * (1 - attack.gamma if fools else 1 + attack.gamma), largest)
        delta = np.clip(x + epsilon * delta / np.linalg.norm(delta), 0, 1) - x
    return best, x + delta


def onto_l1_ball(v, radius):
    """Duchi et al. (2008)."""
    if np.abs(v).sum() <= radius or radius == 0:
        return v * (radius > 0)
    u = np.sort(np.abs(v))[::-1]
    excess = (np.cumsum(u) - radius) / np.arange(1, len(u) + 1)
    return np.sign(v) * np.maximum(np.abs(v) - excess[u > excess][-1], 0)


def onto_ball(v, radius, norm):
    if norm == "linf":
        return np.clip(v, -radius, radius)
    if norm == "l2":
        return v * min(1, radius / np.linalg.norm(v))
    if norm == "l1":
        return onto_l1_ball(v, radius)
    kept = np.zeros_like(v)
    places = np.argsort(-np.abs(v))[: max(int(radius), 1)]
    kept[places] = v[places]
    return kept


def by_fmn(net, attack, x, y):
    norm, order = attack.norm, ORDERS[attack.norm]
    delta, best, found = np.zeros_like(x), np.inf, False
    epsilon = 1.0 if norm == "l0" else 0.0
    for i in range(attack.steps):
        alpha, gamma = annealed(1.0, 0.01, i, attack.steps), annealed(0.05, 0.001, i, attack.steps)
        f, g = margin_of(net, x + delta, y)
        size = np.linalg.norm(delta, ord=order)
        if f > 0:
            found, best = True, min(best, size)
            fewer = min(epsilon - 1, np.floor(epsilon * (1 - gamma))) if norm == "l0" else epsilon * (1 - gamma)
            epsilon = min(fewer, best)
        elif norm == "l0":
            epsilon = max(epsilon + 1, np.floor(epsilon * (1 + gamma)))
        elif found:
            epsilon *= 1 + gamma
        else:
            epsilon = (1 + gamma) * max(epsilon, size + abs(f) / np.linalg.norm(g, ord=DUAL[norm]))
        epsilon = min(epsilon, np.linalg.norm(np.maximum(x, 1 - x), ord=order))
        delta = onto_ball(delta + alpha * g / np.linalg.norm(g), epsilon, norm)
        delta = np.clip(x + delta, 0, 1) - x
    return best, x + delta


def by_sigma_zero(net, attack, x, y):
    delta, best, tau = np.zeros_like(x), np.inf, attack.threshold
    mean, squares = np.zeros_like(x), np.zeros_like(x)
    for i in range(attack.steps):
        f, g = margin_of(net, x + delta, y)
        if f > 0:
            best = min(best, np.count_nonzero(delta))
        sigma = attack.sigma
        smooth = (2 * delta * (delta**2 + sigma) - delta**2 * 2 * delta) / (delta**2 + sigma) ** 2 / len(x)
        descent = (0 if f > 0 else -g) + smooth
        descent = descent / max(np.abs(descent).max(), 1e-12)
        mean, squares = 0.9 * mean + 0.1 * descent, 0.999 * squares + 0.001 * descent**2
        eta = annealed(1.0, 0.1, i, attack.steps)
        scaled = mean / (1 - 0.9 ** (i + 1)) / (np.sqrt(squares / (1 - 0.999 ** (i + 1))) + 1e-8)
        delta = np.clip(x + delta - eta * scaled, 0, 1) - x
        rise = attack.threshold_step * annealed(1.0, 0.1, i + 1, attack.steps)
        tau = min(max(tau + (rise if f > 0 else -rise), 0), 1)
        delta[np.abs(delta) < tau] = 0
    return best, x + delta


READ = {"ddn": by_ddn, "fmn": by_fmn, "sigma-zero": by_sigma_zero}


def walked(backend, attack, net, x, y):
    """The states after each step, as numpy; all lanes go to the end."""
    model = backend.classifier(net.model(backend))
    points, labels = backend.tensor(x), backend.tensor(y)
    state = attack.start(model.ops, points, labels, labels, ())
    for number in range(attack.steps):
        pace = {n: backend.tensor(v) for n, v in attack.pace(np.full(len(y), number)).items()}
        state = attack.step(model, points, labels, labels, state, pace)
        yield {name: backend.array(value) for name, value in state.items()}


@pytest.mark.parametrize("attack", SHORT, ids=named)
def test_it_is_the_reading_of_its_paper(attack):
    """Point by point; what evaluations on either backend record is compared with the same readings below."""
    backend, attack = load("torch"), replace(attack, steps=30)
    x, y = images(NET, 8)
    *_, last = walked(backend, attack, NET, x, y)
    best, points = zip(*(READ[attack.NAME](NET, attack, *row) for row in zip(x, y, strict=True)), strict=True)
    assert np.isfinite(best).any()
    np.testing.assert_allclose(last["nearest"], best, rtol=1e-9)
    np.testing.assert_allclose(last["point"], points, atol=1e-9)


@cache
def linear_norms(norm):
    """Images of a linear classifier of two classes, and |margin| / ‖w‖ in the dual norm: their distances."""
    net = Net(hidden=0, classes=2)
    x = np.random.default_rng(2).uniform(0.35, 0.65, (40, DIMENSION))
    z, w = net.logits(x), net.v[1] - net.v[0]
    away = np.abs(z[:, 1] - z[:, 0]) / np.linalg.norm(w, ord=DUAL[norm])
    near = (away < 0.3) & (away > 0.02)  # within the range of pixels, in l1 too
    return net, x[near], z[near].argmax(1), away[near]


@pytest.mark.parametrize(
    ("attack", "above"),
    [(DDN(), 0.03), *((FMN(norm=norm), 0.03) for norm in DUAL)],
    ids=lambda value: named(value) if isinstance(value, MinimumNorm) else "",
)
def test_on_a_linear_classifier_it_comes_within_a_few_percent_of_the_distance_and_never_below(attack, above):
    net, x, y, true = linear_norms(attack.norm)
    backend = load("torch")
    found = backend.array(attack(net.model(backend), backend.tensor(x), backend.tensor(y)))
    away = np.linalg.norm(found - x, ord=ORDERS[attack.norm], axis=1)
    assert len(true) > 5
    assert (net.logits(found).argmax(1) != y).all()
    assert (away >= true * (1 - 1e-12)).all()
    assert (away <= true * (1 + above)).all()


@pytest.mark.parametrize("attack", [FMN(norm="l0"), SigmaZero(steps=100)], ids=named)
def test_on_a_linear_classifier_the_fewest_components_are_almost_found(attack):
    net, x, y, _ = linear_norms("l2")
    backend = load("torch")
    found = backend.array(attack(net.model(backend), backend.tensor(x), backend.tensor(y)))
    w = net.v[1] - net.v[0]
    fewest = []
    for point, label in zip(x, y, strict=True):  # the components that change the margin most, each to its end
        toward = w if label == 0 else -w
        gains = np.sort(np.maximum(toward * (1 - point), -toward * point))[::-1]
        fewest.append(1 + np.count_nonzero(np.cumsum(gains) < np.abs(w @ point + net.b[1] - net.b[0])))
    count = (found != x).sum(1)
    assert (net.logits(found).argmax(1) != y).all()
    assert (count >= fewest).all()
    assert (count <= np.array(fewest) + 1).all()


@pytest.mark.parametrize(
    "attack",  # bisections outside a graph, on Keras and in numpy: ten seconds
    [
        pytest.param(one, id=named(one), marks=[pytest.mark.slow] if (one.NAME, one.norm[1]) in SLOW else [])
        for one in SHORT
    ],
)
def test_it_keeps_the_contract_of_an_attack(attack):
    """Of its calls on a batch: the same on all backends, each image for itself, in range, in evaluation mode."""
    check_attack(replace(attack, steps=3), forwards=3, backwards=3)


@pytest.mark.parametrize("attack", SHORT, ids=named)
def test_a_call_returns_the_nearest_of_all_points_and_the_image_without_any(attack):
    backend, (x, y) = load("torch"), images(NET)
    y[0] = (y[0] + 1) % CLASSES  # misclassified already
    found = backend.array(attack(NET.model(backend), backend.tensor(x), backend.tensor(y)))
    points = np.stack([x, *(state["point"] for state in walked(backend, attack, NET, x, y))][:-1])
    fools = np.stack([NET.logits(point).argmax(1) != y for point in points])
    away = np.where(fools, [np.linalg.norm(point - x, ORDERS[attack.norm], axis=1) for point in points], np.inf)
    nearest = away.min(0)
    np.testing.assert_allclose(
        np.linalg.norm(found - x, ORDERS[attack.norm], axis=1), np.where(np.isinf(nearest), 0, nearest), atol=1e-9
    )
    assert nearest[0] == 0
    assert np.isfinite(nearest).sum() > 3


# In an evaluation


class Kept:
    """Keeps the last state and all examples; may stop after some saves."""

    def __init__(self, state=None):
        self.state, self.examples = state, {}

    def load(self):
        return self.state

    def due(self):
        return True

    def save(self, state, examples):
        self.state = {name: np.array(array) for name, array in state.items()}
        self.examples.update(copy.deepcopy(examples.get("it", {})))


@cache
def radius_of(attack):
    """About half of the images have an example within it."""
    x, y = images(NET)
    best = np.array([READ[attack.NAME](NET, attack, *row)[0] for row in zip(x, y, strict=True)])
    return 1.0001 * float(np.quantile(best[np.isfinite(best)], 0.4, method="lower"))


@cache
def evaluator_of(name):
    return Evaluator(load(name).classifier(NET.model(load(name))), {})


def assessed(name, attack, *, count=12, stop_after=None, store=None, batch_size=5, positions=None):
    x, y = images(NET)
    y[3] = (y[3] + 1) % CLASSES
    x, y = (x[:count], y[:count]) if positions is None else (x[positions], y[positions])
    store = Kept() if store is None else store
    search = split({"it": replace(attack, epsilon=radius_of(attack))})
    work = Assessment(
        evaluator_of(name), search, x, y, batch_size=batch_size, positions=positions, keep_examples=True
    )
    steps = iter(range(10**6))
    result = work.run(Silent(), store, (lambda: next(steps) >= stop_after) if stop_after else lambda: False)
    return result, store, x, y


@cache
def whole(name, attack):
    return assessed(name, attack)


@pytest.mark.parametrize("attack", SHORT, ids=named)
def test_records_hold_the_nearest_verified_example_and_who_falls_within_the_radius(backend, attack):
    result, store, x, y = whole(backend.name, attack)
    found = result.cascades["it"]
    records, right = found.records, NET.logits(x).argmax(1) == y
    order, radius = ORDERS[attack.norm], radius_of(attack)
    best = [READ[attack.NAME](NET, attack, *row)[0] for row in zip(x, y, strict=True)]
    np.testing.assert_allclose(records.minimum_norm, np.where(right, best, 0), rtol=1e-9)
    assert set(store.examples) == set(np.flatnonzero(np.isfinite(records.distance)))
    for row, point in store.examples.items():
        assert point.min() >= 0
        assert point.max() <= 1
        assert NET.ask(point)[0].argmax() != y[row]
        assert np.linalg.norm(point - x[row], order) == pytest.approx(records.distance[row], abs=1e-9)
    fooled = right & (records.minimum_norm <= radius)
    np.testing.assert_array_equal(records.robust, right & ~fooled)
    np.testing.assert_array_equal(records.attack, np.where(fooled, 0, -1))
    assert found.stages[-1].robust.correct == result.accuracies["it"].correct == records.robust.sum()
    assert found.stages[-1].forwards >= right.sum() * attack.steps == found.stages[-1].backwards
    assert fooled.any()
    assert (right & ~fooled & np.isfinite(records.minimum_norm)).any()  # an example beyond the radius


@pytest.mark.parametrize("attack", SHORT, ids=named)
def test_norms_are_those_of_the_other_backend_image_by_image(attack):
    (one, ones, *_), (other, others, *_) = (whole(name, attack) for name in NAMES)
    for name, array in one.cascades["it"].records.arrays().items():
        np.testing.assert_allclose(getattr(other.cascades["it"].records, name), array, atol=1e-9, err_msg=name)
    assert ones.examples.keys() == others.examples.keys()
    for row, point in ones.examples.items():
        np.testing.assert_allclose(others.examples[row], point, atol=1e-9)


@pytest.mark.parametrize("attack", SHORT, ids=named)
def test_neither_the_batch_nor_the_neighbours_change_a_norm(backend, attack):
    norms = whole(backend.name, attack)[0].cascades["it"].records.minimum_norm
    rows = np.arange(1, 12, 2)
    alone = assessed(backend.name, attack, batch_size=1, count=4)[0].cascades["it"].records.minimum_norm
    part = assessed(backend.name, attack, positions=rows)[0].cascades["it"].records.minimum_norm
    np.testing.assert_allclose(alone, norms[:4], atol=1e-9)
    np.testing.assert_allclose(part, norms[rows], atol=1e-9)


@pytest.mark.parametrize("attack", SHORT, ids=named)
def test_stopped_in_the_middle_and_resumed_it_is_the_uninterrupted_one(backend, attack):
    uninterrupted, examples, *_ = whole(backend.name, attack)
    result, store, *_ = assessed(backend.name, attack, stop_after=17)
    assert result is None
    assert any(name.startswith("it/lane/") for name in store.state)
    resumed, store, *_ = assessed(backend.name, attack, store=store)
    for name, array in uninterrupted.cascades["it"].records.arrays().items():
        np.testing.assert_array_equal(getattr(resumed.cascades["it"].records, name), array, err_msg=name)
    assert store.examples.keys() == examples.examples.keys()
    for row, point in examples.examples.items():
        np.testing.assert_array_equal(store.examples[row], point)


def test_what_a_fresh_forward_refuses_does_not_hide_a_farther_example():
    """Near the boundary the lanes' network may be wrong: the nearest that the other confirms counts."""
    backend, attack = load("torch"), FMN(0.5, "l2", steps=40)
    classifier = backend.classifier(NET.model(backend))
    x, y = images(NET, 6)
    nearest = np.array([by_fmn(NET, attack, *row)[0] for row in zip(x, y, strict=True)])

    def predict(points):
        apart = np.linalg.norm(points[:, None] - x, axis=2)
        of = apart.argmin(1)
        return np.where(apart.min(1) < 1.01 * nearest[of], y[of], NET.logits(points).argmax(1))

    cascade = Cascade(classifier, NearestSearch(attack).stages(CLASSES), x, y, NET.logits(x), predict)
    while cascade.advance():
        pass
    confirmed = cascade.records.minimum_norm
    assert (confirmed >= 1.01 * nearest).all()
    assert (confirmed < 1.1 * nearest).all()


def test_from_python_by_name_or_as_an_object_with_the_norms_in_the_records(backend):
    model, (x, y), radius = NET.model(backend), images(NET), 0.12
    scores = stcore.evaluate(model, (x, y), ["ddn", "fmn", "apgd-ce"], epsilon=radius, norm="l2", audit=False)
    norms = {name: scores.records[f"{name}/minimum_norm"] for name in ("ddn", "fmn")}
    assert "apgd-ce/minimum_norm" not in scores.records
    for name, found in norms.items():
        assert scores[name].correct == (found > radius).sum()
        assert np.isfinite(found).all()
    mine = stcore.evaluate(model, (x, y), {"mine": FMN(norm="l2")}, epsilon=radius, norm="l2", audit=False)
    np.testing.assert_array_equal(mine.records["mine/minimum_norm"], norms["fmn"])
    assert mine["mine"] == scores["fmn"]
    with pytest.raises(UsageError, match="epsilon: expected one for FMN"):
        stcore.evaluate(model, (x, y), [FMN(norm="l2")], epsilon=0.1)


def test_names_make_them_at_the_norm_of_the_evaluation_and_none_selects_an_epoch():
    assert set(MINIMUM_NORM) == {"ddn", "fmn", "sigma-zero"}
    for norm in ORDERS:
        assert attacks_by_name(["fmn"], 0.5, norm) == {"fmn": FMN(0.5, norm)}
    with pytest.raises(UsageError, match="norm: expected one of l2; received 'linf'"):
        attacks_by_name(["ddn"], 0.5)
    with pytest.raises(UsageError, match="norm: expected one of l0"):
        attacks_by_name(["sigma-zero"], 0.5, "l2")
    with pytest.raises(UsageError, match="norm"):
        attacks_by_name(["apgd-ce"], 0.5, "l0")
    assert not set(MINIMUM_NORM) & set(MONITORS)


def test_logits_that_are_not_finite_on_the_way_are_told():
    import torch

    class Breaks(torch.nn.Module):
        def forward(self, x):
            return torch.stack([x[:, 0] + 0.3, x[:, 1], torch.log(0.55 - x[:, 1]) * 0.0 - 9.0], dim=1)

    x = np.full((3, DIMENSION), 0.5)
    with pytest.raises(DivergedError, match="not finite"):
        stcore.evaluate(Breaks().double(), (x, np.zeros(3, int)), ["fmn"], epsilon=0.1, norm="linf", audit=False)


def test_lengths_in_l0_count_the_changed_components():
    offsets = np.array([[[0.0, 1e-9], [-2.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    np.testing.assert_array_equal(lengths(offsets, "l0"), [2, 0])


@pytest.mark.parametrize(
    ("attack", "wrong"),
    [
        (DDN, {"norm": "linf"}),
        (DDN, {"gamma": 1.5}),
        (DDN, {"init_norm": 0.0}),
        (FMN, {"steps": 0}),
        (FMN, {"epsilon": -1.0}),
        (FMN, {"last_gamma": -0.1}),
        (FMN, {"step_size": -1.0}),
        (SigmaZero, {"norm": "l1"}),
        (SigmaZero, {"sigma": 0.0}),
        (SigmaZero, {"threshold": 2.0}),
        (SigmaZero, {"bounds": (1.0, 0.0)}),
    ],
    ids=str,
)
def test_settings_are_checked(attack, wrong):
    with pytest.raises(UsageError, match=f"{next(iter(wrong))}.*: expected"):
        attack(**wrong)
