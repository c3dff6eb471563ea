"""Squeeze training and its relatives in one's own training loop, in either framework.

The arguments that the functions share are described in `stcore.api`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from stcore.core import validation
from stcore.core.dispatch import make_classifier
from stcore.core.entry import check_batch, check_shapes, checked_classifier, find_examples, resolve_noise
from stcore.core.inspection import inspect
from stcore.core.objective import Objective, StepResult, WeightPerturbation, bounds_of, training_step
from stcore.methods.squeeze import SqueezeConfig
from stcore.methods.squeeze_search import SqueezePair
from stcore.protocols import Classifier, Learner, Tensor


class SqueezeLoss(NamedTuple):
    """The loss of squeeze training (Eq. 6) and its parts, as native scalars, in nats.

    total: natural + β·divergence, differentiable.   natural, adversarial, collaborative: mean cross-entropies
    after the selection.   divergence: mean divergence. All but `total` are constants, for logging.
    """

    total: Tensor
    natural: Tensor
    adversarial: Tensor
    collaborative: Tensor
    divergence: Tensor


class TrainingLoss(NamedTuple):
    """The loss of a method for one batch.

    total: the mean loss, a differentiable native scalar.   metrics: batch means of the method's metrics by name,
    constant native scalars.
    """

    total: Tensor
    metrics: Mapping[str, Tensor]


def squeeze_step(
    model: Any,
    x: Tensor,
    y: Tensor,
    pair: SqueezePair | None = None,
    config: SqueezeConfig = SqueezeConfig(),
    *,
    noise: tuple[Tensor, Tensor] | None = None,
    rng: np.random.Generator | int | None = None,
) -> SqueezePair:
    """Makes one inner step of Algorithm 1: select from the triplet, divergence, signed gradient, project.

    x: pixels (B, …).   y: labels, integers (B,) or soft (B, C).   noise, rng: as described in `stcore.api`.
    pair: the current neighbours, shaped like x; None starts from noise.
    Returns the next pair, shaped like x, as constants. Weights, gradients, modes and statistics of the model stay
    unchanged.
    Raises TypeError, DataError or UsageError if model, batch, pair or noise do not fit (see `stcore.api`).
    """
    classifier = checked_classifier(model, x, y, config, soft=True)
    pair = (
        config.start(x, resolve_noise(classifier, config, x, noise, rng))
        if pair is None
        else _checked_pair(classifier, x, pair, config)
    )
    return SqueezePair(*classifier.ops.unrecorded(lambda: config.ascend(classifier, x, y, pair, steps=1)))


def find_squeeze_pair(
    model: Any,
    x: Tensor,
    y: Tensor,
    config: SqueezeConfig = SqueezeConfig(),
    *,
    noise: tuple[Tensor, Tensor] | None = None,
    rng: np.random.Generator | int | None = None,
) -> SqueezePair:
    """Finds the adversarial and the collaborative example of each image: the inner loop of Algorithm 1.

    x: pixels (B, …).   y: labels, integers (B,) or soft (B, C).   noise, rng: as described in `stcore.api`.
    Returns the points after the K-th update, shaped like x, not re-selected, as constants; K = 0 returns the noisy
    starts. Weights, gradients, modes and statistics of the model stay unchanged.
    Raises TypeError, DataError or UsageError if model, batch or noise do not fit (see `stcore.api`).
    """
    classifier = checked_classifier(model, x, y, config, soft=True)
    return SqueezePair(*find_examples(config, classifier, x, y, noise, rng))


def squeeze_loss(
    model: Any,
    x: Tensor,
    y: Tensor,
    pair: SqueezePair | None = None,
    config: SqueezeConfig = SqueezeConfig(),
    *,
    noise: tuple[Tensor, Tensor] | None = None,
    rng: np.random.Generator | int | None = None,
) -> SqueezeLoss:
    """Computes Eq. 6 as a loss: makes the (K+1)-th selection and returns CE + β·divergence, differentiable.

    x: pixels (B, …).   y: labels, integers (B,) or soft (B, C).   noise, rng: as described in `stcore.api`.
    pair: neighbours shaped like x; None finds them first, hidden from the caller's tape.
    Raises TypeError, DataError or UsageError if model, batch, pair or noise do not fit (see `stcore.api`).

    The natural and the adversarial forward update running statistics, as a training forward does; the
    collaborative one does not.
    """
    classifier = checked_classifier(model, x, y, config, training=True, soft=True)
    ops = classifier.ops
    if pair is None:
        pair = find_examples(config, classifier, x, y, noise, rng)
    else:
        pair = _checked_pair(classifier, x, pair, config)
    with classifier.same_draws():
        losses, metrics, _ = config.losses(classifier, x, y, pair)
    names = ("natural_loss", "adversarial_loss", "collaborative_loss", "divergence")
    return SqueezeLoss(ops.mean(losses), *(ops.stop_gradient(ops.mean(metrics[name])) for name in names))


def train_step(
    learner: Learner,
    objective: Objective,
    x: Tensor,
    y: Tensor,
    *,
    noise: tuple[Tensor, ...] | None = None,
    rng: np.random.Generator | int | None = None,
    phase: int = 0,
    perturbation: WeightPerturbation | None = None,
) -> StepResult:
    """Makes one optimizer update by any method: finds the examples, takes the mean loss and its gradients, steps.

    learner: from `stcore.make_learner`.   objective: a method's settings, such as `stcore.TradesConfig()`.
    x: pixels (B, …).   y: labels, integers (B,) or soft (B, C).   noise, rng: as described in `stcore.api`.
    phase: the method's variant in this epoch, `objective.phase(epoch)`.
    perturbation: `stcore.AWP` or `stcore.RWP`: the gradient is taken at perturbed weights, and the perturbation is
        removed after the update.
    Returns the mean loss and the mean metrics, before the update, as native scalars.
    Raises TypeError, DataError or UsageError if objective, batch or noise do not fit (see `stcore.api`).
    """
    validation.check_objective(objective)
    check_batch(learner, learner, x, y, bounds_of(objective), training=True, soft=True)
    start_noise = resolve_noise(learner, objective, x, noise, rng)
    return training_step(learner, objective, x, y, start_noise, phase, perturbation)


def training_loss(
    model: Any,
    objective: Objective,
    x: Tensor,
    y: Tensor,
    *,
    noise: tuple[Tensor, ...] | None = None,
    rng: np.random.Generator | int | None = None,
    phase: int = 0,
) -> TrainingLoss:
    """Computes the loss of any method for one's own loop: finds the examples, then takes the mean loss.

    objective: a method's settings, such as `stcore.TradesConfig()`.   phase: its variant in this epoch,
        `objective.phase(epoch)`.
    x: pixels (B, …).   y: labels, integers (B,) or soft (B, C).   noise, rng: as described in `stcore.api`.
    Raises TypeError, DataError or UsageError if objective, model, batch or noise do not fit (see `stcore.api`).

    The search is hidden from the caller's tape. The outer forwards update running statistics as the method says.
    """
    classifier = make_classifier(model)
    validation.check_objective(objective)
    check_batch(classifier, model, x, y, bounds_of(objective), training=True, soft=True)
    ops, start_noise = classifier.ops, resolve_noise(classifier, objective, x, noise, rng)
    examples = ops.unrecorded(lambda: objective.find(classifier, x, y, start_noise, phase))
    with classifier.same_draws():
        losses, metrics, _ = objective.losses(classifier, x, y, examples, phase)
    return TrainingLoss(ops.mean(losses), {n: ops.stop_gradient(ops.mean(m)) for n, m in metrics.items()})


def _checked_pair(classifier: Classifier, x: Tensor, pair: SqueezePair, config: SqueezeConfig) -> SqueezePair:
    check_shapes(classifier, "pair", x, pair, 2)
    start = 10 * config.noise_std if config.init == "gaussian" else 0.0  # no normal number is further
    reach = max(config.epsilon, start)
    for point in pair:
        inspect(classifier, classifier.ops.abs(point - x), validation.check_distance, "pair", reach, config.bounds)
    return SqueezePair(*pair)
