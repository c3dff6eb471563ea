"""PyTorch, Keras and the strict numpy backend compute the same squeeze training, from the same weights and noise.

The tolerances are the contract (design section 6). "Relative" is to the largest entry of the tensor.
"""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from harness import assert_close, gradients, load, problem, worst

import stcore
from stcore import SqueezeConfig, SqueezePair
from stcore.core.divergences import DIVERGENCES
from stcore.core.losses import cross_entropy
from stcore.protocols import Mode

NETS = ("tiny", "tiny-smooth", "resnet8")
GRADIENT, LOSS, THREE_STEPS = 1e-9, 1e-9, 1e-8
CONFIGS = {
    "as released": SqueezeConfig(),
    "as printed": SqueezeConfig(stop_gradient_targets=False),
    "js": SqueezeConfig(divergence="js"),
    "squared l2": SqueezeConfig(divergence="squared_l2"),
    "kl": SqueezeConfig(divergence="kl"),
    "improved kl": SqueezeConfig(divergence="improved_kl"),
    "generalized kl": SqueezeConfig(divergence="gkl", beta=20.0),
    "smoothed labels": SqueezeConfig(label_smoothing=0.1),
    "uniform start": SqueezeConfig(init="uniform"),
    "l2 norm": SqueezeConfig(norm="l2", epsilon=0.5, step_size=0.125),
}
LOSSES = (
    "as released",
    "as printed",
    "js",
    "squared l2",
    "kl",
    "improved kl",
    "generalized kl",
    "smoothed labels",
)  # all but the search's


@pytest.fixture(scope="module")
def twins():
    return load("torch"), load("keras")


def found(backend, model, given, config):
    """The pair, as (B, H, W, C) arrays."""
    batch, classifier = backend.batch(given), backend.classifier(model)
    pair = classifier.ops.unrecorded(lambda: config.find(classifier, batch.x, batch.y, batch.noise))
    return SqueezePair(*map(backend.nhwc, pair))


def given_pair(given, epsilon=8 / 255):
    """Some pair in the ball, the same for all."""
    return SqueezePair(*(np.clip(given.x + epsilon * np.sign(n), 0, 1) for n in given.noise))


# --- One forward and the way back ---


@pytest.mark.parametrize("mode", [Mode.EVAL, Mode.BATCH])
@pytest.mark.parametrize("net", [*NETS, "resnet-s-8"])
def test_input_gradients_before_the_sign(twins, net, mode):
    given, results = problem(), []
    for backend in twins:
        batch, classifier = backend.batch(given), backend.classifier(backend.build(net))
        ops = backend.ops
        far = ops.log_softmax(classifier.logits(batch.x + 0.1 * batch.noise[0], mode))
        for loss in (cross_entropy, None):

            def fn(pixels, loss=loss, classifier=classifier, ops=ops, far=far, y=batch.y):
                z = classifier.logits(pixels, mode)
                return loss(ops, z, y) if loss else DIVERGENCES["symmetric_kl"](ops, far, ops.log_softmax(z), True)

            value, pullback = ops.vjp(fn, batch.x)
            results.append(backend.nhwc(pullback(ops.ones_like(value))[0]))
    for one, other in zip(results[:2], results[2:], strict=True):
        assert worst(other, one) <= GRADIENT


# --- The search ---


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("net", NETS)
def test_pairs_after_ten_steps_are_equal(twins, net, seed):
    given = problem(seed=seed)
    ours, theirs = (found(backend, backend.build(net), given, SqueezeConfig()) for backend in twins)
    for one, other in zip(ours, theirs, strict=True):
        assert np.mean(np.abs(one - other) > 1e-12) <= 1e-4


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_pairs_are_equal_for_every_setting(twins, config):
    given = problem(law="uniform" if config.init == "uniform" else "normal")
    ours, theirs = (found(backend, backend.build("tiny-smooth"), given, config) for backend in twins)
    for one, other in zip(ours, theirs, strict=True):
        assert np.abs(one - other).max() <= (1e-12 if config.norm == "linf" else 1e-9)


# --- The loss on one pair ---


@pytest.mark.parametrize(
    ("net", "name"),
    [("tiny", "as released"), ("resnet8", "as released"), *(("tiny-smooth", name) for name in LOSSES)],
)
def test_losses_and_weight_gradients_on_one_pair(twins, net, name):
    given = problem()
    results = []
    for backend in twins:
        learner = backend.learner(backend.build(net), lr=1.0, momentum=0.0, weight_decay=0.0)
        results.append(gradients(learner, CONFIGS[name], backend.batch(given), backend.pair(given_pair(given))))
    ours, theirs = results
    assert theirs.loss == pytest.approx(ours.loss, rel=LOSS)
    assert theirs.metrics == pytest.approx(ours.metrics, rel=LOSS)
    assert_close(theirs.by_name, ours.by_name, GRADIENT)


# --- Training ---


def trained(backend, net, objective, steps, seed=0):
    learner = backend.learner(backend.build(net), lr=0.1, momentum=0.9, weight_decay=5e-4)
    for step in range(steps):
        batch = backend.batch(problem(seed=10 * seed + step))
        stcore.train_step(learner, objective, batch.x, batch.y, noise=batch.noise)
    return learner.weights()


