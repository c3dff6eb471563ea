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

import weakref
from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from stcore import inspection
from stcore.dispatch import make_classifier
from stcore.errors import UsageError
from stcore.methods.squeeze import SqueezeConfig
from stcore.methods.squeeze_search import SqueezePair
from stcore.noise import sample
from stcore.objective import Objective, StepResult, WeightPerturbation, training_step
from stcore.protocols import Classifier, Learner, Network, Tensor
from stcore.seeding import Stream


class HasNoise(Protocol):
    """A method or an attack, as far as its noise goes."""

    @property
    def noise_laws(self) -> tuple[str, ...]: ...


class HasBounds(Protocol):
    """A search, as far as the range of its pixels goes."""

    @property
    def bounds(self) -> tuple[float, float]: ...


class Finds(HasNoise, HasBounds, Protocol):
    """A search for examples, be it an attack's or squeeze training's."""

    def find(self, model: Network, x: Tensor, y: Tensor, noise: tuple[Tensor, ...], /) -> Any: ...


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
    return SqueezePair(*classifier.ops.unrecorded(lambda: config.climb(classifier, x, y, pair, steps=1)))


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
    inspection.check_objective(objective)
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
    inspection.check_objective(objective)
    _check_batch(classifier, model, x, y, getattr(objective, "bounds", (0.0, 1.0)))
    ops, drawn = classifier.ops, _noise(classifier, objective, x, noise, rng)
    examples = ops.unrecorded(lambda: objective.find(classifier, x, y, drawn, phase))
    losses, metrics = objective.losses(classifier, x, y, examples, phase)
    return TrainingLoss(ops.mean(losses), {n: ops.stop_gradient(ops.mean(m)) for n, m in metrics.items()})


_known: weakref.WeakKeyDictionary[Any, tuple[Hashable, int]] = weakref.WeakKeyDictionary()
"""The number of classes of each network that was looked at."""


def checked(model: Any, x: Tensor, y: Tensor, search: HasBounds) -> Classifier:
    """The model as a classifier, when it and the batch are what a search of these bounds can work on."""
    classifier = make_classifier(model)
    _check_batch(classifier, model, x, y, search.bounds)
    return classifier


def _check_batch(classifier: Classifier, key: Any, x: Tensor, y: Tensor, bounds: tuple[float, float]) -> None:
    classifier.shape(x)
    if isinstance(y, (np.ndarray, list, tuple)):
        raise TypeError(f"y: expected a tensor, as x is; received {type(y).__qualname__}. Convert it")
    pixels, labels = classifier.host(x), classifier.host(y)
    if pixels is None or labels is None:
        return
    inspection.check_pixels(pixels, bounds)
    network = classifier.network()
    if key not in _known or _known[key][0] != network:  # one forward, when a model is new or has a new head
        _known[key] = network, inspection.check_model(classifier, x) or 0
    inspection.check_labels(labels, _known[key][1], len(pixels))


def _pair(classifier: Classifier, x: Tensor, pair: SqueezePair) -> SqueezePair:
    _check_shapes(classifier, "pair", x, pair, 2)
    return SqueezePair(*pair)


def _check_shapes(classifier: Classifier, name: str, x: Tensor, given: Any, count: int) -> None:
    if len(given) != count:
        raise UsageError(f"{name}: expected {count} tensors shaped like x; received {len(given)}")
    shapes = [classifier.shape(one) for one in (x, *given)]
    for shape in shapes:
        if shape[1:] != shapes[0][1:] or (shape[0] != shapes[0][0] and None not in (shape[0], shapes[0][0])):
            raise UsageError(f"{name}: expected tensors shaped like x, {shapes[0]}; received shape {shape}")


def _noise(
    classifier: Classifier,
    search: HasNoise,
    x: Tensor,
    noise: tuple[Tensor, ...] | None,
    rng: np.random.Generator | int | None,
) -> tuple[Tensor, ...]:
    """The noise that was given, checked; or else drawn as host images, so that no layout changes the numbers."""
    laws = search.noise_laws
    if noise is not None:
        _check_shapes(classifier, "noise", x, noise, len(laws))
        return tuple(noise)
    if laws and classifier.host(x) is None:
        raise UsageError("noise: expected tensors, since a draw here would be frozen into the traced graph")
    seed = int(np.random.default_rng(rng).integers(2**63))
    batch, *shape = (int(n) for n in classifier.shape(x) if n is not None)
    arrays = sample(laws, seed, Stream.NOISE, np.arange(batch), tuple(shape), dtype="float64")
    return tuple(classifier.images(array) for array in arrays)


def _found(
    search: Finds,
    classifier: Classifier,
    x: Tensor,
    y: Tensor,
    noise: tuple[Tensor, ...] | None,
    rng: np.random.Generator | int | None,
) -> Any:
    """The examples a search finds from its noise, unseen by whatever the caller differentiates."""
    drawn = _noise(classifier, search, x, noise, rng)
    return classifier.ops.unrecorded(lambda: search.find(classifier, x, y, drawn))


def attack_batch(
    attack: Finds,
    model: Any,
    x: Tensor,
    y: Tensor,
    noise: tuple[Tensor, ...] | None,
    rng: np.random.Generator | int | None,
) -> Tensor:
    """Adversarial examples of one batch by an attack of `stcore.attacks`."""
    return _found(attack, checked(model, x, y, attack), x, y, noise, rng)
