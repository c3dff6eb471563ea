"""Arithmetic on all weights of a network, or their gradients, together; None is that of no weight, and stays."""

from __future__ import annotations

from collections.abc import Sequence

from stcore.protocols import Ops, Tensor

Tensors = Sequence[Tensor | None]


def present(tensors: Tensors) -> list[Tensor]:
    """Those that are not None."""
    return [t for t in tensors if t is not None]


def added(first: Tensors, second: Tensors) -> list[Tensor | None]:
    """Adds two sequences of tensors element by element; None adds nothing."""
    return [b if a is None else a if b is None else a + b for a, b in zip(first, second, strict=True)]


def scaled(ops: Ops, tensors: Tensors, factors: Tensor) -> list[Tensor | None]:
    """Multiplies each of the tensors that are not None by its factor, or all by one."""
    products = iter(ops.scale(present(tensors), factors))
    return [None if t is None else next(products) for t in tensors]


def norm(ops: Ops, tensors: Tensors) -> Tensor:
    """Returns the Euclidean norm of all tensors together, a scalar; at least one is not None."""
    norms = ops.norms(present(tensors))
    return ops.sqrt(ops.sum_all(norms * norms))


def clipped(ops: Ops, tensors: Tensors, length: float) -> list[Tensor | None]:
    """The tensors, scaled so that the norm of all together is at most `length`."""
    return scaled(ops, tensors, ops.clip(length / (norm(ops, tensors) + 1e-6), 0.0, 1.0))
