"""`stcore.evaluate`: natural and robust accuracy of any model on any data, with reasons to doubt them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from stcore.audit import CHECKS, QUICK, Finding
from stcore.audit import audit as findings
from stcore.base.progress import Progress, Silent
from stcore.core.dispatch import make_classifier
from stcore.errors import AuditWarning
from stcore.evaluation.accuracy import Accuracy, as_html
from stcore.evaluation.assessment import Assessment
from stcore.evaluation.attack_names import Evaluated, attacks_by_name, split
from stcore.evaluation.evaluator import Evaluator
from stcore.evaluation.given import on_host
from stcore.evaluation.results import record_arrays
from stcore.protocols import Array

AUDITED = 64
"""The number of images of an audit, the first ones: gradient masking shows on few."""


class Evaluation(dict[str, Accuracy]):
    """Accuracies by name, `natural` and one for each attack, with what they rest on.

    audit: findings on the first images, in the order of the checks; empty if none was asked for.
    records: by name, arrays of what became of each image, (N,): `predicted/ATTACK`, and of AutoAttack
        `ATTACK/attack`, `ATTACK/distance` and so on (docs/attacks.md).
    """

    def __init__(
        self, accuracies: Mapping[str, Accuracy], audit: Sequence[Finding], records: Mapping[str, Array]
    ) -> None:
        super().__init__(accuracies)
        self.audit, self.records = tuple(audit), dict(records)

    @property
    def doubts(self) -> tuple[Finding, ...]:
        """The findings that are reasons not to believe the accuracies."""
        return tuple(finding for finding in self.audit if finding.status == "warn")

    def _repr_html_(self) -> str:
        """The table that a notebook shows, with the reasons to doubt it below."""
        doubts = "".join(f"<li>{escape(f'{it.check}: {it.value}. {it.meaning}')}</li>" for it in self.doubts)
        return as_html({"": self}) + (f"<ul>{doubts}</ul>" if doubts else "")


def evaluate(
    model: Any,
    data: tuple[Any, Any] | Iterable[tuple[Any, Any]],
    attacks: Sequence[str | Evaluated] | Mapping[str, Evaluated] = ("fgsm", "pgd20"),
    *,
    epsilon: float = 8 / 255,
    norm: str = "linf",
    batch_size: int = 250,
    seed: int = 0,
    audit: bool | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Measures natural accuracy and robust accuracy under each attack, of a `torch.nn.Module` or `keras.Model`.

    model: maps pixels in [0, 1] to logits (B, C). Its weights, modes and gradients are unchanged afterwards.
    data: (x, y), or an iterable of batches (x, y) such as a loader. x: pixels (N, …) in [0, 1] in the model's own
        layout, numpy or native; y: labels, integers (N,) or (N, 1), or one-hot
        or soft (N, C), of which the likeliest class counts.
    attacks: names, objects, or a mapping of names to objects. Names: `stcore.attacks.PRESETS`, `autoattack`, its
        members joined by + such as `apgd-ce+square`, an attack with its own threat model such as `l2:0.5` or
        `l2:0.5:pgd20`, a union of these such as `union:linf:8/255+l2:0.5`, whose members are evaluated too, and
        `corruptions`. Objects: attacks, `stcore.Union`, `stcore.Corruptions`.
    epsilon, norm: radius, in units of pixels in [0, 1], and norm of attacks given by name.
    batch_size: images per batch.   seed: of the attacks' random starts.
    audit: None makes the checks of `stcore.audit.QUICK` on the first images, which cost thirteen forwards and
        seven backward passes of 64 images; True all of `stcore.audit.CHECKS`, as `stcli evaluate` does (550 passes
        an image, attacks in the ball of `epsilon` and `norm`); False none.
    progress: receives progress reports (see `stcore.base.progress`).
    Returns {"natural": Accuracy, name: Accuracy, …}, a dict with `.audit` and `.records`.
    Warns, by AuditWarning, of each finding that is a reason not to believe an accuracy.
    Raises DataError for pixels or labels out of range, UsageError for an unknown attack or a batch size below 1,
    DivergedError for a logit that is NaN or +∞.
    """
    classifier = make_classifier(model)
    images, y = on_host(classifier, data, batch_size)
    selected = attacks_by_name(attacks, epsilon, norm)
    parts = split(selected)
    assessment = Assessment(Evaluator(classifier, parts.by_batch, seed), parts, images, y, batch_size=batch_size)
    result = assessment.run(progress or Silent())
    if result is None:  # only a `stop` returns None
        raise AssertionError
    accuracies = {name: result.accuracies[name] for name in ("natural", *selected)}
    found = findings(
        classifier,
        images[:AUDITED],
        y[:AUDITED],
        epsilon=epsilon,
        norm="l2" if norm == "l2" else "linf",
        seed=seed,
        batch_size=batch_size,
        checks=() if audit is False else CHECKS if audit else QUICK,
    )
    evaluation = Evaluation(accuracies, found, record_arrays(result, np.arange(len(y))))
    for finding in evaluation.doubts:
        warnings.warn(f"{finding.check}: {finding.value}. {finding.meaning}", AuditWarning, stacklevel=2)
    return evaluation
