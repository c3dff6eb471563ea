"""All training methods in the shared suite: the backends agree, and each method is the published one."""

from dataclasses import asdict, fields, replace
from itertools import pairwise

import numpy as np
import pytest
from harness import assert_close, assert_same, built, load, problem, worst
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import ROWS, SHORT, found, noise, to_arrays

import stcore
from stcore import (
    AdversarialConfig,
    BatConfig,
    CollaborativeConfig,
    FastSqueezeConfig,
    GairatConfig,
    GairRstConfig,
    MartConfig,
    SingleStepConfig,
    SqueezeConfig,
    StandardConfig,
    TradesConfig,
)
from stcore.core.losses import margin
from stcore.errors import UsageError
from stcore.methods import METHODS, make_objective
from stcore.protocols import Mode
from stcore.testing import check_method
from stcore.testing import methods as contract
from stcore.testing.watch import Watch

every_row = pytest.mark.parametrize("objective", ROWS.values(), ids=ROWS)
every_short_row = pytest.mark.parametrize("objective", SHORT.values(), ids=SHORT)


@pytest.fixture(scope="module")
def twins():
    return load("torch"), load("keras")


# --- Torch against Keras, float64 ---


@every_row
def test_both_backends_find_the_same_examples(twins, objective):
    contract.check_same_examples(*twins, objective, objective.phase(1))


@every_short_row
def test_both_backends_have_the_same_losses_and_weight_gradients(twins, objective):
    contract.check_same_gradients(*twins, objective, objective.phase(1), "resnet8")


def one_step(backend, learner, objective, seed=0, drawn=None, perturbation=None):
    """A step of the method's first epoch, on the problem and the noise of this seed."""
    data = problem(seed=seed)
    batch, drawn = backend.batch(data), drawn or noise(objective, data.x.shape, seed)
    native, phase = tuple(backend.images(one) for one in drawn), objective.phase(1)
    stcore.train_step(learner, objective, batch.x, batch.y, noise=native, phase=phase, perturbation=perturbation)


def trained(backend, objective, net="tiny", steps=3, perturbation=None):
    learner = backend.learner(built(backend, net), lr=0.1, momentum=0.9, weight_decay=5e-4)
    for step in range(steps):
        one_step(backend, learner, objective, step, perturbation=perturbation)
    return learner.weights()


@every_short_row
def test_both_backends_make_the_same_two_training_steps(twins, objective):
    contract.check_same_steps(*twins, objective)


@every_short_row
def test_the_protocol_alone_suffices(backend, objective):
    """Examples by finite differences in every pixel, then losses, metrics and statistics."""
    contract.check_protocol_suffices(backend, objective, objective.phase(1))


@pytest.mark.parametrize("name", ["standard", "st", "at", "gairat", "n-fgsm"])
def test_a_method_passes_the_contract_of_plug_ins(twins, name):
    """Which is made of the same pieces, in every phase; N-FGSM means to leave the ball."""
    check_method(make_objective(name, {} if name == "standard" else {"steps": 1}), in_ball=name != "n-fgsm")


# --- The passes of a step: how many, in which modes and order ---


OUTER = {  # x natural, a and b the examples, m between; all of them in training mode
    "standard": "x",
    "at": "a",
    "at2": "ab",
    "trades": "xax",
    "trades sharing natural": "xa",
    "trades adversarial first": "axx",
    "trades as in rst": "ax",
    "trades2": "xabx",
    "mart": "xa",
    "mart2": "xab",
    "collaborative": "xa",
    "gairat": "a",
    "gair-rst": "abx",
    "gair-rst before its weights": "ax",
    "bat": "xma",
    "bat in three strides up the kl": "xmma",
    "fast-st": "ba",
    "n-fgsm": "a",
    "n-fgsm in two steps": "a",
    "fgsm": "a",
    "fgsm-rs": "a",
    "fgsm-consistency": "ab",
}


@pytest.mark.parametrize("name", OUTER)
def test_the_outer_forwards_and_their_order(backend, name):
    objective, data = SHORT[name], problem()
    batch, model = backend.batch(data), built(backend)
    examples = found(backend, model, objective, data)
    watch = Watch(backend.classifier(model))
    objective.losses(watch, batch.x, batch.y, examples, objective.phase(1))
    known = [batch.x] + [e for e in examples or () if len(e.shape) == 4]
    letters = ["xab"[[e is x for e in known].index(True)] if any(e is x for e in known) else "m"
               for _, _, x in watch.forwards]  # fmt: skip
    assert "".join(letters) == OUTER[name]
    assert {(mode, dropout) for mode, dropout, _ in watch.forwards} == {(Mode.TRAIN, True)}


