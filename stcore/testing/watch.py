"""A network whose forwards and backward passes are noted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from stcore.protocols import Mode, Pullback, Tensor


class Noted(NamedTuple):
    """A forward: its mode, whether dropout was on, and its input."""

    mode: Mode
    dropout: bool
    x: Tensor


class Watch:
    """A `Network` that notes its forwards, and counts the backward passes to the pixels."""

    def __init__(self, classifier: Any) -> None:
        self.classifier = classifier
        self.forwards: list[Noted] = []
        self.backwards = 0
        self.ops: Any = _Counting(classifier.ops, self)

    def logits(self, x: Tensor, mode: Mode, *, dropout: bool = False) -> Tensor:
        self.forwards.append(Noted(mode, dropout, x))
        return self.classifier.logits(x, mode, dropout=dropout)


class _Counting:
    """A backend's operations, which report to a watch."""

    def __init__(self, ops: Any, watch: Watch) -> None:
        self._ops, self._watch = ops, watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ops, name)

    def vjp(self, fn: Callable[..., Tensor], *xs: Tensor) -> tuple[Tensor, Pullback]:
        before = len(self._watch.forwards)
        value, pullback = self._ops.vjp(fn, *xs)
        if len(self._watch.forwards) == before:  # from a loss to logits, which costs nothing to speak of
            return value, pullback

        def counted(cotangent: Tensor) -> tuple[Tensor, ...]:
            self._watch.backwards += 1
            gradients: tuple[Tensor, ...] = pullback(cotangent)
            return gradients

        return value, counted

    def fori_loop(
        self, steps: int, body: Callable[..., tuple[Tensor, ...]], carry: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        """In Python: a loop that is traced runs its body once."""
        for _ in range(steps):
            carry = body(*carry)
        return carry
