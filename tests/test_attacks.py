"""Projected gradient attacks: the paper's settings line by line, against numpy on a linear softmax."""

import dataclasses
import re
from itertools import cycle

import numpy as np
import pytest
from harness import NAMES, load, problem, worst
from hypothesis import given, settings
from hypothesis import strategies as st

import stcore
from stcore import CollaborativeConfig, TradesConfig
from stcore.attacks import FGSM, PGD, PRESETS, preset
from stcore.attacks.apgd import APGD
from stcore.attacks.apgd_l1 import APGDL1
from stcore.attacks.ascent_losses import ASCENT_LOSSES
from stcore.attacks.deepfool import DeepFool
from stcore.attacks.fab import FAB
from stcore.attacks.square import Square
from stcore.autoattack import AutoAttack
from stcore.base.seeding import Stream, sample_uniform
from stcore.errors import UsageError
from stcore.evaluation.attack_names import attack_of
from stcore.protocols import Mode
from stcore.testing import check_attack

DIMENSION, CLASSES = 12, 4


class Linear:
    """Logits x·W + b of flat images under running statistics; keeps every batch that was forwarded."""

    def __init__(self, backend, scale=1.0):
        rng = np.random.default_rng(5)
        self.w, self.b = scale * rng.normal(size=(DIMENSION, CLASSES)), rng.normal(size=CLASSES)
        self.backend, self.ops, self.forwarded = backend, backend.ops, []

    def logits(self, x, mode, *, dropout=False):
        assert (mode, dropout) == (Mode.EVAL, False)
        self.forwarded.append(x)
        if self.backend.name == "strict":  # whose tensors know no product
            return self.backend.tensor(self.host(self.backend.array(x)))
        return x @ self.backend.tensor(self.w) + self.backend.tensor(self.b)

    def host(self, x):
        return x @ self.w + self.b


def flat_problem(batch=40, restarts=1, seed=0):
    """Images (B, 12), of which some pixels lie at the ends of the range, labels mostly right, unit noise."""
    rng = np.random.default_rng(seed)
    x = np.clip(rng.uniform(-0.2, 1.2, (batch, DIMENSION)), 0, 1)
    net = Linear(load("strict"))
    y = net.host(x).argmax(1)
    y[::8] = (y[::8] + 1) % CLASSES
    return x, y, rng.uniform(-1, 1, (restarts, batch, DIMENSION))


def found(backend, attack, x, y, noise=()):
    """The adversarial examples and all that was forwarded, as arrays."""
    net = Linear(backend)
    examples = attack.find(net, backend.tensor(x), backend.tensor(y), tuple(map(backend.tensor, noise)))
    return backend.array(examples), [backend.array(one) for one in net.forwarded]


# The rewrite


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def gradient_by_hand(net, loss, point, y, natural):
    z, rows = net.host(point), np.arange(len(y))
    label = np.eye(CLASSES)[y]
    if loss == "margin":
        runner_up = np.where(label > 0, -np.inf, z).argmax(1)  # of this step
        return (np.eye(CLASSES)[runner_up] - label) @ net.w.T
    if loss == "kl":
        return (softmax(z) - softmax(net.host(natural))) @ net.w.T
    if loss == "probability_margin":
        p, best = softmax(z), np.where(label > 0, -np.inf, z).argmax(1)
        of = [p[rows, c][:, None] * (np.eye(CLASSES)[c] - p) for c in (best, y)]
        return (of[0] - of[1]) @ net.w.T
    assert loss in ("cross_entropy", "collaborative")
    assert len(rows) == len(point)
    return (1 if loss == "cross_entropy" else -1) * (softmax(z) - label) @ net.w.T


