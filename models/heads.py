"""Transfer to other classes: a file's weights with a new head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from stcore.errors import UsageError

Array = NDArray[Any]


def with_new_head(
    weights: Mapping[str, Array], own: Mapping[str, Array], num_classes: int
) -> tuple[dict[str, Array], list[str]]:
    """The file's `weights` with the head of a network's `own` weights, and the names of the head's weights.

    The head is every weight that differs only in the number of classes: kernels (classes, …) and biases
    (classes,). Other mismatches are left unchanged. Raises UsageError if there is no such weight.
    """
    head = [
        name
        for name, array in weights.items()
        if name in own
        and array.shape != (shape := own[name].shape)
        and array.shape[1:] == shape[1:]
        and shape[:1] == (num_classes,)
    ]
    if not head:
        raise UsageError(
            f"new_head: expected weights of a network with other than {num_classes} classes; received none with a "
            "head of another size. Leave --new-head out"
        )
    return {**weights, **{name: own[name] for name in head}}, head
