"""Soft labels: class probabilities (B, C) in place of integers (B,), through every method."""

import numpy as np
import pytest
from harness import built, load, problem, worst
from rows import SHORT, noise

import stcore
from stcore import AWP, RWP, SqueezeConfig
from stcore.core import losses
from stcore.errors import DataError
from stcore.methods import mart

CLASSES = 3


def soft(seed=0, batch=6, classes=CLASSES):
    """Labels of two classes each, as mixup makes them."""
    rng = np.random.default_rng(seed)
    first, second = rng.integers(classes, size=(2, batch))
    share = rng.uniform(0.1, 0.9, (batch, 1))
    hot = np.eye(classes)
    return share * hot[first] + (1 - share) * hot[second]


def stepped(backend, objective, labels, perturbation=None):
    """The loss, the metrics and the weights after one training step, in float64."""
    given = problem()
    batch, learner = backend.batch(given), backend.learner(built(backend, "tiny-smooth"))
    drawn = tuple(map(backend.images, noise(objective, given.x.shape)))
    y = backend.tensor(labels)
    phase = objective.phase(1)
    result = stcore.train_step(learner, objective, batch.x, y, noise=drawn, phase=phase, perturbation=perturbation)
    logged = {name: float(backend.array(value)) for name, value in result.metrics.items()}
    return {"loss": float(backend.array(result.loss)), **logged}, learner.weights()


FIRST = {type(row): name for name, row in reversed(SHORT.items())}.values()
"""A row of each method."""


@pytest.mark.parametrize(("name", "on"), [*((n, "torch") for n in SHORT), *((n, "keras") for n in FIRST)])
def test_one_hot_labels_are_the_integers(name, on):
    labels, backend = problem().y, load(on)
    integer, hot = (stepped(backend, SHORT[name], each) for each in (labels, np.eye(CLASSES)[labels]))
    assert integer[0].keys() == hot[0].keys()
    for key, value in integer[0].items():
        assert hot[0][key] == pytest.approx(value, rel=1e-12, abs=1e-12), key
    assert max(worst(hot[1][key], value) for key, value in integer[1].items()) <= 1e-12


def per_label(backend, loss, z):
    """The loss (B, C) at each class as an integer label."""
    count, classes = z.shape
    columns = [loss(backend.ops, backend.tensor(z), backend.tensor(np.full(count, c))) for c in range(classes)]
    return np.stack([backend.array(column) for column in columns], axis=1)


LOSSES = {
    "cross-entropy": losses.cross_entropy,
    "margin": losses.margin,
    "clipped margin": lambda ops, z, y: losses.clipped_margin(ops, z, y, 0.3),
    "correct": losses.correct,
    "boosted cross-entropy": mart.boosted_cross_entropy,
    "weighted KL": lambda ops, z, y: mart.weighted_kl(ops, z, ops.exp(z * 0.5), y),
    "smoothed": lambda ops, z, y: losses.smoothed(ops, losses.cross_entropy(ops, z, y), z, 0.2),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_a_loss_of_soft_labels_is_its_expectation_over_the_class(every_backend, loss):
    """One row has two equal largest logits, of which each is the other's best other."""
    z, t = np.random.default_rng(2).normal(size=(6, 4)), soft(3, classes=4)
    z[0, :2] = 2.0
    found = every_backend.array(loss(every_backend.ops, every_backend.tensor(z), every_backend.tensor(t)))
    np.testing.assert_allclose(found, (t * per_label(every_backend, loss, z)).sum(1), rtol=1e-12, atol=1e-12)


def test_the_cross_entropy_of_soft_labels_by_hand(every_backend):
    z, t = np.log([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]]), np.array([[0.5, 0.5, 0.0], [0.0, 0.25, 0.75]])
    found = losses.cross_entropy(every_backend.ops, every_backend.tensor(z), every_backend.tensor(t))
    expected = [-0.5 * np.log(0.5 * 0.25), -0.25 * np.log(0.2) - 0.75 * np.log(0.7)]
    np.testing.assert_allclose(every_backend.array(found), expected, rtol=1e-12)


