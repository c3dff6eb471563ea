"""Range checks of tensors. Those on another device are fetched together, so that no call waits for it.

The smallest and the largest entry are computed where the tensor is. On the host they are checked at once; on other
devices the first are, and later ones in sets of `TOGETHER`: an error then comes a few calls late.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from stcore.protocols import Classifier, Tensor

AT_ONCE = 8
"""How many checks on another device wait for it: those of a program's first calls."""
TOGETHER = 40
"""How many later ones are fetched in one transfer: those of ten steps of squeeze training."""


class _Waiting(NamedTuple):
    span: Tensor
    check: Callable[[float, float], None]


class _Queue:
    """The spans of one kind of classifier that have not been fetched."""

    def __init__(self) -> None:
        self.seen = 0
        self.waiting: list[_Waiting] = []


_queues: dict[type, _Queue] = {}
_lock = threading.Lock()


def inspect(classifier: Classifier, x: Tensor, check: Callable[..., None], *settings: Any) -> None:
    """Calls `check(*settings, low, high)` with the smallest and the largest entry of x, now or a few calls later.

    Does nothing inside a traced graph. Raises what the check raises, of this tensor or of an earlier one.
    """
    if classifier.is_tracing(x):
        return
    one = _Waiting(classifier.ops.span(x), lambda low, high: check(*settings, low, high))
    with _lock:
        queue = _queues.setdefault(type(classifier), _Queue())
        queue.seen += not classifier.on_host(x)
        queue.waiting.append(one)
        due = classifier.on_host(x) or queue.seen <= AT_ONCE or len(queue.waiting) >= TOGETHER
        ready, queue.waiting = (queue.waiting, []) if due else ([], queue.waiting)
    if ready:
        spans = classifier.ops.fetch([span for span, _ in ready])
        for (_, check_span), (low, high) in zip(ready, spans.tolist(), strict=True):
            check_span(low, high)
