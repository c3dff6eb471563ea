"""Squeeze training from one's own loop, in either framework: native tensors in, native tensors out.

x holds pixels in [0, 1] in the model's own layout, y integer labels (B,). `noise` is a pair of native tensors
shaped like x: standard normal for init="gaussian", in the unit ball for "uniform". Without it, it is drawn in
numpy from `rng`: a `numpy.random.Generator`, which moves on with each call, or a seed, which draws the same
each time; without it, from fresh entropy. Nothing global is read.
Inside a traced graph (`tf.function`, `jax.jit`) noise must be given: a draw in numpy would be frozen into it.
On JAX a model's variables are arguments of what is traced or differentiated, as Keras has it: call these functions
within a `keras.StatelessScope` that maps them; running statistics are read off the scope after a loss.

Raises TypeError for a model of no known framework or a tensor that is not the model's, DataError for pixels or
labels out of range, UsageError for a model that does not return logits, or noise or a pair not shaped like x.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from stcore.core import validation
from stcore.core.dispatch import make_classifier
from stcore.core.entry import _check_batch, _check_shapes, _found, _noise, checked
from stcore.core.objective import Objective, StepResult, WeightPerturbation, training_step
from stcore.methods.squeeze import SqueezeConfig
from stcore.methods.squeeze_search import SqueezePair
from stcore.protocols import Classifier, Learner, Tensor


class SqueezeLoss(NamedTuple):
    """Native scalars. `total` = natural + β·divergence is differentiable; the others are batch means to look at:

    cross-entropies of the natural, the adversarial and the collaborative examples, and the divergence.
    """

    total: Tensor
    natural: Tensor
    adversarial: Tensor
    collaborative: Tensor
    divergence: Tensor


class TrainingLoss(NamedTuple):
    """The mean loss of a batch, a differentiable native scalar, and the means of the method's metrics."""

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
    """One inner step of Algorithm 1: select from the triplet, divergence, signed gradient, project.

    `pair=None` starts from noise. Neither the weights, their gradients, nor any mode or statistic change.
    """
    classifier = checked(model, x, y, config)
    pair = (
        config.start(x, _noise(classifier, config, x, noise, rng)) if pair is None else _pair(classifier, x, pair)
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
    """The points after the K-th update, not re-selected; K = 0 returns the noisy starts."""
    return SqueezePair(*_found(config, checked(model, x, y, config), x, y, noise, rng))


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
    """Eq. 6 as a loss: makes the (K+1)-th selection and returns CE + β·divergence, ready to differentiate.

    `pair=None` finds the pair first, unseen by the caller's tape. The natural and the adversarial forward
    update running statistics, as a training forward does.
    """
    classifier = checked(model, x, y, config)
    ops = classifier.ops
    if pair is None:
        pair = _found(config, classifier, x, y, noise, rng)
    losses, metrics = config.losses(classifier, x, y, _pair(classifier, x, pair))
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
    """One optimizer update by any method: examples, mean loss, gradients, step. Returns native scalars.

    phase: the method's variant, `objective.phase(epoch)`.   perturbation: `stcore.AWP` or `stcore.RWP`; the
    gradient is then taken at weights perturbed so, which move back after the step.
    """
    validation.check_objective(objective)
    _check_batch(learner, learner, x, y, getattr(objective, "bounds", (0.0, 1.0)))
    drawn = _noise(learner, objective, x, noise, rng)
    return training_step(learner, objective, x, y, drawn, phase, perturbation)


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
    """Any method as a loss for one's own loop: finds the examples, unseen by the caller's tape, and the mean loss.

    The outer forwards update running statistics as the method says.
    """
    classifier = make_classifier(model)
    validation.check_objective(objective)
    _check_batch(classifier, model, x, y, getattr(objective, "bounds", (0.0, 1.0)))
    ops, drawn = classifier.ops, _noise(classifier, objective, x, noise, rng)
    examples = ops.unrecorded(lambda: objective.find(classifier, x, y, drawn, phase))
    losses, metrics = objective.losses(classifier, x, y, examples, phase)
    return TrainingLoss(ops.mean(losses), {n: ops.stop_gradient(ops.mean(m)) for n, m in metrics.items()})


def _pair(classifier: Classifier, x: Tensor, pair: SqueezePair) -> SqueezePair:
    _check_shapes(classifier, "pair", x, pair, 2)
    return SqueezePair(*pair)
