"""The inner loop of Algorithm 1: K times select from the triplet {x, x', x''}, climb the divergence, project."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from stcore.divergences import DIVERGENCES
from stcore.protocols import Classifier, Mode, Pullback, Tensor
from stcore.search import threat_of
from stcore.triplet import Choice, Triplet, roles

if TYPE_CHECKING:
    from stcore.squeeze import SqueezeConfig


class SqueezePair(NamedTuple):
    """The two neighbours of a batch: native tensors shaped like x."""

    adversarial: Tensor
    collaborative: Tensor


class Forward(NamedTuple):
    """Logits, and the way back from them to the pixels."""

    logits: Tensor
    pullback: Pullback


def search(
    model: Classifier, x: Tensor, y: Tensor, pair: SqueezePair, config: SqueezeConfig, steps: int
) -> SqueezePair:
    """The pair after `steps` updates. The weights are fixed: x is forwarded once and its pullback reused."""
    if steps == 0:
        return pair
    natural = forward(model, x)

    def body(adversarial: Tensor, collaborative: Tensor) -> SqueezePair:
        return update(model, x, y, natural, SqueezePair(adversarial, collaborative), config)

    return SqueezePair(*model.ops.fori_loop(steps, body, pair))


def forward(model: Classifier, x: Tensor) -> Forward:
    """Logits under batch statistics that write nothing, differentiable with respect to the pixels."""
    return Forward(*model.ops.vjp(lambda pixels: model.logits(pixels, Mode.BATCH), x))


def update(
    model: Classifier, x: Tensor, y: Tensor, natural: Forward, pair: SqueezePair, config: SqueezeConfig
) -> SqueezePair:
    """One pass of the inner loop: select from the triplet, climb the divergence, project."""
    ops, threat = model.ops, threat_of(config)
    forwards = Triplet(natural, forward(model, pair.adversarial), forward(model, pair.collaborative))
    logits = Triplet(*(one.logits for one in forwards))
    highest, lowest = roles(ops, logits, y)

    def gap(*z: Tensor) -> Tensor:
        divergence = DIVERGENCES[config.inner_divergence or config.divergence]
        return divergence(ops, lowest(Triplet(*z)), highest(Triplet(*z)), config.stop_gradient_targets)

    value, pullback = ops.vjp(gap, *logits)
    cotangents = pullback(ops.ones_like(value))  # of the sum over the batch: a sign knows no scale
    gradients = Triplet(*(one.pullback(g)[0] for one, g in zip(forwards, cotangents, strict=True)))

    def climb(choose: Choice) -> Tensor:
        point, gradient = choose(Triplet(x, *pair)), choose(gradients)
        return threat.project(ops, threat.step(ops, point, gradient, config.step_size), x)

    return SqueezePair(adversarial=climb(highest), collaborative=climb(lowest))
