"""Operations of the protocol in Keras 3: `stcore.protocols.Ops`, as plain functions.

Everything here is `keras.ops`; engine-specific operations are in `tensorflow.py` and `jax.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

from keras import ops

from stcore.backends.keras.engine import native
from stcore.protocols import Array, Tensor

sign = ops.sign
abs = ops.abs
exp = ops.exp
log = ops.log
sqrt = ops.sqrt
logaddexp = ops.logaddexp
where = ops.where
clip = ops.clip
ones_like = ops.ones_like
stop_gradient = ops.stop_gradient
vjp = native.vjp
unrecorded = native.unrecorded
fori_loop = native.fori_loop
fixed_point = native.fixed_point


def log_softmax(logits: Tensor) -> Tensor:
    return ops.log_softmax(logits, axis=-1)


def sum(x: Tensor) -> Tensor:
    return ops.sum(x, axis=tuple(range(1, len(x.shape))))


def mean(x: Tensor) -> Tensor:
    return ops.mean(x)


def max(x: Tensor) -> Tensor:
    return ops.max(x, axis=tuple(range(1, len(x.shape))))


def top_k(logits: Tensor, count: int) -> tuple[Tensor, ...]:
    count = min(count, logits.shape[-1])
    return tuple(ops.unstack(ops.top_k(logits, count)[0], count, axis=-1))


def sum_all(x: Tensor) -> Tensor:
    return ops.sum(x)


def expand_dims_like(vector: Tensor, like: Tensor) -> Tensor:
    return ops.reshape(vector, (-1,) + (1,) * (len(like.shape) - 1))


def one_hot(labels: Tensor, logits: Tensor) -> Tensor:
    return ops.one_hot(labels, logits.shape[-1], dtype="bool")


def take(x: Tensor, rows: Sequence[int]) -> Tensor:
    return ops.take(x, ops.convert_to_tensor(rows, dtype=native.available("int64")), axis=0)


def concat(xs: Sequence[Tensor]) -> Tensor:
    return ops.concatenate(tuple(xs))


def to_numpy(x: Tensor) -> Array:
    array: Array = ops.convert_to_numpy(x)
    return array