@every_short_row
def test_a_step_costs_the_passes_it_says(backend, objective):
    data = problem()
    batch, phase = backend.batch(data), objective.phase(1)
    watch = Watch(backend.classifier(built(backend)))
    drawn = tuple(backend.images(one) for one in noise(objective, data.x.shape))
    examples = objective.find(watch, batch.x, batch.y, drawn, phase)
    searching = len(watch.forwards)
    usual = "batch" if isinstance(objective, SqueezeConfig) else "eval"
    assert {mode.value for mode, _, _ in watch.forwards} <= {getattr(objective, "search_mode", usual)}
    objective.losses(watch, batch.x, batch.y, examples, phase)
    if isinstance(objective, GairRstConfig) and not phase:
        return  # its passes are those of the dearer phase
    assert objective.passes == (len(watch.forwards), watch.backwards, len(watch.forwards) - searching)


def test_the_units_of_a_step_are_the_published_arithmetic():
    passes = {name: make_objective(name, {}).passes for name in METHODS}
    units = {name: each.units for name, each in passes.items()}
    assert units["at"] == 23
    assert units["mart"] == units["collaborative"] == 26
    assert units["trades"] == 30  # 39 as released, which forwards the natural image anew in every step
    assert units["st"] == 60  # 70 likewise
    assert (units["n-fgsm"], units["fgsm-rs"], units["fgsm-consistency"], units["fast-st"]) == (5, 5, 8, 8)
    assert passes["trades"].outer_units == passes["st"].outer_units == 9  # what AWP adds


@pytest.mark.parametrize("name", OUTER)
def test_the_running_statistics_are_moved_by_the_outer_forwards_in_that_order(backend, name):
    objective, data = SHORT[name], problem()
    model, expected = built(backend), backend.build("tiny")
    writing = getattr(objective, "search_mode", "eval") == "train"  # then the search moves another's
    batch, examples = (
        backend.batch(data),
        found(backend, backend.build("tiny") if writing else model, objective, data),
    )
    assert_same(backend.statistics(model), backend.statistics(expected))  # the search moves none
    watch = Watch(backend.classifier(model))
    objective.losses(watch, batch.x, batch.y, examples, objective.phase(1))
    for _, _, x in watch.forwards:
        backend.classifier(expected).logits(x, Mode.TRAIN)
    assert_same(backend.statistics(model), backend.statistics(expected))


# --- Oracles: numbers from elsewhere (logits as pixels of a network that changes nothing) ---

U = np.array([[2.0, 0, -1], [0.3, 0.1, -0.4]])
L = np.array([[0, 1, 0.5], [1, -1, 0.2]])
Y = np.array([0, 2])


class Identity:
    """A network whose logits are its pixels."""

    def __init__(self, ops):
        self.ops = ops

    def logits(self, x, mode, *, dropout=False):
        return x


def on_logits(backend, objective, *examples, phase=0):
    """Mean loss and metrics with natural logits U."""
    native = tuple(map(backend.tensor, examples))
    result = objective.losses(Identity(backend.ops), backend.tensor(U), backend.tensor(Y), native, phase)
    return {"loss": backend.array(result.losses).mean()} | {
        name: backend.array(metric).mean() for name, metric in result.metrics.items()
    }


def test_mart_has_the_published_value(every_backend):
    result = on_logits(every_backend, MartConfig(beta=5.0), L)
    assert result["loss"] == pytest.approx(3.267835, abs=1e-6)
    assert result["divergence"] == pytest.approx(0.189222, abs=1e-6)
    assert result["natural_loss"] == pytest.approx(0.854696, abs=1e-6)
    assert result["adversarial_loss"] == pytest.approx(1.470321, abs=1e-6)
    assert result["loss"] - 5 * result["divergence"] == pytest.approx(2.321726, abs=1e-6)


def test_trades_has_the_published_value(every_backend):
    result = on_logits(every_backend, TradesConfig(beta=6.0), L)
    assert result["divergence"] == pytest.approx(0.649792, abs=1e-6)
    assert result["loss"] == pytest.approx(0.854696 + 6 * 0.649792, abs=1e-5)
    assert result["collaborative_share"] == 0.5  # CE falls from U to L in the second row alone


