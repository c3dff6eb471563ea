"""Bridged adversarial training (BAT; Kim et al., 2021): TRADES' divergence in m small segments from x to x'.

    mean CE(f(x), y) + β · Σ over k = 1…m of KL(p(x_{k−1})‖p(x_k)),   x_k = x + (k/m)·(x' − x)

x' maximises the cross-entropy or TRADES' KL under running statistics; no term is held constant. m = 1 with the KL
is TRADES with a shared natural forward. The paper quotes its row without m and β; ours are m = 2, β = 6.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from stcore.base import checks
from stcore.core.divergences import from_natural, kl
from stcore.core.losses import cross_entropy
from stcore.core.objective import Passes, PerExample
from stcore.core.search import noise_laws
from stcore.methods.neighbours import find_each, metrics
from stcore.protocols import Mode, Network, Tensor

INNER = ("cross_entropy", "kl")


@dataclass(frozen=True)
class BatConfig:
    """The settings of BAT, with the ball and step of the paper's protocol (section 5).

    epsilon: radius of the ball, in units of pixels in [0, 1].   step_size: α.   steps: K.
    norm: `linf` | `l2`.   bounds: the range of pixels.
    segments: m, the number of segments.   beta: weight of the sum of their KLs.
    inner: what x' maximises, cross_entropy | kl (from the natural prediction).
    init: `gaussian` (noise_std · N(0, 1)) | `uniform` (in the ball).
    Raises UsageError for a value out of range.
    """

    epsilon: float = 8 / 255
    step_size: float = 2 / 255
    steps: int = 10
    segments: int = 2
    beta: float = 6.0
    inner: str = "cross_entropy"
    init: str = "gaussian"
    noise_std: float = 1e-3
    norm: str = "linf"
    bounds: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        checks.search(self, inits=("gaussian", "uniform"))
        checks.whole("segments", self.segments, 1)
        checks.number("beta", self.beta)
        checks.choice("inner", self.inner, INNER)

    @property
    def noise_laws(self) -> tuple[str, ...]:
        return noise_laws(self, count=1)

    @property
    def passes(self) -> Passes:
        outer = 1 + self.segments
        return Passes((self.inner == "kl") + self.steps + outer, self.steps, outer)

    def phase(self, epoch: int) -> int:
        return 0

    def find(
        self, model: Network, x: Tensor, y: Tensor, noise: tuple[Tensor, ...], phase: int = 0
    ) -> tuple[Tensor, ...]:
        """Finds x' by K steps that maximise the inner loss."""
        if self.inner == "cross_entropy":
            return find_each(model, x, noise, lambda z: cross_entropy(model.ops, z, y), self)
        return find_each(model, x, noise, from_natural(model, x), self)

    def losses(
        self, model: Network, x: Tensor, y: Tensor, examples: tuple[Tensor, ...], phase: int = 0
    ) -> PerExample:
        """Forwards x, the points between and x', in this order; every forward updates the running statistics."""
        ops, (adversarial,) = model.ops, examples
        between = [x + (k / self.segments) * (adversarial - x) for k in range(1, self.segments)]
        logits = [model.logits(point, Mode.TRAIN, dropout=True) for point in (x, *between, adversarial)]
        strides = [(ops.log_softmax(before), ops.log_softmax(after)) for before, after in pairwise(logits)]
        first, *rest = [kl(ops, log_p, log_q) for log_p, log_q in strides]
        natural, gap = cross_entropy(ops, logits[0], y), sum(rest, first)
        logged = metrics(ops, natural, [cross_entropy(ops, logits[-1], y)], gap)
        return PerExample(natural + self.beta * gap, logged)
