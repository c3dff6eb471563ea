"""Closing table and sentences of `stcli demo`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from stcore.audit import Finding
from stcore.cli.fitting import Fitting, fitting
from stcore.evaluation.accuracy import Accuracy, percent

ATTACKS = ("natural", "pgd20", "autoattack")


def table(scores: Mapping[str, Mapping[str, Accuracy]], images: int, rows_are: str = "trained by") -> Fitting:
    """Accuracies of methods, or of what the rows are, by attacks."""
    titles = [rows_are, "no attack", "PGD-20", f"AutoAttack ({images} images)"]
    rows = [(method, *(percent(found[name]) for name in ATTACKS)) for method, found in scores.items()]
    return fitting(titles, rows, title="correct, in percent, with 95 % intervals")


def seen(scores: Mapping[str, Mapping[str, Accuracy]], images: int) -> Iterator[str]:
    """The accuracies in words."""
    plain = scores["standard"]
    yield (
        f"The standard network is right on {plain['natural'].value:.0%} of the test images as they are, and on "
        f"{plain['pgd20'].value:.0%} of those that PGD-20 changed."
    )
    robust = {name: found for name, found in scores.items() if name != "standard"}
    best = max(robust, key=lambda name: robust[name]["pgd20"].value)
    other = next(name for name in robust if name != best)
    high, low = robust[best]["pgd20"], robust[other]["pgd20"]
    apart = "their intervals overlap, so these images do not separate the two"
    if high.interval()[0] > low.interval()[1]:
        apart = "their intervals are apart"
    yield (
        f"Under the same attack {best} is right on {high.value:.0%}, and {other} on {low.value:.0%}; {apart}. "
        f"On unchanged images {best} is right on {robust[best]['natural'].value:.0%}."
    )
    yield (
        f"AutoAttack leaves {best} {robust[best]['autoattack'].value:.0%} of {images} images: what one attack "
        "does not find, another may, so a robust accuracy is always an upper bound."
    )


def doubts(audits: Mapping[str, Sequence[Finding]]) -> Iterator[str]:
    """A sentence that names the networks whose audit warns, if any."""
    warned = {name: [one for one in found if one.status == "warn"] for name, found in audits.items()}
    said = [
        f"of {name} ({', '.join(f'{one.check}: {one.value}' for one in found)})"
        for name, found in warned.items()
        if found
    ]
    if said:
        yield f"The audit warns {' and '.join(said)}: the report explains it."