@pytest.mark.parametrize(
    ("wrt", "expected"),
    [
        ("adversarial", [[-0.328736, 0.196143, 0.132593], [0.099571, -0.134106, 0.034535]]),
        ("natural", [[0.206570, -0.143337, -0.063233], [-0.142088, 0.201922, -0.059835]]),
    ],
)
def test_trades_holds_neither_side_constant(every_backend, wrt, expected):
    ops, config = every_backend.ops, TradesConfig()

    def mean_gap(natural, adversarial):
        return ops.mean(config.gap(ops, natural, adversarial)) + ops.sum_all(natural - natural)

    value, pullback = ops.vjp(mean_gap, every_backend.tensor(U), every_backend.tensor(L))
    both = [every_backend.array(g) for g in pullback(ops.ones_like(value))]
    np.testing.assert_allclose(both[wrt == "adversarial"], expected, atol=1e-6)


def test_the_margin_has_the_published_value(every_backend):
    values = [margin(every_backend.ops, every_backend.tensor(z), every_backend.tensor(Y)) for z in (U, L)]
    np.testing.assert_allclose([every_backend.array(v) for v in values], [[-2.0, 0.7], [1.0, 0.8]], atol=1e-12)


KAPPA = np.arange(11.0)
TANH = [0.999665, 0.997527, 0.982014, 0.880797, 0.5, 0.119203, 0.017986, 0.002473, 0.000335, 0.000045, 0.000006]


@pytest.mark.parametrize(
    ("weighting", "raw"),
    [
        ("tanh", TANH),
        ("sigmoid", 1 / (1 + np.exp(1 - 5 * (1 - 2 * KAPPA / 10)))),
        ("discrete", (11 - KAPPA) / 11),
    ],
)
def test_gairat_has_the_published_weights(every_backend, weighting, raw):
    weights = GairatConfig(weighting=weighting).weights(every_backend.ops, every_backend.tensor(KAPPA))
    np.testing.assert_allclose(every_backend.array(weights), np.array(raw) / np.mean(raw), atol=3e-6)


def test_gairats_weights_depend_on_the_share_of_the_iterates():
    """K = 4: the argument is λ + 5·(1 − 2κ/K), whatever K is."""
    ops, kappa = load("torch").ops, np.arange(5.0)
    argument = -1 + 5 * (1 - 2 * kappa / 4)
    raws = {"tanh": 1 + np.tanh(argument), "sigmoid": 1 / (1 + np.exp(-argument)), "discrete": 5 - kappa}
    for weighting, raw in raws.items():
        weights = GairatConfig(steps=4, weighting=weighting).weights(ops, load("torch").tensor(kappa))
        np.testing.assert_allclose(weights, raw / raw.mean(), rtol=1e-10)


def test_gair_rsts_weights_compare_kappa_with_half_the_steps():
    """K = 4: ω = ½·(1 + tanh(λ + 2 − κ))."""
    from stcore.methods.gair_rst import TwoSearches

    backend, kappa = load("torch"), np.array([4.0, 5.0])
    x, y, first, second = map(backend.tensor, (U, Y, L, -L))
    config, examples = GairRstConfig(steps=4, shift=2.0), TwoSearches(first, backend.tensor(kappa), second)
    received = config.losses(Identity(backend.ops), x, y, examples, 1).metrics["divergence"]
    weight = (1 + np.tanh(4 - kappa)) / 2
    gaps = [backend.array(TradesConfig().gap(backend.ops, x, z)) for z in (first, second)]
    np.testing.assert_allclose(received, weight * gaps[0] + (1 - weight) * gaps[1], rtol=1e-12)


def test_gair_rst_weighs_two_divergences(every_backend):
    """λ = 3, K = 10: ω(5) = .997527, ω(8) = .5; the rest goes to the margin's example."""
    examples = [every_backend.tensor(a) for a in (L, np.array([5.0, 8.0]), -L)]
    config, ops = GairRstConfig(), every_backend.ops
    x, y = every_backend.tensor(U), every_backend.tensor(Y)
    gap = lambda z: every_backend.array(TradesConfig().gap(ops, x, z))  # noqa: E731
    from stcore.methods.gair_rst import TwoSearches

    result = config.losses(Identity(ops), x, y, TwoSearches(*examples), 1)
    weight = np.array([0.997527, 0.5])
    expected = weight * gap(examples[0]) + (1 - weight) * gap(examples[2])
    np.testing.assert_allclose(every_backend.array(result.metrics["divergence"]), expected, rtol=1e-5)


