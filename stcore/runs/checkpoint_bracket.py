"""Bracket of a checkpoint's robust accuracy, as `stcli bracket` finds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from stcore.audit.bracket import Bound, Bracket, Bracketing, Certificates, Proofs, read_layers
from stcore.base.interrupts import Interrupt
from stcore.base.progress import Progress
from stcore.bounds.proof import ALPHA
from stcore.bounds.smoothing import Smoothing
from stcore.evaluation.assessment import EvaluationStore
from stcore.evaluation.results import STRICT, as_json
from stcore.protocols import Array
from stcore.runs.checkpoint_evaluation import CheckpointEvaluation


@dataclass
class CheckpointBracket(CheckpointEvaluation):
    """A lower bound and a plan's attacks on its network.   method, smoothing, check: as in `stcore.bracket`."""

    method: str = ALPHA
    smoothing: Smoothing | None = None
    check: bool = False

    def identity(self, weights: Mapping[str, Array]) -> dict[str, Any]:
        bound = {"method": self.method} if self.smoothing is None else {"smoothing": asdict(self.smoothing)}
        attacks: dict[str, Any] = {} if self.smoothing is None else {"attacks": {}}
        return {**super().identity(weights), **attacks, "bracket": {**bound, "check": self.check}}

    def bracket(self, progress: Progress, store: EvaluationStore | None, interrupt: Interrupt) -> Bracket | None:
        """Bounds and attacks the loaded weights; None after Ctrl-C."""
        epsilon, norm = self.plan.evaluation.epsilon, self.plan.norm
        bound: Bound = (
            Proofs(read_layers(self.classifier, self.images.shape[1:]), epsilon, norm, self.method)
            if self.smoothing is None
            else Certificates(self.smoothing, epsilon, norm)
        )
        bracketing = Bracketing(
            self.evaluator,
            self.parts,
            bound,
            self.images,
            self.labels,
            batch_size=self.plan.evaluation.batch_size,
            positions=self.places,
            check=self.check,
        )
        return bracketing.run(progress, store, interrupt.came)


def result_json(found: Bracket) -> dict[str, Any]:
    """The content of a bracket's result.json."""
    return {
        "images": found.total,
        "precision": STRICT,
        "proved": found.proved,
        "broken": found.broken,
        "undecided": found.undecided,
        "accuracies": as_json({"natural": found.natural, "at least": found.lower, "at most": found.upper}),
        "seconds_per_image": round(found.seconds, 3),
    }
