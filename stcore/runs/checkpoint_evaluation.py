"""Evaluating weights of a planned network: what `stcli evaluate` does, without its talk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stcore.attacks import preset
from stcore.audit import CHECKS, Finding, audit
from stcore.base.interrupts import Interrupt
from stcore.base.progress import Progress, stretch
from stcore.core.validation import check_model
from stcore.data import Splits
from stcore.data.batches import Batch
from stcore.evaluation.assessment import Assessment, AssessmentResult, EvaluationStore
from stcore.evaluation.attack_names import attacks_by_name, split_cascades
from stcore.evaluation.evaluator import Evaluator
from stcore.evaluation.subset import select_indices
from stcore.protocols import Array
from stcore.runs.evaluation_identity import identity
from stcore.runs.plan import Plan
from stcore.runs.preparation import build_model, load_data, prepare

AUDITED = 64
"""Images that the audit looks at, the first ones: a sign of masking shows on few."""


@dataclass
class CheckpointEvaluation:
    """A plan's attacks on its network, weights yet to be loaded; traced once for all weights.

    data: the plan's data set, where it is loaded already.
    places: which of the test images, by their place in the test split.
    """

    plan: Plan
    subset: str | None = None
    shard: str | None = None
    save_examples: bool = False
    data: Splits | None = None

    def __post_init__(self) -> None:
        backend, device = prepare(self.plan)
        self.splits = self.data or load_data(self.plan)
        self.classifier = backend.make_classifier(build_model(self.plan, device, self.splits))
        self.asked = attacks_by_name(self.plan.attacks, self.plan.eval_epsilon, self.plan.norm)
        by_batch, self.cascades = split_cascades(self.asked)
        self.evaluator = Evaluator(self.classifier, by_batch, self.plan.seed)
        test = self.splits.test
        self.places = select_indices(len(test), self.subset, self.shard)
        evaluated = test.subset(self.places)
        self.images, self.labels = evaluated.images, evaluated.labels

    def identity(self, weights: Mapping[str, Array]) -> dict[str, Any]:
        """What the figures depend on."""
        return identity(
            self.plan,
            self.splits.test,
            weights,
            images=len(self.places),
            subset=self.subset,
            shard=self.shard,
            examples=self.save_examples,
        )

    def load(self, weights: Mapping[str, Array]) -> None:
        """Puts the weights into the network, and looks at what it says."""
        self.classifier.load_weights(weights)
        check_model(self.classifier, self.classifier.images(self.images[:2]), self.splits.test.num_classes)

    def run(
        self, progress: Progress, store: EvaluationStore | None, interrupt: Interrupt
    ) -> AssessmentResult | None:
        """All attacks on the weights that were loaded last; None where Ctrl-C came."""
        assessment = Assessment(
            self.evaluator,
            self.cascades,
            self.images,
            self.labels,
            batch_size=self.plan.eval_batch_size,
            positions=self.places,
            keep_examples=self.save_examples,
        )
        return assessment.run(progress, store, interrupt.came, "test")

    def examples(self) -> Array:
        """Adversarial examples of the audited images by PGD-20, for another network to be shown."""
        count = min(AUDITED, len(self.labels))
        batch = Batch(self.images[:count], self.labels[:count], self.places[:count])
        attack = preset("pgd20", self.plan.eval_epsilon, "l2" if self.plan.norm == "l2" else "linf")
        found = Evaluator(self.classifier, {"pgd20": attack}, self.plan.seed).evaluate_batch(batch)[2]["pgd20"]
        examples: Array = self.classifier.host_images(found)
        return examples

    def audit(self, progress: Progress, transfer: Mapping[str, Array] | None) -> list[Finding]:
        """Signs that the figures of these weights should not be believed; see `stcore.audit`."""
        count = min(AUDITED, len(self.labels))
        with stretch(progress, "audit", count * len(CHECKS)):
            return audit(
                self.classifier,
                self.images[:count],
                self.labels[:count],
                epsilon=self.plan.eval_epsilon,
                norm=self.plan.norm,
                seed=self.plan.seed,
                batch_size=self.plan.eval_batch_size,
                transfer=transfer or None,
                advance=progress.advance,
            )