def test_bat_adds_up_the_strides(every_backend):
    """Each stride's KL by hand, in numpy."""
    points = [U + k / 3 * (L - U) for k in range(4)]
    p = [np.exp(z) / np.exp(z).sum(1, keepdims=True) for z in points]
    expected = sum((a * np.log(a / b)).sum(1).mean() for a, b in pairwise(p))
    result = on_logits(every_backend, BatConfig(segments=3), L)
    assert result["divergence"] == pytest.approx(expected, rel=1e-12)
    assert result["loss"] == pytest.approx(0.854696 + 6 * expected, abs=1e-5)


@pytest.mark.parametrize("how", ["mean", "max"])
def test_two_examples_are_combined_per_example(every_backend, how):
    """AT†, TRADES† and MART†: the mean, or the larger, of the two terms of each image."""
    combine = getattr(np, how)
    log_p = lambda z: z - np.log(np.exp(z).sum(1, keepdims=True))  # noqa: E731
    ce = [-log_p(z)[[0, 1], Y] for z in (L, -L)]
    kl = [(np.exp(log_p(U)) * (log_p(U) - log_p(z))).sum(1) for z in (L, -L)]
    natural = -log_p(U)[[0, 1], Y]
    at = on_logits(every_backend, AdversarialConfig(examples=2, combine=how), L, -L)
    assert at["loss"] == pytest.approx(combine(ce, axis=0).mean(), rel=1e-12)
    trades = on_logits(every_backend, TradesConfig(examples=2, combine=how), L, -L)
    assert trades["loss"] == pytest.approx((natural + 6 * combine(kl, axis=0)).mean(), rel=1e-12)
    mart = on_logits(every_backend, MartConfig(examples=2, combine=how), L, -L)
    one, other = (
        every_backend.array(
            MartConfig()
            .losses(
                Identity(every_backend.ops),
                every_backend.tensor(U),
                every_backend.tensor(Y),
                (every_backend.tensor(z),),
            )
            .losses
        )
        for z in (L, -L)
    )
    assert mart["loss"] == pytest.approx(combine([one, other], axis=0).mean(), rel=1e-12)


def plain_torch(loss_inner, loss_outer, steps=3):
    """Three updates by a plain PyTorch reading of a published formula, starts given."""
    backend = load("torch")
    import torch

    model = built(backend)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    for step in range(steps):
        data = problem(seed=step)
        x, y, _ = backend.batch(data)
        adversarial = x + 0.001 * backend.images(noise(TradesConfig(), data.x.shape, step)[0])
        model.eval()
        for _ in range(10):
            adversarial.requires_grad_()
            (gradient,) = torch.autograd.grad(loss_inner(model, x, y, adversarial), adversarial)
            adversarial = adversarial.detach() + 2 / 255 * gradient.sign()
            adversarial = torch.min(torch.max(adversarial, x - 8 / 255), x + 8 / 255).clamp(0, 1)
        model.train()
        optimizer.zero_grad()
        loss_outer(model, x, y, adversarial).backward()
        optimizer.step()
    return backend.learner(model).weights()


def test_trades_is_the_published_loop():
    from torch import nn
    from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax

    def inner(model, x, y, adversarial):
        return kl_div(log_softmax(model(adversarial), 1), softmax(model(x), 1), reduction="sum")

    def outer(model, x, y, adversarial):
        natural = cross_entropy(model(x), y)
        robust = nn.KLDivLoss(reduction="batchmean")(log_softmax(model(adversarial), 1), softmax(model(x), 1))
        return natural + 6.0 * robust

    assert_close(trained(load("torch"), TradesConfig()), plain_torch(inner, outer), 1e-12)


def test_mart_is_the_published_loop():
    import torch
    from torch.nn.functional import cross_entropy, kl_div, nll_loss, softmax

    def inner(model, x, y, adversarial):
        return cross_entropy(model(adversarial), y)

    def outer(model, x, y, adversarial):
        natural, robust = softmax(model(x), 1), softmax(z := model(adversarial), 1)
        order = robust.argsort(1)
        second = torch.where(order[:, -1] == y, order[:, -2], order[:, -1])
        boosted = cross_entropy(z, y) + nll_loss((1.0001 - robust + 1e-12).log(), second)
        kl = kl_div((robust + 1e-12).log(), natural, reduction="none").sum(1)
        return boosted + 5.0 * (kl * (1.0000001 - natural.gather(1, y[:, None])[:, 0])).mean()

    assert_close(trained(load("torch"), MartConfig()), plain_torch(inner, outer), 1e-12)