def iterates_by_hand(net, x, y, start, *, epsilon, alpha, steps, loss, momentum=0.0, norm="linf"):
    """The points after each step."""
    point, g, iterates = start, np.zeros_like(x), []
    for _ in range(steps):
        gradient = gradient_by_hand(net, loss, point, y, x)
        g = momentum * g + gradient / np.abs(gradient).sum(1, keepdims=True) if momentum else gradient
        if norm == "linf":
            point = np.clip(point + alpha * np.sign(g), x - epsilon, x + epsilon)
        else:
            offset = point + alpha * g / np.linalg.norm(g, axis=1, keepdims=True) - x
            point = x + offset * np.minimum(1, epsilon / np.linalg.norm(offset, axis=1, keepdims=True))
        point = np.clip(point, 0, 1)
        iterates.append(point)
    return iterates


# The paper's settings

ANY = 8 / 255, 0.1
ROWS = {
    # name: loss, uniform starts (0: from x), α at each of the two ε, steps, every iterate counts
    "fgsm": ("cross_entropy", 0, (8 / 255, 0.1), 1, False),
    "pgd20": ("cross_entropy", 1, (2 / 255, 0.025), 20, False),
    "pgd100": ("cross_entropy", 1, (2 / 255, 0.025), 100, False),
    "cw100": ("margin", 1, (2 / 255, 0.025), 100, False),
    "pgd_trades": ("cross_entropy", 1, (0.003, 0.003), 20, False),
    "pgd_rst": ("cross_entropy", 5, (0.01, 0.01), 40, True),
    "pgd_rst_monitor": ("cross_entropy", 0, (0.007, 0.007), 20, True),
    "ifgsm": ("cross_entropy", 0, (0.8 / 255, 0.01), 10, False),
    "mifgsm": ("cross_entropy", 0, (0.8 / 255, 0.01), 10, False),
    "collaborative": ("collaborative", 0, (1 / 255, 1 / 255), 100, False),
}
OWN_RADIUS = ("pgd_trades", "pgd_rst", "pgd_rst_monitor")


def test_every_preset_has_its_row():
    assert set(PRESETS) == {*ROWS, "deepfool", "apgd20"}  # which have test files of their own
    assert PGD() == preset("pgd20", 8 / 255)
    assert preset("fgsm", 0.1) == FGSM(0.1)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("name", ROWS)
def test_a_preset_does_what_its_row_says(every_backend, name, which):
    """Where gradients are taken: unclipped starts, every step; what comes back; how many forwards."""
    loss, restarts, alphas, steps, worst_counts = ROWS[name]
    epsilon, alpha = ANY[which], alphas[which]
    radius = 0.031 if name in OWN_RADIUS else epsilon
    momentum = 1.0 if name == "mifgsm" else 0.0
    attack = preset(name, epsilon)
    assert (attack.epsilon, attack.noise_laws) == (radius, ("uniform",) * restarts)

    x, y, noise = flat_problem(4 if every_backend.name == "strict" else 40, restarts)
    net = Linear(every_backend)
    starts = [x + radius * one for one in noise] or [x]
    searches = [
        [
            start,
            *iterates_by_hand(
                net, x, y, start, epsilon=radius, alpha=alpha, steps=steps, loss=loss, momentum=momentum
            ),
        ]
        for start in starts
    ]
    if restarts:
        assert starts[0].min() < 0
        assert starts[0].max() > 1
    examples, forwarded = found(every_backend, attack, x, y, noise)

    if every_backend.name != "strict":  # which forwards for its gradients too
        expected = [point for search in searches for point in search][:-1] if worst_counts else searches[0][:-1]
        assert len(forwarded) == len(expected) == max(restarts, 1) * (steps + 1) - 1
        for one, other in zip(forwarded, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-12)

    if not worst_counts:
        np.testing.assert_allclose(examples, searches[0][-1], atol=1e-12)
        return
    wrong = np.array([[net.host(p).argmax(1) != y for p in search[1:]] for search in searches]).any((0, 1))
    assert 0 < wrong.sum() < len(wrong)
    np.testing.assert_array_equal(net.host(examples).argmax(1) != y, wrong)
    np.testing.assert_allclose(examples[~wrong], searches[-1][-1][~wrong], atol=1e-12)