@pytest.mark.parametrize("net", NETS)
def test_three_training_steps(twins, net):
    config = SqueezeConfig(steps=3 if net == "resnet8" else 10)
    ours, theirs = (trained(backend, net, config, steps=3) for backend in twins)
    assert_close(theirs, ours, THREE_STEPS)
    start = twins[0].learner(twins[0].build(net)).weights()
    assert all(worst(ours[name], start[name]) > 1e-4 for name in ours)


# --- The strict backend ---

# Finite differences cost four forwards for every pixel and two for every weight: so images are 3×3, the batch is 3
# and K is 2, and what the strict backend found is kept for the other backend that it is compared with.
SMALL = {"batch": 3, "side": 3}


@cache
def found_by_the_protocol(config):
    backend = load("strict")
    return found(backend, backend.build("tiny-smooth", side=3), small_problem(config), config)


def small_problem(config):
    return problem(**SMALL, law="uniform" if config.init == "uniform" else "normal")


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_protocol_alone_finds_the_same_pair(backend, config):
    config = replace(config, steps=2)
    ours = found(backend, backend.build("tiny-smooth", side=3), small_problem(config), config)
    theirs = found_by_the_protocol(config)
    for one, other in zip(ours, theirs, strict=True):  # its gradients are good to about 1e-10
        assert np.abs(one - other).max() <= (1e-12 if config.norm == "linf" else 1e-7)


@pytest.mark.parametrize("name", LOSSES)
def test_the_protocol_alone_computes_the_same_losses_and_selections(backend, name):
    config = CONFIGS[name]
    given, results = problem(**SMALL), []
    for one in (backend, load("strict")):
        model = one.build("tiny-smooth", side=3)
        classifier, batch = one.classifier(model), one.batch(given)
        result = config.losses(classifier, batch.x, batch.y, one.pair(given_pair(given)))
        results.append(
            {name: one.array(v) for name, v in {"loss": result.losses, **result.metrics}.items()}
            | one.statistics(model)
        )
    assert_close(*results, 1e-10)


def test_the_protocol_alone_makes_the_same_training_step(backend):
    """Weight gradients by finite differences in every single weight, then the update, then the statistics."""
    assert_close(small_step(backend.name), small_step("strict"), 1e-9)


@cache
def small_step(name):
    backend = load(name)
    learner, batch = backend.learner(backend.build("tiny-smooth", side=3)), backend.batch(problem(**SMALL))
    stcore.train_step(learner, SqueezeConfig(steps=2), batch.x, batch.y, noise=batch.noise)
    return learner.weights()


# --- float32: free-running pixels are not promised, so every step starts from the same points ---


def selection(backend, model, batch, pair):
    """Who is highest and who lowest in loss, as the step itself will see it."""
    classifier = backend.classifier(model)
    losses = [
        backend.array(cross_entropy(backend.ops, classifier.logits(p, Mode.BATCH), batch.y))
        for p in (batch.x, *pair)
    ]
    return np.stack([np.argmax(losses, axis=0), np.argmin(losses, axis=0)])


@pytest.mark.parametrize("net", ["small-cnn", "resnet8"])
def test_single_steps_in_float32(twins, net):
    given, config = problem(batch=24, side=12), SqueezeConfig()
    models = [backend.build(net, side=12, dtype="float32") for backend in twins]
    batches = [backend.batch(given, "float32") for backend in twins]
    points = [p.astype("float32") for p in (given.x + 1e-3 * given.noise[0], given.x + 1e-3 * given.noise[1])]
    signs, selections = [], []
    for _ in range(5):
        moved, chosen = [], []
        for backend, model, batch in zip(twins, models, batches, strict=True):
            pair = backend.pair(points, "float32")
            chosen.append(selection(backend, model, batch, pair))
            after = stcore.squeeze_step(model, batch.x, batch.y, pair, config)
            moved.append(np.stack([backend.nhwc(p) for p in after]))
        same = chosen[0] == chosen[1]
        selections.append(~same)
        signs.append(np.abs(moved[0] - moved[1])[same] > config.step_size / 2)
        points = list(moved[0])
    assert np.mean(np.concatenate(signs)) <= 1e-3
    assert np.mean(selections) <= 1e-2


@pytest.mark.parametrize("name", LOSSES)
def test_losses_on_one_pair_in_float32(twins, name):
    config = CONFIGS[name]
    given, results = problem(batch=16), []
    for backend in twins:
        classifier = backend.classifier(backend.build("resnet8", dtype="float32"))
        batch = backend.batch(given, "float32")
        result = config.losses(classifier, batch.x, batch.y, backend.pair(given_pair(given), "float32"))
        results.append(backend.array(backend.ops.mean(result.losses)))
    assert results[0].dtype == np.float32
    assert worst(*results) <= 1e-4


def test_search_arithmetic_stays_in_the_dtype_of_the_pixels(backend):
    model, batch = backend.build("tiny", dtype="float32"), backend.batch(problem(), "float32")
    classifier = backend.classifier(model)
    pair = SqueezeConfig().ascend(classifier, batch.x, batch.y, SqueezePair(*batch.noise), steps=1)
    assert {backend.array(p).dtype for p in pair} == {np.dtype("float32")}
