"""Several neighbours of an image: searches from independent starts, and combined losses (Appendix C)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stcore.base import checks
from stcore.core.search import Loss, Search, ascend, starts
from stcore.methods.metrics import lower, with_squares
from stcore.protocols import Network, Ops, Tensor

COMBINE = ("mean", "max")


def check(config: Any) -> None:
    """Checks the fields of the two-example variants, examples and combine. Raises UsageError."""
    checks.whole("examples", config.examples, 1)
    checks.choice("combine", config.combine, COMBINE)


def find_each(
    model: Network, x: Tensor, noise: tuple[Tensor, ...], loss: Loss, search: Search
) -> tuple[Tensor, ...]:
    """Finds a neighbour from each start; every one maximises the same loss."""
    return tuple(ascend(model, x, start, loss, search) for start in starts(search, x, noise))


def combine(ops: Ops, terms: Sequence[Tensor], how: str) -> Tensor:
    """Returns the mean or the maximum of each example's terms; each term and the result (B,). how: mean | max."""
    first, *rest = terms
    for term in rest:
        first = first + term if how == "mean" else ops.where(term > first, term, first)
    return first / float(len(terms)) if how == "mean" and rest else first


def metrics(ops: Ops, natural: Tensor, neighbours: Sequence[Tensor], gap: Tensor) -> dict[str, Tensor]:
    """Returns the metrics of natural and neighbours' losses (B,), with the collaborative share and loss (Fig. 5).

    `adversarial_loss` is the mean over all neighbours, adversarial or not.
    """
    collaborative, part = zip(*(lower(ops, natural, loss) for loss in neighbours), strict=True)
    return {
        **with_squares(natural_loss=natural, adversarial_loss=combine(ops, neighbours, "mean")),
        "divergence": gap,
        "collaborative_share": combine(ops, collaborative, "mean"),
        "collaborative_loss_part": combine(ops, part, "mean"),
    }