def test_collaborative_training_is_equation_5():
    from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax

    def inner(model, x, y, neighbour):
        return -cross_entropy(model(neighbour), y)

    def outer(model, x, y, neighbour):
        logits = model(x)
        gap = kl_div(log_softmax(model(neighbour), 1), softmax(logits, 1), reduction="batchmean")
        return cross_entropy(logits, y) + 6.0 * gap

    assert_close(trained(load("torch"), CollaborativeConfig()), plain_torch(inner, outer), 1e-12)


def test_kappa_counts_the_iterates_that_are_still_right(backend):
    """Every iterate up to K − 1, followed step by step through shorter searches from the same noise."""
    data, config = problem(batch=24, seed=3), GairatConfig(epsilon=0.3, step_size=0.03, steps=6)
    model = built(backend)
    kappa = to_arrays(backend, found(backend, model, config, data))[1]
    classifier = backend.classifier(model)
    start = np.clip(data.x + 0.3 * noise(config, data.x.shape)[0], 0, 1)
    points = [start]
    for steps in range(1, 6):
        points.append(to_arrays(backend, found(backend, model, replace(config, steps=steps), data))[0])
    right = [backend.array(classifier.logits(backend.images(p), Mode.EVAL)).argmax(1) == data.y for p in points]
    np.testing.assert_array_equal(kappa, np.sum(right, axis=0))
    assert 0 < kappa.sum() < 6 * len(kappa)


def test_the_second_search_of_gair_rst_stops_at_its_confidence(backend):
    """Where the margin is beyond the confidence the gradient is zero, so the start stays."""
    data, model = problem(), built(backend)
    config = GairRstConfig(begin_epoch=1, confidence=0.0, steps=2)
    _, kappa, other = to_arrays(backend, found(backend, model, config, data))
    start = data.x + 1e-3 * noise(config, data.x.shape)[1]
    wrong = kappa == 0
    assert wrong.any()
    np.testing.assert_allclose(other[wrong], np.clip(start, 0, 1)[wrong], atol=1e-12)


def test_the_second_search_of_gair_rst_climbs_from_where_the_prediction_is_right(backend):
    """The margin is negative there; only far beyond the boundary does the search rest."""
    data, model = problem(), built(backend)
    config = GairRstConfig(begin_epoch=1, steps=2)
    _, kappa, other = to_arrays(backend, found(backend, model, config, data))
    right = kappa == config.steps
    assert right.any()
    assert (np.abs(other - data.x)[right].max(axis=(1, 2, 3)) > 0.9 * config.step_size).all()


# --- Settings ---