@pytest.mark.parametrize("name", ["fgsm", "pgd20", "pgd100", "cw100", "ifgsm", "mifgsm"])
def test_a_preset_whose_lengths_are_shares_of_the_radius_is_there_in_l2(name):
    flat, other = preset(name, 0.5), preset(name, 0.5, "l2")
    assert other == dataclasses.replace(flat, norm="l2")


@pytest.mark.parametrize("name", [*OWN_RADIUS, "collaborative"])
def test_a_preset_with_lengths_of_its_own_is_one_of_linf(name):
    with pytest.raises(UsageError, match=f"norm: expected linf with the attack {name}, .*; received 'l2'"):
        preset(name, 0.5, "l2")


def test_an_unknown_name_is_told():
    with pytest.raises(UsageError, match=r"attack: expected one of fgsm, .*; received 'cw'"):
        preset("cw", 0.1)


# Momentum


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("momentum", [0.5, 1.0])
def test_steps_with_momentum_are_those_of_dong_et_al(every_backend, norm, momentum):
    x, y, noise = flat_problem(batch=12)
    asked = PGD(0.3, 0.1, 6, loss="kl", momentum=momentum, norm=norm)
    told = {"epsilon": 0.3, "alpha": 0.1, "steps": 6, "loss": "kl", "norm": norm}
    net, start = Linear(every_backend), x + 0.3 * noise[0]
    examples, _ = found(every_backend, asked, x, y, noise)
    by_hand = iterates_by_hand(net, x, y, start, momentum=momentum, **told)[-1]
    np.testing.assert_allclose(examples, by_hand, atol=1e-7 if every_backend.name == "strict" else 1e-12)
    assert np.abs(by_hand - iterates_by_hand(net, x, y, start, **told)[-1]).max() > 0.01


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_probability_margin_is_that_of_the_softmax(every_backend, norm):
    x, y, noise = flat_problem(4 if every_backend.name == "strict" else 40)
    attack = PGD(0.1, 0.02, 4, norm=norm, loss="probability_margin")
    ours, _ = found(every_backend, attack, x, y, noise)
    told = {"epsilon": 0.1, "alpha": 0.02, "steps": 4, "loss": "probability_margin", "norm": norm}
    by_hand = iterates_by_hand(Linear(every_backend), x, y, x + 0.1 * noise[0], **told)
    np.testing.assert_allclose(ours, by_hand[-1], rtol=0, atol=1e-7 if every_backend.name == "strict" else 1e-9)


class Turns(Linear):
    """Answers as one linear softmax, then as the next."""

    def __init__(self, backend, weights):
        super().__init__(backend)
        self.turns = cycle(weights)

    def logits(self, x, mode, *, dropout=False):
        self.w = next(self.turns)
        return super().logits(x, mode, dropout=dropout)


def test_of_a_random_network_the_gradients_are_averaged():
    """Against numpy: three forwards an iterate, whose gradients' mean is the direction."""
    backend, (x, y, noise) = load("torch"), flat_problem()
    weights = [
        Linear(backend).w + shift for shift in np.random.default_rng(7).normal(size=(3, DIMENSION, CLASSES))
    ]
    net, attack = Turns(backend, weights), PGD(0.1, 0.02, 4, samples=3)
    ours = backend.array(attack.find(net, *map(backend.tensor, (x, y)), (backend.tensor(noise[0]),)))
    assert len(net.forwarded) == 4 * 3
    point, label = x + 0.1 * noise[0], np.eye(CLASSES)[y]
    for _ in range(4):
        gradients = [(softmax(point @ w + net.b) - label) @ w.T for w in weights]
        assert (np.sign(sum(gradients)) != np.sign(gradients[0])).any()
        point = np.clip(np.clip(point + 0.02 * np.sign(sum(gradients)), x - 0.1, x + 0.1), 0, 1)
    np.testing.assert_allclose(ours, point, atol=1e-12)


