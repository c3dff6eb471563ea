"""A file's weights for a network of other classes: all but the head, which starts afresh."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from stcore.errors import UsageError

Array = NDArray[Any]


def with_new_head(
    weights: Mapping[str, Array], own: Mapping[str, Array], num_classes: int
) -> tuple[dict[str, Array], list[str]]:
    """The file's `weights` with the head of a network's `own` in place of theirs, and what the head is.

    The head is what differs in the number of classes alone: kernels (classes, …) and biases (classes,). UsageError
    where nothing does. What else does not fit is left as it is.
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
            f"new_head: expected weights of a network of other classes than {num_classes}; received none with a "
            "head of another size. Leave --new-head out"
        )
    return {**weights, **{name: own[name] for name in head}}, head
