"""Audit of an evaluation: checks for reasons to doubt its robust accuracies.

A network can be hard to attack and yet not robust: its gradients vanish or mislead ("gradient masking"; Athalye,
Carlini and Wagner, 2018), or its outputs are random. Checks on a few images reveal most such cases. They raise
doubt or find none; they cannot prove that a network is robust.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from stcore.audit.finding import Check, Finding
from stcore.audit.questions import CHECKS, QUICK
from stcore.audit.subject import Subject
from stcore.protocols import Array, Classifier

__all__ = ["CHECKS", "QUICK", "Finding", "audit"]

_MEANINGLESS = "Not checked, since the check {} failed."
_FIRST = 2  # the number of checks that all others depend on


def audit(
    classifier: Classifier,
    images: Array,
    labels: Array,
    *,
    epsilon: float,
    norm: str = "linf",
    bounds: tuple[float, float] = (0.0, 1.0),
    seed: int = 0,
    batch_size: int = 250,
    queries: int = 200,
    transfer: Mapping[str, Array] | None = None,
    checks: Sequence[Check] = CHECKS,
    advance: Callable[[int], None] = lambda images: None,
) -> list[Finding]:
    """Runs each check on a few images (64 to 100 are enough) and returns their findings in order.

    images: host images (N, H, W, C) or flat, uint8 or floats within the bounds.   labels: (N,), integers.
    epsilon: radius of the ball, in units of pixels in [0, 1].   norm: `linf` or `l2`.   bounds: of the pixels.
    seed: of the attacks' random starts.   batch_size: images per batch.   queries: of Square per image.
    transfer: by name, adversarial examples (N, …) of the same images, made on another network in the same ball.
    checks: all of `CHECKS`, or those of them that take no attack, `QUICK`.
    advance: called with the number of images after every check; len(checks) · N in all.

    Costs about 550 forward and backward passes per image, 440 of them in PGD-20, PGD-100 and C&W-100; an image
    that withstands those costs another forward per query.
    Raises UsageError for settings out of range, or transferred examples of another shape or outside the ball.
    """
    subject = Subject(
        classifier,
        images,
        labels,
        epsilon=epsilon,
        norm=norm,
        bounds=bounds,
        seed=seed,
        batch_size=batch_size,
        queries=queries,
        transfer=transfer or {},
    )
    findings: list[Finding] = []
    for check in checks:
        failed = next((finding.check for finding in findings[:_FIRST] if finding.status == "warn"), None)
        findings.append(check.run(subject) if failed is None else check.skip(_MEANINGLESS.format(f"“{failed}”")))
        advance(len(images))
    return findings