@pytest.mark.parametrize(("samples", "wrong", "expected"), [(3, 2, "first"), (3, 1, "last"), (2, 1, "last")])
def test_an_iterate_is_wrong_if_most_of_its_forwards_are(backend, samples, wrong, expected):
    """`worst` returns the first wrong iterate; the network is right or wrong by turns, whatever the pixels."""
    w = Linear(backend).w
    biases = cycle([np.eye(CLASSES)[1 if k < wrong else 0] for k in range(samples)])

    class Answers(Turns):
        def logits(self, x, mode, *, dropout=False):
            self.b = next(biases)
            return super().logits(x, mode, dropout=dropout) + 1e-6 * (x @ backend.tensor(w))

    net = Answers(backend, [w * 0.0])
    x = np.full((1, DIMENSION), 0.5)
    given = backend.tensor(x), backend.tensor(np.array([0])), (backend.tensor(np.zeros_like(x)),)
    attack = PGD(0.3, 0.1, 3, iterate="worst", samples=samples)
    moved = np.abs(backend.array(attack.find(net, *given)) - x).max()
    assert moved == pytest.approx(0.1 if expected == "first" else 0.3)


def test_names_of_attacks_on_random_networks():
    assert preset("pgd20-rand", 0.1) == dataclasses.replace(preset("pgd20", 0.1), samples=20)
    assert attack_of("cw100-rand", 0.1, "l2") == dataclasses.replace(preset("cw100", 0.1, "l2"), samples=20)
    joined = attack_of("pma-rand+apgd-ce-rand+square", 0.1)
    assert joined == AutoAttack(0.1, version="custom", attacks=("pma-rand", "apgd-ce-rand", "square"))
    assert [(s.name, s.samples, getattr(s.attack, "samples", None)) for s in joined.stages(10)] == [
        ("pma-rand", 20, 20),
        ("pma-rand", 20, 20),
        ("apgd-ce-rand", 20, 20),
        ("square", 1, None),
    ]
    assert attack_of("autoattack-rand", 0.1) == AutoAttack(0.1, version="rand")
    with pytest.raises(
        UsageError, match="attack: expected one that averages gradients before -rand; received 'deepf"
    ):
        attack_of("deepfool-rand", 0.1)
    for name in ("square-rand", "pgd21-rand", "malt", "-rand"):
        with pytest.raises(UsageError, match="attacks: expected one of fgsm"):
            attack_of(name, 0.1)


def test_a_gradient_of_zero_moves_nothing(every_backend):
    net = Linear(every_backend, scale=0.0)
    x, y, _ = flat_problem(batch=3)
    for norm in ("linf", "l2"):
        attack = PGD(0.3, 0.1, 3, "natural", momentum=1.0, norm=norm)
        examples = attack.find(net, every_backend.tensor(x), every_backend.tensor(y), ())
        np.testing.assert_array_equal(every_backend.array(examples), x)


# The worst iterate


class Bowl:
    """Of two pixels, logits ((x₁ − ½)², 0.01): class 0 but within 0.1 of the middle, which a step can pass."""

    def __init__(self, backend, batch):
        self.ops = backend.ops
        self.first = backend.tensor(np.tile([1.0, 0.0], (batch, 1)))
        self.offset = backend.tensor(np.tile([0.0, 0.01], (batch, 1)))

    def logits(self, x, mode, *, dropout=False):
        return (x - 0.5) * (x - 0.5) * self.first + self.offset


# From 0.68 by steps of 0.15: right, then 0.53 (wrong), 0.38 (right), 0.53 … ; from 0.95: right at 0.80 and 0.65.
# From 0.72: 0.57, 0.42, 0.57, all wrong.
# From 0.55, where the natural image is wrong, one step of 0.3 goes to 0.25 (right).
BOWL = {
    "an iterate on the way is wrong": (PGD(0.3, 0.15, 2, "natural", iterate="worst"), [0.68, 0.95], [0.53, 0.65]),
    "the last is right": (PGD(0.3, 0.15, 2, "natural"), [0.68, 0.95], [0.38, 0.65]),
    "the last alone is wrong": (PGD(0.3, 0.15, 1, "natural", iterate="worst"), [0.68], [0.53]),
    "the first of several": (PGD(0.4, 0.15, 3, "natural", iterate="worst"), [0.72, 0.68], [0.57, 0.53]),
    "the image is no iterate": (PGD(0.3, 0.3, 1, "natural", iterate="worst"), [0.55], [0.25]),
}


