"""Whether a network has learnt anything: if not, no figure of it means anything, and its robust ones least."""

from __future__ import annotations

from collections.abc import Iterator

from stcore.report.blocks import Text
from stcore.report.gathered import GatheredRun
from stcore.report.phrases import accuracy

ONE_CLASS = "several classes"
"""The audit's question whether images of several classes get more than one."""


def useless(run: GatheredRun, checkpoint: str = "best") -> Iterator[Text]:
    """A warning where a finished run's network gives every image one class, as its audit found, or is not clearly
    more often right than such a one would be, of classes that are all as frequent."""
    why = list(_reasons(run, checkpoint))
    if why:
        yield Text(
            f"{run.name}, {checkpoint} checkpoint: this network has learnt nothing, for {' and '.join(why)}. What "
            "does not look at its input cannot be misled by it: its accuracy under attack is no robustness. "
            "Do not use it.",
            "warning",
        )


def _reasons(run: GatheredRun, checkpoint: str) -> Iterator[str]:
    natural = run.checkpoints.get(checkpoint, {}).get("natural")
    if natural is not None and run.classes and natural["interval_95"][0] <= 1 / run.classes:
        cell = accuracy(natural)
        yield (
            f"its natural accuracy, {cell.text} % {cell.detail}, is not clearly above the "
            f"{100 / run.classes:.3g} % of guessing one of {run.classes} classes"
        )
    own = (one for one in run.evaluations if one.checkpoint == checkpoint and one.found and not one.other)
    findings = [finding for one in own for finding in (one.found or {})["audit"] or ()]
    if any(finding["check"] == ONE_CLASS and finding["status"] == "warn" for finding in findings):
        yield "its audit found that every image gets the same class"
