"""Checkpoint evaluation: attacks on weights of a planned network, as `stcli evaluate` runs them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from stcore.attacks import bpda, preset
from stcore.audit import CHECKS, Finding, audit
from stcore.audit.evaluation import AUDITED
from stcore.base import checks
from stcore.base.interrupts import Interrupt
from stcore.base.progress import Progress, stretch
from stcore.core.validation import check_model
from stcore.data.batches import Batch
from stcore.errors import UsageError
from stcore.evaluation.assessment import Assessment, AssessmentResult, EvaluationStore
from stcore.evaluation.attack_names import attacks_by_name, split
from stcore.evaluation.corruptions import Corruptions
from stcore.evaluation.evaluator import Evaluator
from stcore.evaluation.results import PRECISIONS, STRICT
from stcore.evaluation.subset import select_indices
from stcore.protocols import Array
from stcore.runs.evaluation_identity import identity
from stcore.runs.preparation import Setup


@dataclass
class CheckpointEvaluation:
    """A plan's attacks on its network; traced once for all the weights that `load` loads.

    precision: fp32 or tf32, of all products within `context`.
    bpda: names of layers, joined by commas, that have the identity's backward pass there (`stcore.attacks.bpda`).
    corrupted: a folder of published corrupted images, for `corruptions`.
    places: the positions of the evaluated images in the test split.
    """

    setup: Setup
    subset: str | None = None
    shard: str | None = None
    save_examples: bool = False
    precision: str = STRICT
    bpda: str | None = None
    corrupted: str | None = None

    def __post_init__(self) -> None:
        checks.choice("precision", self.precision, PRECISIONS)
        if self.precision != STRICT and self.setup.plan.runtime.dtype == "float64":
            raise UsageError(
                f"dtype: expected float32 with {self.precision}; received float64, whose precision it would throw "
                "away. Leave one of the two out"
            )
        self.plan, self.test = self.setup.plan, self.setup.test
        self.classifier = self.setup.classifier()
        asked = attacks_by_name(self.plan.evaluation.attacks, self.plan.evaluation.epsilon, self.plan.norm)
        if self.corrupted is not None:
            if not split(asked).corruptions:
                raise UsageError(
                    f"corrupted: expected corruptions among the attacks; received {', '.join(asked) or 'none'}"
                )
            asked = {
                name: replace(attack, folder=self.corrupted) if isinstance(attack, Corruptions) else attack
                for name, attack in asked.items()
            }
        self.asked, self.parts = asked, split(asked)
        self.evaluator = Evaluator(self.classifier, self.parts.by_batch, self.plan.seed)
        self.places = select_indices(len(self.test), self.subset, self.shard)
        evaluated = self.test.subset(self.places)
        self.images, self.labels = evaluated.images, evaluated.labels
        for corruptions in self.parts.corruptions.values():  # before a folder is made
            corruptions.check(self.images, self.labels, self.places)

    def identity(self, weights: Mapping[str, Array]) -> dict[str, Any]:
        """The settings and data that the accuracies of these weights depend on."""
        return identity(
            self.plan,
            self.test,
            weights,
            self.asked,
            images=len(self.places),
            subset=self.subset,
            shard=self.shard,
            examples=self.save_examples,
            **self.ways,
        )

    @property
    def ways(self) -> dict[str, Any]:
        """How it computes and differentiates, by the names of its identity."""
        return {"precision": self.precision, "bpda": self.bpda}

    @contextmanager
    def context(self) -> Iterator[None]:
        """Context of this evaluation's precision and backward passes.

        Raises DeviceError if the device does not support the precision, UsageError as `stcore.attacks.bpda` does.
        """
        classifier: Any = self.classifier
        layers = () if self.bpda is None else self.bpda.split(",")
        with ExitStack() as entered:
            entered.enter_context(self.setup.backend.evaluating(self.precision, self.setup.device))
            if layers:
                entered.enter_context(bpda(classifier.model, layers))
            yield

    def load(self, weights: Mapping[str, Array]) -> None:
        """Loads the weights into the network, and checks its predictions on two images."""
        self.classifier.load_weights(weights)
        check_model(self.classifier, self.classifier.images(self.images[:2]), self.test.num_classes)

    def run(
        self, progress: Progress, store: EvaluationStore | None, interrupt: Interrupt
    ) -> AssessmentResult | None:
        """Runs all attacks on the loaded weights; None after Ctrl-C."""
        assessment = Assessment(
            self.evaluator,
            self.parts,
            self.images,
            self.labels,
            batch_size=self.plan.evaluation.batch_size,
            positions=self.places,
            keep_examples=self.save_examples,
        )
        return assessment.run(progress, store, interrupt.came, "test")

    def examples(self) -> Array:
        """Adversarial examples of the audited images by PGD-20, for the transfer to another network."""
        count = min(AUDITED, len(self.labels))
        batch = Batch(self.images[:count], self.labels[:count], self.places[:count])
        attack = preset("pgd20", self.plan.evaluation.epsilon, "l2" if self.plan.norm == "l2" else "linf")
        found = Evaluator(self.classifier, {"pgd20": attack}, self.plan.seed).evaluate_batch(batch)[2]["pgd20"]
        examples: Array = self.classifier.host_images(found)
        return examples

    def audit(self, progress: Progress, transfer: Mapping[str, Array] | None) -> list[Finding]:
        """Signs that the accuracies of these weights are not reliable; see `stcore.audit`."""
        count = min(AUDITED, len(self.labels))
        with stretch(progress, "audit", count * len(CHECKS)):
            return audit(
                self.classifier,
                self.images[:count],
                self.labels[:count],
                epsilon=self.plan.evaluation.epsilon,
                norm=self.plan.norm,
                seed=self.plan.seed,
                batch_size=self.plan.evaluation.batch_size,
                transfer=transfer or None,
                advance=progress.advance,
            )