def test_a_class_that_cannot_be_does_not_spoil_the_loss(every_backend):
    """0 · −∞ is NaN: the logit of a masked class has a floor instead (`stcore.core.outputs`)."""
    from stcore.core.outputs import FLOOR

    z, t = np.array([[0.0, 0.0, FLOOR]]), np.array([[0.5, 0.5, 0.0]])
    found = losses.cross_entropy(every_backend.ops, every_backend.tensor(z), every_backend.tensor(t))
    np.testing.assert_allclose(every_backend.array(found), [np.log(2)], rtol=1e-12)


@pytest.mark.parametrize("perturbation", [AWP(0.01), RWP(0.01, steps=2, threshold=10.0)])
def test_weight_perturbations_ascend_the_loss_of_soft_labels(backend, perturbation):
    labels = problem().y
    hot = [stepped(backend, SHORT["st"], each, perturbation) for each in (labels, np.eye(CLASSES)[labels])]
    assert max(worst(hot[1][1][key], value) for key, value in hot[0][1].items()) <= 1e-12
    mixed = stepped(backend, SHORT["st"], soft(), perturbation)[1]
    assert max(worst(mixed[key], value) for key, value in hot[0][1].items()) > 1e-4


def test_the_backends_train_alike_with_soft_labels():
    trained = [stepped(load(name), SHORT["mart"], soft()) for name in ("torch", "keras")]
    assert trained[0][0] == pytest.approx(trained[1][0], rel=1e-9)
    assert max(worst(trained[1][1][key], value) for key, value in trained[0][1].items()) <= 1e-9


def test_soft_labels_take_the_dtype_of_the_logits(backend):
    classifier = backend.classifier(backend.build("tiny", dtype="float32"))
    assert "float32" in str(classifier.labels(soft()).dtype)
    assert "int" in str(classifier.labels(np.array([0, 1])).dtype)


REFUSED = {
    "rows that do not sum to one": (np.full((6, 3), 0.5), "rows sum to 1; received sums from 1.5 to 1.5"),
    "negative": (np.tile([1.5, -0.5, 0.0], (6, 1)), r"probabilities in \[0, 1\]; received \[-0.5, 1.5\]"),
    "of other classes": (np.full((6, 4), 0.25), r"shape \(B, 3\), the model's classes; received .*\(6, 4\)"),
    "one column": (np.ones((6, 1)), r"y.reshape\(-1\)"),
    "one-hot integers": (np.eye(3, dtype=np.int64)[problem().y], "Of one-hot integers, give floats"),
    "of another dtype": (np.full((6, 3), 1 / 3, np.float32), "in the logits' float64; received .*float32.*. Cast"),
    "too few": (np.full((5, 3), 1 / 3), "a label for each image; received 5 for 6"),
    "not a number": (np.full((6, 3), np.nan), r"probabilities in \[0, 1\]; received \[nan"),
}


@pytest.mark.parametrize(("labels", "message"), REFUSED.values(), ids=REFUSED)
def test_soft_labels_that_are_none_are_refused(backend, labels, message):
    with pytest.raises(DataError, match=message):
        stepped(backend, SHORT["standard"], labels)


def test_an_attack_takes_integers_alone(backend):
    """What fools a network of a mixture is not defined."""
    batch, model = backend.batch(problem()), backend.build("tiny")
    with pytest.raises(DataError, match=r"integer labels of shape \(B,\)"):
        stcore.attacks.FGSM(0.1)(model, batch.x, backend.tensor(soft()), rng=0)


def test_one_s_own_loop_takes_soft_labels(backend):
    batch, model, y = backend.batch(problem()), backend.build("tiny"), backend.tensor(soft())
    pair = stcore.find_squeeze_pair(model, batch.x, y, SqueezeConfig(steps=1), noise=batch.noise)
    loss = stcore.squeeze_loss(model, batch.x, y, pair, SqueezeConfig(steps=1))
    same = stcore.training_loss(model, SqueezeConfig(steps=1), batch.x, y, noise=batch.noise)
    assert float(backend.array(loss.total)) == pytest.approx(float(backend.array(same.total)), rel=1e-12)