WRONG = {
    "epsilon": (-0.1, float("nan")),
    "step_size": (-0.1,),
    "steps": (-1, 1.5),
    "beta": (-0.1,),
    "noise_std": (-0.1,),
    "init": ("nowhere",),
    "norm": ("l3",),
    "bounds": ((1.0, 0.0),),
    "examples": (0,),
    "combine": ("median",),
    "divergence": ("l3",),
    "inner_divergence": ("l3",),
    "label_smoothing": (-0.1, 1.1),
    "weighting": ("even",),
    "shift": (-20.1, 20.1),
    "begin_epoch": (-1,),
    "confidence": (-0.1,),
    "segments": (0,),
    "inner": ("margin",),
    "start_scale": (-0.1,),
    "step_scale": (-0.1,),
    "search_mode": ("testing",),
    "collaborative": ("image",),
    "natural": ("descent",),
    "consistency": (-0.1,),
    "balls": ((), ("linf:0.1", "linf:0.2"), ("l3:1",), ("linf:wide",), "linf:0.1"),
}
BALL = {
    "epsilon": 8 / 255,
    "step_size": 2 / 255,
    "steps": 10,
    "noise_std": 1e-3,
    "norm": "linf",
    "bounds": (0.0, 1.0),
}
SEVERAL = {"examples": 1, "combine": "mean"}
DEFAULTS = {  # the paper's for CIFAR-10 (section 5), and what the methods' own papers and code have
    "st": BALL
    | {"beta": 6.0, "divergence": "symmetric_kl", "inner_divergence": None, "stop_gradient_targets": True}
    | {"init": "gaussian", "label_smoothing": 0.0},
    "standard": {},
    "at": BALL | SEVERAL | {"init": "uniform", "label_smoothing": 0.0},
    "trades": BALL
    | SEVERAL
    | {"beta": 6.0, "divergence": "kl", "stop_gradient_targets": True, "init": "gaussian", "label_smoothing": 0.0}
    | {"share_natural": False, "adversarial_first": False},
    "mart": BALL | SEVERAL | {"beta": 5.0, "init": "gaussian"},
    "collaborative": BALL | {"beta": 6.0, "init": "gaussian"},
    "gairat": BALL | {"weighting": "tanh", "shift": -1.0, "begin_epoch": 60, "init": "uniform"},
    "gair-rst": BALL | {"beta": 6.0, "shift": 3.0, "begin_epoch": 100, "confidence": 50.0, "init": "gaussian"},
    "bat": BALL | {"segments": 2, "beta": 6.0, "inner": "cross_entropy", "init": "gaussian"},
}
SINGLE = {"epsilon": 8 / 255, "norm": "linf", "bounds": (0.0, 1.0), "steps": 1}
DEFAULTS |= {
    "n-fgsm": SINGLE
    | {"start_scale": 2.0, "step_scale": 1.0, "project": False, "search_mode": "train"}
    | {"consistency": 0.0, "label_smoothing": 0.0},
    "fast-st": SINGLE
    | {"start_scale": 1.0, "step_scale": 1.0, "project": True, "search_mode": "batch"}
    | {"collaborative": "start", "natural": "start", "beta": 6.0, "divergence": "symmetric_kl"}
    | {"stop_gradient_targets": True, "label_smoothing": 0.0},
}
DEFAULTS["e-at"] = {"balls": ("linf:8/255", "l1:12"), "steps": 10, "bounds": (0.0, 1.0)}
DEFAULTS["fgsm-rs"] = DEFAULTS["n-fgsm"] | {"start_scale": 1.0, "step_scale": 1.25, "project": True}
DEFAULTS["fgsm-consistency"] = DEFAULTS["fgsm-rs"] | {
    "step_scale": 1.0,
    "consistency": 100.0,
    "label_smoothing": 0.6,
}
DEFAULTS |= {f"{name}2": DEFAULTS[name] | {"examples": 2} for name in ("at", "trades", "mart")}


@pytest.mark.parametrize("name", DEFAULTS)
def test_the_defaults_of_a_method(name):
    assert asdict(make_objective(name, {})) == DEFAULTS[name]


EDGES = {"epsilon": (0.0,), "beta": (0.0,), "label_smoothing": (1.0,), "shift": (-20.0, 20.0), "begin_epoch": (0,)}
CONFIGS = tuple({method.config: None for method in METHODS.values()})


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.__name__)
def test_settings_out_of_range_are_refused_and_the_edges_are_not(config):
    names = {field.name for field in fields(config)} - {
        "share_natural",
        "adversarial_first",
        "stop_gradient_targets",
        "project",
    }
    assert names <= WRONG.keys()
    for name in names:
        for value in WRONG[name]:
            with pytest.raises(UsageError, match="expected"):
                config(**{name: value})
        for value in EDGES.get(name, ()):
            assert getattr(config(**{name: value}), name) == value


@pytest.mark.parametrize("config", [SqueezeConfig, TradesConfig, BatConfig, GairRstConfig])
def test_a_divergence_is_not_climbed_from_x_itself(config):
    with pytest.raises(UsageError, match="init"):
        config(init="natural")


@pytest.mark.parametrize("config", [GairatConfig, SingleStepConfig, FastSqueezeConfig])
def test_some_take_a_step_at_least(config):
    with pytest.raises(UsageError, match="steps"):
        config(steps=0)


# --- Identities ---


def losses_and_gradients(backend, objective, arrays_noise=None, perturbation=None):
    """What one step of plain SGD at rate 1 subtracts from each weight: the gradients, by name."""
    learner = backend.learner(built(backend), lr=1.0, momentum=0.0, weight_decay=0.0)
    before = learner.weights()
    one_step(backend, learner, objective, drawn=arrays_noise, perturbation=perturbation)
    after = learner.weights()
    return {name: before[name] - after[name] for name in before if ".running_" not in name}


