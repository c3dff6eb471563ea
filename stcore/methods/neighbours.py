"""Several neighbours of one image: their search from independent starts, and their terms as one (Appendix C)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stcore.base import checks
from stcore.core.search import Loss, Search, ascend, starts
from stcore.methods.metrics import lower, with_squares
from stcore.protocols import Network, Ops, Tensor

COMBINE = ("mean", "max")


def check(config: Any) -> None:
    """The fields of the two-example variants: examples, combine. UsageError for a value out of range."""
    checks.whole("examples", config.examples, 1)
    checks.choice("combine", config.combine, COMBINE)


def find_each(
    model: Network, x: Tensor, noise: tuple[Tensor, ...], loss: Loss, search: Search
) -> tuple[Tensor, ...]:
    """A neighbour for each start, every one uphill on the same loss."""
    return tuple(ascend(model, x, start, loss, search) for start in starts(search, x, noise))


def combine(ops: Ops, terms: Sequence[Tensor], how: str) -> Tensor:
    """The mean, or the largest, of each example's terms; (B,) each."""
    first, *rest = terms
    for term in rest:
        first = first + term if how == "mean" else ops.where(term > first, term, first)
    return first / float(len(terms)) if how == "mean" and rest else first


def metrics(ops: Ops, natural: Tensor, neighbour: Sequence[Tensor], gap: Tensor) -> dict[str, Tensor]:
    """What is logged of natural and neighbouring losses (B,); also the share that is collaborative, and its loss
    (Fig. 5). `adversarial_loss` is the mean of all neighbours, adversarial or not."""
    collaborative, part = zip(*(lower(ops, natural, loss) for loss in neighbour), strict=True)
    return {
        **with_squares(natural_loss=natural, adversarial_loss=combine(ops, neighbour, "mean")),
        "divergence": gap,
        "collaborative_share": combine(ops, collaborative, "mean"),
        "collaborative_loss_part": combine(ops, part, "mean"),
    }
