"""Logits in what a network returns: a tensor, or a container with one reading."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from stcore.errors import UsageError
from stcore.protocols import Tensor

FLOOR = -1e9
"""What a logit of −∞ counts as: a masked class has probability 0 with either, but 0 · −∞ is NaN."""


def logits_of(output: Any, is_tensor: Callable[[Any], bool]) -> Tensor:
    """Returns the logits in a network's output.

    Taken are a tensor; `.logits` of an output object, as transformers and torchvision's Inception return; the
    entry `logits` of a mapping; the only element of a tuple, list or mapping.
    Raises UsageError, saying what came, for anything else.
    """
    if is_tensor(output):
        return output
    entries = dict(output) if isinstance(output, Mapping) else None
    values = list(entries.values()) if entries is not None else output if isinstance(output, tuple | list) else ()
    named = entries.get("logits") if entries else getattr(output, "logits", None)
    for found in (named, *values) if len(values) == 1 else (named,):
        if is_tensor(found):
            return found
    raise UsageError(
        "model: expected logits (B, C): a tensor, an output with `logits`, or a container of one tensor; received "
        f"{_described(output, entries)}. Wrap the model in one that returns the logits alone"
    )


def is_one_logit(shape: Sequence[int | None]) -> bool:
    """Whether an output is that of a binary head, (B, 1).

    Its logit z of the second class counts as logits (0, z): the sigmoid of z is the softmax of these.
    """
    return len(shape) == 2 and shape[1] == 1


def _described(output: Any, entries: Mapping[Any, Any] | None) -> str:
    kind = f"{type(output).__module__}.{type(output).__qualname__}".removeprefix("builtins.")
    if entries is not None:
        return f"{kind} of {_listed(repr(key) for key in entries)}"
    if isinstance(output, tuple | list):
        return f"{kind} of {_listed(_shape(each) for each in output)}"
    return kind


def _shape(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return type(value).__qualname__ if shape is None else f"shape {tuple(shape)}"


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words) or "nothing"