@pytest.mark.parametrize("case", BOWL)
def test_the_worst_iterate_is_the_first_wrong_one(every_backend, case):
    attack, starts, expected = BOWL[case]
    examples = in_bowl(every_backend, attack, starts, ())
    np.testing.assert_allclose(examples, expected, atol=1e-12)


PIXELS = {"bounds": (0.0, 1.0)}
DEFAULTS = {  # the published ones
    PGD: PIXELS
    | {"epsilon": 8 / 255, "step_size": 2 / 255, "steps": 20, "norm": "linf", "loss": "cross_entropy"}
    | {"init": "uniform", "noise_std": 1e-3, "restarts": 1, "iterate": "last", "momentum": 0.0, "samples": 1},
    APGD: PIXELS
    | {"epsilon": 8 / 255, "steps": 100, "norm": "linf", "loss": "cross_entropy", "rho": 0.75, "samples": 1},
    APGDL1: PIXELS | {"epsilon": 12.0, "loss": "cross_entropy", "samples": 1},
    FAB: PIXELS
    | {"epsilon": 8 / 255, "steps": 100, "norm": "linf", "targeted": True, "classes": 10, "random_start": False}
    | {"alpha_max": 0.1, "eta": 1.05, "beta": 0.9},
    Square: PIXELS
    | {"epsilon": 8 / 255, "norm": "linf", "queries": 5000, "p_init": 0.8, "rescale_schedule": False},
    DeepFool: PIXELS | {"steps": 50, "overshoot": 0.02, "norm": "l2", "epsilon": None, "classes": 10},
}


@pytest.mark.parametrize("attack", DEFAULTS, ids=lambda attack: attack.__name__)
def test_the_defaults_of_an_attack(attack):
    fields = {field.name: field.default for field in dataclasses.fields(attack)}
    assert {n: d for n, d in fields.items() if d is not dataclasses.MISSING} == DEFAULTS[attack]


def test_restarts_need_a_random_start():
    for init in ("gaussian", "uniform"):
        assert PGD(0.1, 0.02, 5, init=init, restarts=2).noise_laws
    assert PGD(0.1, 0.02, 5, init="natural", restarts=1).noise_laws == ()
    with pytest.raises(UsageError, match="restarts: with init = natural expected 1"):
        PGD(0.1, 0.02, 5, init="natural", restarts=2)


@pytest.mark.parametrize(
    ("iterate", "steps", "noise", "expected"),
    [
        # starts at 0.68 + 0.3·noise; 0.53 is wrong
        ("last", 1, (-0.5, 0.0), 0.53),  # 0.53 → 0.38 is right, so the second's 0.53 counts
        ("last", 1, (0.0, -0.5), 0.53),  # the first's 0.53 counts, not the second's last, 0.38
        ("last", 1, (-0.5, -0.5), 0.38),  # all are right: the last
        ("last", 2, (0.0, 1.0), 0.68),  # 0.53, 0.38 and 0.83, 0.68: the last of either is right
        ("worst", 2, (0.0, 1.0), 0.53),
        ("worst", 2, (1.0, 0.0), 0.53),
        ("worst", 3, (1.0, 0.0), 0.53),
        ("worst", 1, (-0.5, -0.55), 0.365),  # the starts, 0.53 and 0.515, are no iterates
    ],
)
def test_of_several_restarts_one_with_an_error_counts(every_backend, iterate, steps, noise, expected):
    attack = PGD(0.5, 0.15, steps, restarts=2, iterate=iterate)
    given = tuple(np.array([[0.6 * one, 0.0]]) for one in noise)  # 0.3 of 0.5
    np.testing.assert_allclose(in_bowl(every_backend, attack, [0.68], given), [expected], atol=1e-12)


