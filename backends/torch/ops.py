"""Operations of the protocol in PyTorch: `stcore.protocols.Ops`, as plain functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from stcore.backends.torch import compiled
from stcore.protocols import Array, Pullback

sign = torch.sign
abs = torch.abs
exp = torch.exp
log = torch.log
sqrt = torch.sqrt
floor = torch.floor
logaddexp = torch.logaddexp
where = torch.where
ones_like = torch.ones_like


def log_softmax(logits: Tensor) -> Tensor:
    return torch.log_softmax(logits, dim=-1)


def flag(condition: Tensor, like: Tensor) -> Tensor:
    return condition.to(like.dtype)


def clip(x: Tensor, lower: Tensor | float, upper: Tensor | float) -> Tensor:
    return torch.clamp(x, lower, upper)  # type: ignore[arg-type]


def sum(x: Tensor) -> Tensor:
    return x.sum(tuple(range(1, x.ndim)))  # not flattened: that copies a channels-last tensor


def mean(x: Tensor) -> Tensor:
    return x.mean()


def means(xs: Sequence[Tensor]) -> Sequence[Tensor]:
    return torch.stack(tuple(xs)).mean(1).unbind() if xs else ()


def max(x: Tensor) -> Tensor:
    return x.amax(tuple(range(1, x.ndim)))


def top_k(logits: Tensor, count: int) -> tuple[Tensor, ...]:
    return torch.topk(logits, min(count, logits.shape[-1]), dim=-1).values.unbind(-1)


def sum_all(x: Tensor) -> Tensor:
    return x.sum()


def matmul(a: Tensor, b: Tensor, transpose_a: bool = False) -> Tensor:
    return (a.T if transpose_a else a) @ b


def norms(xs: Sequence[Tensor]) -> Tensor:
    return torch.stack(torch._foreach_norm(tuple(xs)))


def scale(xs: Sequence[Tensor], factors: Tensor) -> Sequence[Tensor]:
    by = factors.unbind() if factors.ndim else factors
    return torch._foreach_mul(tuple(xs), by)


def rank(x: Tensor) -> int:
    return x.ndim


def expand_dims_like(vector: Tensor, like: Tensor) -> Tensor:
    return vector.reshape(-1, *[1] * (like.ndim - 1))


def one_hot(labels: Tensor, logits: Tensor) -> Tensor:
    return labels[:, None].to(logits.device) == torch.arange(logits.shape[-1], device=logits.device)


def stop_gradient(x: Tensor) -> Tensor:
    return x.detach()


def of_label(values: Tensor, labels: Tensor) -> Tensor:
    return values.gather(-1, _rows(labels, values)[:, None])[:, 0]


def take(x: Tensor, rows: Sequence[int] | Tensor) -> Tensor:
    return x[_rows(rows, x)]


def _rows(given: Sequence[int] | Tensor, like: Tensor) -> Tensor:
    rows = torch.as_tensor(given, dtype=torch.int64, device=like.device)
    # What inference mode made cannot be kept for the gradient.
    return rows.clone() if rows.is_inference() and torch.is_grad_enabled() else rows


def extremes(scores: Tensor, count: int) -> Tensor:
    by_batch = scores.reshape(count, -1)
    which = torch.stack((by_batch.argmin(0), by_batch.argmax(0)))  # the first of equals
    rows = torch.arange(len(scores), device=scores.device).reshape(by_batch.shape)
    return rows.gather(0, which).reshape(-1)


def concat(xs: Sequence[Tensor]) -> Tensor:
    return torch.cat(tuple(xs))


def split(x: Tensor, count: int) -> tuple[Tensor, ...]:
    return x.chunk(count)


def fori_loop(steps: int, body: Callable[..., tuple[Any, ...]], carry: tuple[Any, ...]) -> tuple[Any, ...]:
    for _ in range(steps):
        carry = body(*carry)
    return carry


def fixed_point(steps: int, body: Callable[..., tuple[Any, ...]], carry: tuple[Any, ...]) -> tuple[Any, ...]:
    asks = not torch.compiler.is_compiling() and all(x.device.type == "cpu" for x in carry)
    for _ in range(steps):
        before, carry = carry, body(*carry)
        if asks and all(map(torch.equal, carry, before)):
            break
    return carry


def vjp(fn: Callable[..., Tensor], *xs: Tensor) -> tuple[Tensor, Pullback]:
    with _outside_inference(), torch.enable_grad():
        leaves = tuple((x.clone() if x.is_inference() else x).detach().requires_grad_() for x in xs)
        value = fn(*leaves)

    def pullback(cotangent: Tensor) -> tuple[Tensor, ...]:
        if not value.requires_grad:  # nothing that fn computes depends differentiably on anything
            return tuple(map(torch.zeros_like, leaves))
        with compiled.keep_saved_tensors():
            return torch.autograd.grad(value, leaves, cotangent, retain_graph=True, materialize_grads=True)

    return value.detach(), pullback


def unrecorded(fn: Callable[..., Any], *args: Any) -> Any:
    with _outside_inference(), torch.no_grad():
        return fn(*args)


def _outside_inference() -> AbstractContextManager[Any]:
    """Leaves inference mode, which forbids gradients; where it is off, this costs nothing."""
    return torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext()


def to_numpy(x: Tensor) -> Array:
    x = x.detach().cpu()
    if x.dtype is torch.bfloat16:  # numpy has no bfloat16
        x = x.float()
    return x.numpy().copy()  # a CPU tensor would share its memory


def span(x: Tensor) -> Tensor:
    return torch.stack(torch.aminmax(x.detach())).float()


def fetch(xs: Sequence[Tensor]) -> Array:
    return to_numpy(torch.stack([x.to(xs[0].device) for x in xs]))
