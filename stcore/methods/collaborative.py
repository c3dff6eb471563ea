"""Training with collaborative examples alone (paper Eq. 5, Fig. 4): mean CE(f(x), y) + β · KL(p(x)‖p(x'')).

x'' *minimises* the cross-entropy (Eq. 4). The paper gives ε, α and K; β, start and modes are our choice, those of
TRADES: β = 6, small noise, a search under running statistics, both outer forwards in training mode, the natural
one shared by the two terms.
"""

from __future__ import annotations

from dataclasses import dataclass

from stcore.base import checks
from stcore.core.divergences import kl
from stcore.core.losses import cross_entropy
from stcore.core.objective import Passes, PerExample
from stcore.core.search import noise_laws
from stcore.methods.metrics import with_squares
from stcore.methods.neighbours import find_each
from stcore.protocols import Mode, Network, Tensor


@dataclass(frozen=True)
class CollaborativeConfig:
    """The settings of Eq. 5; ε, α and K are the paper's (section 3.2).

    epsilon: radius of the ball, in units of pixels in [0, 1].   step_size: α.   steps: K.
    norm: `linf` | `l2`.   bounds: the range of pixels.
    beta: weight of the KL term.   init: `gaussian` (noise_std · N(0, 1)) | `uniform` (in the ball) | `natural`.

    Raises UsageError for a value out of range.
    """

    epsilon: float = 8 / 255
    step_size: float = 2 / 255
    steps: int = 10
    beta: float = 6.0
    init: str = "gaussian"
    noise_std: float = 1e-3
    norm: str = "linf"
    bounds: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        checks.search(self, inits=("gaussian", "uniform", "natural"))
        checks.number("beta", self.beta)

    @property
    def noise_laws(self) -> tuple[str, ...]:
        return noise_laws(self, count=1)

    @property
    def passes(self) -> Passes:
        return Passes(self.steps + 2, self.steps, 2)

    def phase(self, epoch: int) -> int:
        return 0

    def find(
        self, model: Network, x: Tensor, y: Tensor, noise: tuple[Tensor, ...], phase: int = 0
    ) -> tuple[Tensor, ...]:
        """Finds x'' by K steps that minimise the cross-entropy."""
        return find_each(model, x, noise, lambda z: -cross_entropy(model.ops, z, y), self)

    def losses(
        self, model: Network, x: Tensor, y: Tensor, examples: tuple[Tensor, ...], phase: int = 0
    ) -> PerExample:
        """Forwards x, then x''; both update the running statistics."""
        ops, (example,) = model.ops, examples
        natural_logits = model.logits(x, Mode.TRAIN, dropout=True)
        logits = model.logits(example, Mode.TRAIN, dropout=True)
        natural = cross_entropy(ops, natural_logits, y)
        gap = kl(ops, ops.log_softmax(natural_logits), ops.log_softmax(logits))
        logged = with_squares(natural_loss=natural, collaborative_loss=cross_entropy(ops, logits, y))
        return PerExample(natural + self.beta * gap, {**logged, "divergence": gap})
