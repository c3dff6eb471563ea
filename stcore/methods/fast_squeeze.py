"""Squeeze training by a single step: a pair of neighbours for one gradient.

At a noisy start x0 one gradient of the cross-entropy gives the adversarial example x' = Π(x0 + α·sign ∇). The
collaborative example is x0 itself, or what the same gradient finds downhill, x'' = Π(x0 − α·sign ∇). The gap is
squeezed as in Eq. 6, with the same selection. Where x0 is the collaborative example and stands for the image too,
two forwards serve the loss, 8 units a step; else three, 11 units. Squeeze training with K = 10 costs 60.

Ours; no publication describes it. Without the squeeze it is the search of FGSM-RS (Wong et al., 2020).
"""

from __future__ import annotations

from dataclasses import dataclass

from stcore.base import checks
from stcore.core.divergences import DIVERGENCES, Divergence
from stcore.core.objective import Passes, PerExample
from stcore.methods import single_step_search
from stcore.methods.single_step_search import ascend, noise_laws, start
from stcore.methods.squeeze_loss import squeeze
from stcore.protocols import Mode, Network, Tensor

COLLABORATIVE = ("start", "descent")
NATURAL = ("start", "image")


@dataclass(frozen=True)
class FastSqueezeConfig:
    """The settings of single-step squeeze training; the defaults are ours for CIFAR-10.

    epsilon: radius ε of the ball, in units of pixels in [0, 1].   norm: `linf` | `l2`.   bounds: range of pixels.
    start_scale: k, the radius of the uniform start in units of ε.   step_scale: α/ε.   steps: number of steps.
    project: whether each step is projected to the ball.
    search_mode: the batch-norm mode of the search: eval | batch | train.
    collaborative: `start` (x0) | `descent` (x'').
    natural: the natural member of the triplet, whose cross-entropy is minimised: `start` (x0) | `image` (x).
    beta: weight of the divergence.   divergence, stop_gradient_targets, label_smoothing: as in squeeze training.

    Raises UsageError for a value out of range.
    """

    epsilon: float = 8 / 255
    norm: str = "linf"
    bounds: tuple[float, float] = (0.0, 1.0)
    start_scale: float = 1.0
    step_scale: float = 1.0
    steps: int = 1
    project: bool = True
    search_mode: str = "batch"
    collaborative: str = "start"
    natural: str = "start"
    beta: float = 6.0
    divergence: str | Divergence = "symmetric_kl"
    stop_gradient_targets: bool = True
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        single_step_search.check(self)
        checks.choice("collaborative", self.collaborative, COLLABORATIVE)
        checks.choice("natural", self.natural, NATURAL)
        checks.number("beta", self.beta)
        DIVERGENCES.find(self.divergence)
        checks.number("label_smoothing", self.label_smoothing, high=1.0)

    @property
    def noise_laws(self) -> tuple[str, ...]:
        return noise_laws(self)

    @property
    def passes(self) -> Passes:
        outer = 2 if self.collaborative == self.natural == "start" else 3
        return Passes(self.steps + outer, self.steps, outer)

    def phase(self, epoch: int) -> int:
        return 0

    def find(
        self, model: Network, x: Tensor, y: Tensor, noise: tuple[Tensor, ...], phase: int = 0
    ) -> tuple[Tensor, ...]:
        """Finds x', x'' if it is a descent's, and x0 if the loss needs it."""
        point = start(model.ops, self, x, noise)
        found = ascend(model, x, y, point, self, both_ways=self.collaborative == "descent")
        return found if (self.collaborative, self.natural) == ("descent", "image") else (*found, point)

    def natural_of(self, x: Tensor, examples: tuple[Tensor, ...]) -> Tensor:
        """The natural member of the triplet: x, or the start that stands for it."""
        return x if self.natural == "image" else examples[-1]

    def losses(
        self, model: Network, x: Tensor, y: Tensor, examples: tuple[Tensor, ...], phase: int = 0
    ) -> PerExample:
        """Returns Eq. 6 per example, after a selection.

        Forwards x'' (BATCH), if it is a third member, then the natural member and x' (TRAIN): the latter two
        update the running statistics.
        """
        adversarial, collaborative = examples[:2]
        natural = self.natural_of(x, examples)
        others = [] if natural is collaborative else [model.logits(collaborative, Mode.BATCH, dropout=True)]
        pair = [model.logits(example, Mode.TRAIN, dropout=True) for example in (natural, adversarial)]
        return squeeze(model.ops, [*pair, *others], y, self)