def in_bowl(backend, attack, first, noise):
    x = np.stack([np.array(first), np.full(len(first), 0.5)], axis=1)
    net, y = Bowl(backend, len(x)), backend.tensor(np.zeros(len(x), np.int64))
    return backend.array(attack.find(net, backend.tensor(x), y, tuple(map(backend.tensor, noise))))[:, 0]


def test_robust_is_what_is_right_at_every_step_of_every_restart(backend):
    """Through evaluation, compiled where the framework can; against searches of 1, 2, 3 steps for each restart."""
    given, model = problem(batch=48), backend.build("tiny", seed=3)
    pixels, classifier = backend.images(given.x), backend.classifier(model)

    def predicted(x):
        return backend.array(classifier.logits(x, Mode.EVAL)).argmax(1)

    y = predicted(pixels)
    right, last_is_wrong = np.ones(len(y), bool), np.zeros(len(y), bool)
    for draw in range(2):
        start = sample_uniform(4, Stream.ATTACK, np.arange(48), given.x.shape[1:], draw=draw)
        for steps in (1, 2, 3):
            attack = PGD(0.2, 0.1, steps)
            is_right = predicted(attack(model, pixels, backend.tensor(y), noise=(backend.images(start),))) == y
            right &= is_right
        last_is_wrong |= ~is_right
    assert 0 < right.sum() < len(y)

    attacks = {how: PGD(0.2, 0.1, 3, restarts=2, iterate=how) for how in ("worst", "last")}
    scores = stcore.evaluate(model, (backend.array(pixels), y), attacks, seed=4, batch_size=20)
    assert scores["worst"].correct == right.sum()
    assert scores["last"].correct == (~last_is_wrong).sum()


# Losses


def test_collaborative_examples_lower_the_loss(backend):
    batch, model = backend.batch(problem()), backend.build()
    classifier = backend.classifier(model)

    def loss(x):
        z = backend.array(classifier.logits(x, Mode.EVAL))
        return -np.log(softmax(z))[np.arange(len(z)), backend.array(batch.y)]

    examples = preset("collaborative", 8 / 255)(model, batch.x, batch.y)
    assert (loss(examples) < loss(batch.x) - 1e-3).all()
    assert (loss(FGSM()(model, batch.x, batch.y)) > loss(batch.x)).all()


def test_the_searches_of_trades_and_of_collaborative_training_are_members_of_the_family(every_backend):
    side = 4 if every_backend.name == "strict" else 8
    batch = every_backend.batch(problem(3, side))
    network = every_backend.classifier(every_backend.build("tiny-smooth", side=side))
    noise = batch.noise[:1]
    for method, loss in ((TradesConfig, "kl"), (CollaborativeConfig, "collaborative")):
        (theirs,) = method(steps=3).find(network, batch.x, batch.y, noise)
        ours = PGD(steps=3, init="gaussian", loss=loss).find(network, batch.x, batch.y, noise)
        np.testing.assert_array_equal(every_backend.array(ours), every_backend.array(theirs))
        assert np.abs(every_backend.array(ours - batch.x)).max() > 1 / 255


def test_the_kl_search_forwards_the_image_once(backend):
    x, y, noise = flat_problem(restarts=2)
    attack = PGD(0.1, 0.02, 5, loss="kl", restarts=2)
    _, forwarded = found(backend, attack, x, y, noise)
    assert len(forwarded) == 1 + 5 + 1 + 5
    np.testing.assert_array_equal(forwarded[0], x)
    by_hand = iterates_by_hand(
        Linear(backend), x, y, x + 0.1 * noise[0], epsilon=0.1, alpha=0.02, steps=5, loss="kl"
    )
    np.testing.assert_allclose(forwarded[6], by_hand[-1], atol=1e-12)


SETTINGS = {
    "dlr": {"loss": "dlr"},
    "margin": {"loss": "margin", "norm": "l2"},
    "kl": {"loss": "kl", "norm": "l2", "momentum": 0.9},
    "collaborative": {"loss": "collaborative", "init": "gaussian", "noise_std": 0.05},
    "momentum": {"momentum": 1.0, "init": "natural"},
    "worst": {"restarts": 2, "iterate": "worst"},
    "worst in l2": {"restarts": 2, "iterate": "worst", "norm": "l2", "loss": "dlr"},
}