def test_bat_in_one_stride_up_the_kl_is_trades(backend):
    one = trained(backend, BatConfig(segments=1, inner="kl", steps=3))
    assert_close(one, trained(backend, SHORT["trades sharing natural"]), 1e-14)


def test_two_examples_from_one_start_are_one_example(backend):
    (start,) = noise(AdversarialConfig(), problem().x.shape)
    single = losses_and_gradients(backend, AdversarialConfig(), (start,))
    double = losses_and_gradients(backend, AdversarialConfig(examples=2), (start, start))
    assert_close(double, single, 1e-12)


def test_gairat_before_its_weights_is_adversarial_training(backend):
    assert_close(trained(backend, SHORT["gairat before its weights"]), trained(backend, SHORT["at"]), 1e-14)


def test_gair_rst_before_its_weights_is_trades_as_in_rst(backend):
    ours = trained(backend, SHORT["gair-rst before its weights"])
    assert_close(ours, trained(backend, SHORT["trades as in rst"]), 1e-14)


def test_sharing_the_natural_forward_changes_the_statistics_alone(backend):
    released, shared = (trained(backend, TradesConfig(share_natural=s), steps=1) for s in (False, True))
    assert_close(
        {n: w for n, w in released.items() if ".running_" not in n},
        {n: w for n, w in shared.items() if ".running_" not in n},
        1e-12,
    )
    assert any(worst(released[n], shared[n]) > 1e-3 for n in released if ".running_" in n)


def plain_net(backend):
    """A small network without normalisation, whose weights decide the test but not its outcome."""
    rng = np.random.default_rng(0)
    shapes = [(48, 16), (16, 3)]
    weights = [rng.normal(0, 0.3, shape) for shape in shapes]
    if backend.name == "torch":
        import torch

        layers = [torch.nn.Linear(*shape).double() for shape in shapes]
        for layer, weight in zip(layers, weights, strict=True):
            layer.weight.data = torch.tensor(weight.T)
            torch.nn.init.zeros_(layer.bias)
        return torch.nn.Sequential(torch.nn.Flatten(), layers[0], torch.nn.Softplus(), layers[1])
    import keras

    layers = [keras.layers.Dense(shape[1], dtype="float64") for shape in shapes]
    model = keras.Sequential(
        [
            keras.Input((4, 4, 3), dtype="float64"),
            keras.layers.Flatten(dtype="float64"),
            layers[0],
            keras.layers.Activation("softplus", dtype="float64"),
            layers[1],
        ]
    )
    for layer, weight in zip(layers, weights, strict=True):
        layer.kernel.assign(weight)
    return model


@pytest.mark.parametrize("stop", [True, False])
def test_squeeze_training_with_the_natural_example_forced_is_trades(backend, monkeypatch, stop):
    """Roles fixed to x' adversarial, x collaborative, without batch norm: TRADES with the symmetric KL."""

    def fixed(ops, confidence, members=3):
        """The rows of x', then those of x, whatever the confidence: a score that prefers them."""
        one = ops.ones_like(ops.split(confidence, 3)[0])
        return ops.extremes(ops.concat((one, -one, one - one)), 3)

    monkeypatch.setattr("stcore.methods.squeeze_loss.roles", fixed)
    monkeypatch.setattr("stcore.methods.squeeze_search.roles", fixed)
    data, results = problem(side=4), []
    start = noise(SqueezeConfig(), data.x.shape)
    shared = {"stop_gradient_targets": stop, "steps": 5}
    for objective, drawn in (
        (SqueezeConfig(**shared), start),
        (TradesConfig(divergence="symmetric_kl", share_natural=True, **shared), start[:1]),
    ):
        learner = backend.learner(plain_net(backend))
        batch = backend.batch(data)
        for _ in range(3):
            native = tuple(backend.images(one) for one in drawn)
            stcore.train_step(learner, objective, batch.x, batch.y, noise=native)
        results.append([backend.array(tensor) for tensor in learner.state()])
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)


# --- For any setting: the examples stay in the ball and in range ---

SEARCHING = {
    "at": AdversarialConfig,
    "trades": TradesConfig,
    "mart": MartConfig,
    "collaborative": CollaborativeConfig,
    "gairat": GairatConfig,
    "gair-rst": GairRstConfig,
    "bat": BatConfig,
}


