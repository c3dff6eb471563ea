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
floor = ops.floor
logaddexp = ops.logaddexp
where = ops.where
clip = ops.clip
ones_like = ops.ones_like
stop_gradient = ops.stop_gradient
vjp = native.vjp
unrecorded = native.unrecorded
fori_loop = native.fori_loop
fixed_point = native.fixed_point


def flag(condition: Tensor, like: Tensor) -> Tensor:
    return ops.cast(condition, like.dtype)


def log_softmax(logits: Tensor) -> Tensor:
    return ops.log_softmax(logits, axis=-1)


def sum(x: Tensor) -> Tensor:
    return ops.sum(x, axis=tuple(range(1, len(x.shape))))


def mean(x: Tensor) -> Tensor:
    return ops.mean(x)


def means(xs: Sequence[Tensor]) -> Sequence[Tensor]:
    return [ops.mean(x) for x in xs]


def max(x: Tensor) -> Tensor:
    return ops.max(x, axis=tuple(range(1, len(x.shape))))


def top_k(logits: Tensor, count: int) -> tuple[Tensor, ...]:
    count = min(count, logits.shape[-1])
    return tuple(ops.unstack(ops.top_k(logits, count)[0], count, axis=-1))


def sum_all(x: Tensor) -> Tensor:
    return ops.sum(x)


def matmul(a: Tensor, b: Tensor, transpose_a: bool = False) -> Tensor:
    return ops.matmul(ops.transpose(a) if transpose_a else a, b)


def norms(xs: Sequence[Tensor]) -> Tensor:
    return ops.stack([ops.sqrt(ops.sum(x * x)) for x in xs])


def scale(xs: Sequence[Tensor], factors: Tensor) -> Sequence[Tensor]:
    by = ops.unstack(factors, len(xs)) if len(ops.shape(factors)) else [factors] * len(xs)
    return [x * factor for x, factor in zip(xs, by, strict=True)]


def rank(x: Tensor) -> int:
    return len(x.shape)


def expand_dims_like(vector: Tensor, like: Tensor) -> Tensor:
    return ops.reshape(vector, (-1,) + (1,) * (len(like.shape) - 1))


def one_hot(labels: Tensor, logits: Tensor) -> Tensor:
    return ops.one_hot(labels, logits.shape[-1], dtype="bool")


def of_label(values: Tensor, labels: Tensor) -> Tensor:
    return sum(where(one_hot(labels, values), values, 0.0))


def take(x: Tensor, rows: Sequence[int] | Tensor) -> Tensor:
    return ops.take(x, ops.convert_to_tensor(rows, dtype=native.available("int64")), axis=0)


def extremes(scores: Tensor, count: int) -> Tensor:
    batches = ops.reshape(scores, (count, -1))
    size = ops.shape(batches)[1]
    rows = ops.reshape(ops.arange(count * size, dtype=native.available("int64")), (count, -1))
    chosen = []
    for better in (ops.less, ops.greater):
        best, where_ = batches[0], rows[0]
        for i in range(1, count):  # argmax may take any of equals
            is_better = better(batches[i], best)
            best, where_ = where(is_better, batches[i], best), where(is_better, rows[i], where_)
        chosen.append(where_)
    return ops.concatenate(chosen)


def concat(xs: Sequence[Tensor]) -> Tensor:
    return ops.concatenate(tuple(xs))


def split(x: Tensor, count: int) -> tuple[Tensor, ...]:
    return tuple(ops.split(x, count))


def to_numpy(x: Tensor) -> Array:
    array: Array = ops.convert_to_numpy(x)
    return array


def span(x: Tensor) -> Tensor:
    not_a_number = ops.cast(ops.sum(x - x), "float32")  # a reduction need not notice it
    return ops.stack([ops.cast(ops.min(x), "float32"), ops.cast(ops.max(x), "float32")]) + not_a_number


def fetch(xs: Sequence[Tensor]) -> Array:
    return to_numpy(ops.stack(tuple(xs)))
