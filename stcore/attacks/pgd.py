"""Projected gradient attacks on whole batches: FGSM, I-FGSM, MI-FGSM and PGD, on several losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from stcore.attacks.ascent_losses import ASCENT_LOSSES
from stcore.attacks.on_batch import OnBatch
from stcore.attacks.stepped import either
from stcore.base import checks
from stcore.core.losses import margin
from stcore.core.search import ascend_watching, noise_laws, starts
from stcore.errors import UsageError
from stcore.protocols import Mode, Network, Tensor


class Attack(Protocol):
    """An attack on whole batches, as `stcore.evaluate` takes it."""

    @property
    def noise_laws(self) -> tuple[str, ...]:
        """The laws of its start noises (see `stcore.base.noise`)."""

    def find(self, model: Network, x: Tensor, y: Tensor, noise: tuple[Tensor, ...], /) -> Tensor:
        """Returns adversarial examples of x (B, …) with labels y (B,), from a noise tensor for each law."""


@dataclass(frozen=True)
class PGD(OnBatch):
    """Projected gradient ascent (Madry et al., 2018; Eq. 1) under running statistics, in the l∞ or l2 ball.

    The defaults are the paper's PGD-20: maximise the cross-entropy, ε = 8/255, α = 2/255, from a uniform start in
    the ball that is not clipped before the first gradient, last iterate; misclassified images are attacked too.

    epsilon: radius of the ball, in units of pixels in [0, 1].   step_size: α.   steps: K.
    init: `uniform` | `gaussian` (noise_std · N(0, 1)) | `natural` (x, which makes it I-FGSM).
    norm: `linf` | `l2`.   bounds: the range of pixels.
    loss: `cross_entropy` | `dlr` (Croce and Hein, 2020) | `margin` (max_{j≠y} z_j − z_y; Carlini and Wagner, 2017,
        without κ) | `probability_margin` (p_max − p_y; Xie et al., 2024) | `kl` (KL(p(x)‖p(x')), the inner search
        of TRADES) | `collaborative` (minimises the cross-entropy, Eq. 4).
    restarts: number of searches from independent starts; a later one counts only if none before found an error.
    iterate: what a search returns: `last`, or `worst`: the first misclassified iterate, or the last if none is.
        The iterates are the points after a step, without the start.
    momentum: μ of g ← μ·g + ∇/‖∇‖₁, the direction of the steps (MI-FGSM; Dong et al., 2018); 0: the plain
        gradient.
    samples: forwards of an iterate, for a random network: the gradient is their mean (Athalye et al., 2018); an
        iterate is misclassified if more than half of them are wrong.
    Raises UsageError for a value out of range, or for settings that exclude each other.
    """

    epsilon: float = 8 / 255
    step_size: float = 2 / 255
    steps: int = 20
    init: str = "uniform"
    noise_std: float = 1e-3
    norm: str = "linf"
    bounds: tuple[float, float] = (0.0, 1.0)
    loss: str = "cross_entropy"
    restarts: int = 1
    iterate: str = "last"
    momentum: float = 0.0
    samples: int = 1

    def __post_init__(self) -> None:
        checks.search(self, inits=("uniform", "gaussian", "natural"))
        checks.choice("loss", self.loss, ASCENT_LOSSES)
        checks.whole("restarts", self.restarts, 1)
        checks.choice("iterate", self.iterate, ("last", "worst"))
        checks.number("momentum", self.momentum)
        checks.whole("samples", self.samples, 1)
        if self.iterate == "worst":
            checks.whole("steps (iterate = worst)", self.steps, 1)
        if self.init == "natural" and self.loss == "kl":
            raise UsageError("init: with loss = kl expected uniform or gaussian, as at x its gradient is zero")
        if self.init == "natural" and self.restarts > 1:
            raise UsageError(
                f"restarts: with init = natural expected 1, as all restarts are equal; received {self.restarts}"
            )
        if self.loss == "collaborative" and (self.restarts > 1 or self.iterate == "worst"):
            raise UsageError("loss: with restarts or iterate = worst expected one that finds errors")

    @property
    def noise_laws(self) -> tuple[str, ...]:
        return noise_laws(self, count=self.restarts)

    def find(self, model: Network, x: Tensor, y: Tensor, noise: tuple[Tensor, ...], /) -> Tensor:
        """Returns adversarial examples, shaped like x.

        Costs K forwards for each restart, one more between two restarts, each `samples` times, and for `kl` one
        of x.
        """
        ops, loss = model.ops, ASCENT_LOSSES[self.loss](model, x, y)
        zero = ops.sum(x - x)

        def keep(point: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
            *logits, kept, found, counts = rest
            wrong = sum((ops.flag(margin(ops, z, y) > 0.0, found) for z in logits), zero) / len(logits)
            fresh = counts * (1.0 - found) * ops.flag(wrong > 0.5, found)
            return *either(ops, fresh, (point,), (kept,)), found + fresh, ops.ones_like(counts)

        def ascend(start: Tensor, kept: Tensor, found: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            watch = keep if self.iterate == "worst" else lambda point, *rest: rest[-3:]
            seen = (kept, found, zero)  # `watch` sees the start first, which does not count
            point, (kept, found, _) = ascend_watching(
                model, x, start, loss, self, watch, seen, self.momentum, self.samples
            )
            return point, kept, found

        kept, found = x, zero
        *earlier, final = starts(self, x, noise)
        for start in earlier:
            point, kept, found = ascend(start, kept, found)
            logits = (model.logits(point, Mode.EVAL) for _ in range(self.samples))
            kept, found, _ = keep(point, *logits, kept, found, ops.ones_like(zero))
        point, kept, found = ascend(final, kept, found)
        return either(ops, found, (kept,), (point,))[0]  # the very last point is returned unjudged


def FGSM(epsilon: float = 8 / 255, norm: str = "linf", bounds: tuple[float, float] = (0.0, 1.0)) -> PGD:
    """Returns the fast gradient sign method (Goodfellow et al., 2015): one step of size ε from x."""
    return PGD(epsilon, step_size=epsilon, steps=1, init="natural", norm=norm, bounds=bounds)