@pytest.mark.parametrize("name", SEARCHING)
@given(
    epsilon=st.floats(0, 0.5),
    share=st.floats(0, 3),
    steps=st.integers(1, 3),
    norm=st.sampled_from(["linf", "l2"]),
    init=st.sampled_from(["gaussian", "uniform"]),
)
@settings(max_examples=15, deadline=None)
def test_examples_are_in_the_ball_and_in_range(name, epsilon, share, steps, norm, init):
    backend, data = load("torch"), problem(4, 4)
    config = SEARCHING[name](epsilon=epsilon, step_size=share * epsilon, steps=steps, norm=norm, init=init)
    phase = 1 if "begin_epoch" in vars(config) else 0
    batch, classifier = backend.batch(data), backend.classifier(built(backend, "tiny", side=4))
    drawn = tuple(backend.images(one) for one in noise(config, data.x.shape))
    examples = config.find(classifier, batch.x, batch.y, drawn, phase)
    for example in (a for a in to_arrays(backend, examples) if a.ndim == 4):
        offset = np.abs(example - data.x)
        size = offset.max() if norm == "linf" else np.sqrt((offset**2).sum((1, 2, 3))).max()
        assert size <= epsilon * (1 + 1e-9) + 1e-12
        assert example.min() >= 0
        assert example.max() <= 1


@pytest.mark.parametrize("name", SEARCHING)
def test_a_search_makes_things_worse_or_better_as_it_says(backend, name):
    """Adversarial examples have a higher mean loss than their images, collaborative ones a lower."""
    objective, data = SEARCHING[name](epsilon=0.1, step_size=0.025), problem(batch=16)
    model = built(backend, "tiny-smooth")
    example = to_arrays(backend, found(backend, model, objective, data))[0]
    classifier, y = backend.classifier(model), backend.tensor(data.y)
    from stcore.core.losses import cross_entropy

    natural, moved = (
        backend.array(cross_entropy(backend.ops, classifier.logits(backend.images(p), Mode.EVAL), y)).mean()
        for p in (data.x, example)
    )
    if name in ("trades", "gair-rst"):  # theirs climb the divergence, whichever way the loss goes
        z = [classifier.logits(backend.images(p), Mode.EVAL) for p in (data.x, example)]
        start = classifier.logits(backend.images(data.x + 1e-3 * noise(objective, data.x.shape)[0]), Mode.EVAL)
        gaps = [backend.array(TradesConfig().gap(backend.ops, z[0], other)).mean() for other in (start, z[1])]
        assert gaps[1] > 10 * gaps[0]
    elif name == "collaborative":
        assert moved < natural - 1e-3
    else:
        assert moved > natural + 1e-3


@pytest.mark.parametrize("name", ["st", "at", "trades"])
def test_smoothed_labels_spread_the_target_of_the_loss_alone(backend, name):
    """Examples and metrics stay; the loss is a mixture of the plain one and of one against all classes alike."""
    data, kind = problem(), {"st": SqueezeConfig, **SEARCHING}[name]
    plain, mixed, spread = (kind(label_smoothing=share, steps=3) for share in (0.0, 0.25, 1.0))
    model = built(backend, "tiny-smooth")
    examples, others = (found(backend, model, one, data) for one in (plain, spread))
    np.testing.assert_array_equal(to_arrays(backend, examples), to_arrays(backend, others))
    classifier, batch = backend.classifier(model), backend.batch(data)
    each = [one.losses(classifier, batch.x, batch.y, examples) for one in (plain, mixed, spread)]
    losses = [backend.array(one.losses) for one in each]
    np.testing.assert_allclose(losses[1], 0.75 * losses[0] + 0.25 * losses[2], rtol=1e-12)
    metrics = [{key: backend.array(value) for key, value in one.metrics.items()} for one in each]
    for key in metrics[0]:
        np.testing.assert_array_equal(metrics[0][key], metrics[2][key])
    z = classifier.logits(examples[0] if name == "at" else batch.x, Mode.BATCH)
    log_p = backend.array(backend.ops.log_softmax(z))
    added = 0.0 if name == "at" else 6.0 * metrics[2]["divergence"]
    np.testing.assert_allclose(losses[2], -log_p.mean(axis=1) + added, rtol=1e-9)


def test_every_method_has_its_row():
    configs = {type(objective) for objective in ROWS.values()}
    assert {method.config for method in METHODS.values()} == configs
    assert isinstance(make_objective("standard", {}), StandardConfig)
    assert make_objective("trades2", {}) == TradesConfig(examples=2)
    assert make_objective("trades2", {"examples": 3}) == TradesConfig(examples=3)