@pytest.mark.parametrize("told", SETTINGS.values(), ids=SETTINGS)
def test_every_backend_finds_the_same(told):
    given, attack = problem(3, 4, law="uniform"), PGD(0.1, 0.04, 3, **told)
    results = []
    for backend in map(load, (*NAMES, "strict")):
        batch, network = backend.batch(given), backend.classifier(backend.build(side=4))
        noise = batch.noise[: len(attack.noise_laws)]
        results.append(backend.nhwc(attack.find(network, batch.x, batch.y, noise)))
    assert np.abs(results[0] - given.x).max() > 0.02
    assert worst(results[1], results[0]) < 1e-9
    assert worst(results[2], results[0]) < 1e-8  # whose gradients are finite differences


# Any settings


@settings(max_examples=40, deadline=None)
@given(
    told=st.fixed_dictionaries(
        {
            "epsilon": st.floats(0, 0.5),
            "step_size": st.floats(0, 1),
            "steps": st.integers(1, 5),
            "norm": st.sampled_from(["linf", "l2"]),
            "loss": st.sampled_from([*ASCENT_LOSSES]),
            "init": st.sampled_from(["uniform", "gaussian", "natural"]),
            "noise_std": st.floats(0, 2),
            "restarts": st.integers(1, 3),
            "iterate": st.sampled_from(["last", "worst"]),
            "momentum": st.floats(0, 2),
            "samples": st.integers(1, 2),
        }
    ),
    seed=st.integers(0, 100),
)
def test_examples_lie_in_the_ball_and_in_range(backend, told, seed):
    if told["loss"] == "collaborative":
        told |= {"restarts": 1, "iterate": "last"}
    if told["init"] == "natural":
        told |= {"restarts": 1, "loss": "margin"}
    attack = PGD(**told)
    x, y, noise = flat_problem(5, len(attack.noise_laws), seed)
    moved = found(backend, attack, x, y, noise)[0] - x
    size = np.abs(moved) if told["norm"] == "linf" else np.linalg.norm(moved, axis=1)
    assert size.max() <= told["epsilon"] + 1e-12
    assert (moved + x).min() >= -1e-15
    assert (moved + x).max() <= 1 + 1e-15


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (
            {"loss": "hinge"},
            "loss: expected one of cross_entropy, dlr, margin, probability_margin, kl, collaborative; received",
        ),
        ({"iterate": "best"}, "iterate: expected one of last, worst; received 'best'"),
        ({"restarts": 0}, "restarts: expected a whole number of at least 1; received 0"),
        ({"momentum": -0.5}, "momentum: expected a number of at least 0; received -0.5"),
        ({"iterate": "worst", "steps": 0}, "steps (iterate = worst): expected a whole number of at least 1"),
        ({"loss": "kl", "init": "natural"}, "init: with loss = kl expected uniform or gaussian"),
        (
            {"restarts": 2, "init": "natural"},
            "restarts: with init = natural expected 1, as all restarts are equal; received 2",
        ),
        (
            {"loss": "collaborative", "restarts": 2},
            "loss: with restarts or iterate = worst expected one that finds",
        ),
        (
            {"loss": "collaborative", "iterate": "worst"},
            "loss: with restarts or iterate = worst expected one that",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(told, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        PGD(**told)


@pytest.mark.parametrize(
    ("attack", "passes"),
    [(FGSM(0.1), 1), (PGD(0.1, 0.05, 2, momentum=1.0), 2), (PGD(0.5, 0.2, 2, norm="l2", restarts=2), 5)],
)
def test_an_attack_passes_the_contract_of_plug_ins(attack, passes):
    """A restart is judged by one forward more."""
    load("torch")
    check_attack(attack, forwards=passes, backwards=passes - (passes == 5))
