"""Layers of a feed-forward ReLU network: sparse matrices, ReLUs, maxima.

A backend reads them from a model (`backends/*/layers.py`) through a `Builder`. Features are flat vectors, of
images in the order (C, H, W) in both frameworks; several at once are the columns of an array (n, R). All numbers
are float64, which holds a float32 weight exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from stcore.errors import UsageError
from stcore.protocols import Array

Shape: TypeAlias = tuple[int, ...]
Pairs: TypeAlias = tuple[tuple[int, int], tuple[int, int]]
Sparse: TypeAlias = Any
"""A `scipy.sparse.csr_array`."""
MOST = 20_000_000
"""Products of one forward, which are held as entries of matrices, four times: a gigabyte."""


@dataclass(frozen=True, eq=False)
class Linear:
    """y = Wx + b.

    size: what bounds the intermediate results beside |W||x|, such as |b|, (m,).
    roundings: of a term, beside those of the sum; 0 for copies, which are exact.
    """

    matrix: Sparse
    offset: Array
    size: Array
    roundings: int = 2

    @cached_property
    def transposed(self) -> Sparse:
        return self.matrix.T.tocsr()

    @cached_property
    def absolute(self) -> Sparse:
        return abs(self.matrix)

    @cached_property
    def pattern(self) -> Sparse:
        """1 where W is not zero."""
        return (self.matrix != 0).astype(float)

    def apply(self, x: Array) -> Array:
        y: Array = self.matrix @ x + self.offset[:, None]
        return y


@dataclass(frozen=True)
class Sum:
    """The sum of two features of one shape: a residual connection."""

    def apply(self, x: Array, y: Array) -> Array:
        return x + y


@dataclass(frozen=True)
class ReLU:
    """max(x, 0), exact in floating point."""

    def apply(self, x: Array) -> Array:
        return np.maximum(x, 0)


@dataclass(frozen=True, eq=False)
class MaxPool:
    """The maximum over windows. entries: (m, k), the indices of each window's features; −1 is padding."""

    entries: Array

    def apply(self, x: Array) -> Array:
        padded = np.concatenate([x, np.full((1, x.shape[1]), -np.inf)])
        largest: Array = padded[self.entries].max(axis=1)
        return largest


Layer: TypeAlias = Linear | Sum | ReLU | MaxPool


@dataclass(frozen=True)
class Node:
    """A layer in a network, by the numbers of the values that it takes; 0 are the pixels, i + 1 is node i's
    result.

    count: of its features.   name: as its model has it.
    """

    layer: Layer
    inputs: tuple[int, ...]
    count: int
    name: str


@dataclass(frozen=True, eq=False)
class Layers:
    """A network from pixels to logits: nodes in an order in which they can be computed; the last one is the
    logits.

    shape: of the pixels, (C, H, W) or (d,).   dtype: in which the framework computes, float32 or float64.
    """

    shape: Shape
    nodes: tuple[Node, ...]
    dtype: str

    @property
    def classes(self) -> int:
        return self.nodes[-1].count

    def count(self, value: int) -> int:
        """The number of features of this value."""
        return math.prod(self.shape) if value == 0 else self.nodes[value - 1].count

    def longest(self) -> int:
        """The largest number of features of one value, which no sum over features exceeds."""
        return max(self.count(value) for value in range(len(self.nodes) + 1))

    def logits(self, pixels: Array) -> Array:
        """Logits (R, C) of pixels (R, *shape), in float64."""
        values = [np.asarray(pixels, np.float64).reshape(len(pixels), -1).T]
        for node in self.nodes:
            values.append(node.layer.apply(*(values[i] for i in node.inputs)))
        found: Array = values[-1].T
        return found

    def pixels(self, images: Array) -> Array:
        """Host images (R, H, W, C) or flat in the order of the layers, (R, *shape), float64."""
        ordered = np.moveaxis(images, -1, 1) if images.ndim == 4 else images
        return np.ascontiguousarray(ordered, np.float64)


class Builder:
    """Collects a network's layers as a backend reads them; knows the shape of each value, (C, H, W) or (d,).

    Its methods add a layer on a value and return the number of the result.
    """

    def __init__(self, shape: Shape, dtype: str) -> None:
        if dtype not in ("float32", "float64"):
            raise UsageError(
                f"model: expected one that computes in float32 or float64; received {dtype}. Convert it"
            )
        self._dtype, self._shapes = dtype, [tuple(shape)]
        self._nodes: list[Node] = []
        self._products = 0

    def shape(self, value: int) -> Shape:
        return self._shapes[value]

    def finish(self, logits: int) -> Layers:
        """Raises UsageError unless the last result are the logits."""
        if logits != len(self._nodes) or not logits or len(self._shapes[logits]) != 1:
            raise UsageError(
                "model: expected a network whose last layer returns logits (B, C); received one that returns "
                f"{self._nodes[logits - 1].name if logits else 'its pixels'} of shape {self._shapes[logits]}"
            )
        return Layers(self._shapes[0], tuple(self._nodes), self._dtype)

    def relu(self, value: int, name: str) -> int:
        return self._add(ReLU(), (value,), self._shapes[value], name)

    def sum(self, one: int, other: int, name: str) -> int:
        if self._shapes[one] != self._shapes[other]:
            raise unsupported(name, f"a sum of shapes {self._shapes[one]} and {self._shapes[other]}")
        return self._add(Sum(), (one, other), self._shapes[one], name)

    def dense(self, value: int, weight: Array, bias: Array | None, name: str) -> int:
        """weight: (out, in)."""
        from scipy.sparse import csr_array

        if len(self._shapes[value]) != 1:
            raise unsupported(name, f"a linear layer on features of shape {self._shapes[value]}")
        self._count(weight.size, name)
        bias = np.zeros(len(weight)) if bias is None else bias
        return self._add(Linear(csr_array(weight), bias, np.abs(bias)), (value,), (len(weight),), name)

    def scale(self, value: int, factor: Array, offset: Array, size: Array, name: str) -> int:
        """factor · x + offset, of shapes that broadcast to the features; size as in `Linear`."""
        from scipy.sparse import diags_array

        shape = self._shapes[value]
        diagonal, offsets, sizes = (np.broadcast_to(each, shape).reshape(-1) for each in (factor, offset, size))
        # Frameworks differ in the order of subtraction, root, division and product.
        layer = Linear(diags_array(diagonal, format="csr"), offsets, sizes, roundings=16)
        return self._add(layer, (value,), shape, name)

    def normalize(self, value: int, mean: Array, deviation: Array, name: str) -> int:
        """(x − mean) / deviation, per channel, (C,) each."""
        return self.batch_norm(value, mean, deviation, np.ones_like(mean), np.zeros_like(mean), name)

    def batch_norm(self, value: int, mean: Array, deviation: Array, gain: Array, shift: Array, name: str) -> int:
        """gain · (x − mean) / deviation + shift, per channel, (C,) each."""
        axes = (-1, *[1] * (len(self._shapes[value]) - 1))
        mean, deviation, gain, shift = (each.reshape(axes) for each in (mean, deviation, gain, shift))
        factor = gain / deviation
        return self.scale(value, factor, shift - factor * mean, np.abs(factor * mean) + np.abs(shift), name)

    def conv(
        self,
        value: int,
        weight: Array,
        bias: Array | None,
        name: str,
        *,
        stride: tuple[int, int] = (1, 1),
        padding: Pairs = ((0, 0), (0, 0)),
        dilation: tuple[int, int] = (1, 1),
        groups: int = 1,
    ) -> int:
        """weight: (out, in / groups, h, w).   padding: zeros above and below, left and right."""
        from scipy.sparse import csr_array

        channels, height, width = self._image(value, name)
        out, per_group = weight.shape[:2]
        rows, columns = self._places((height, width), weight.shape[2:], stride, padding, dilation)
        self._count(out * per_group * rows.size * columns.size, name)
        # An axis each for the output's channel, row and column, the input's channel, the tap's row and column.
        inputs = np.arange(out)[:, None] // (out // groups) * per_group + np.arange(per_group)
        source = (
            inputs[:, None, None, :, None, None] * height + rows[None, :, None, None, :, None]
        ) * width + columns[None, None, :, None, None, :]
        inside = (rows >= 0)[None, :, None, None, :, None] & (columns >= 0)[None, None, :, None, None, :]
        data = np.broadcast_to(weight[:, None, None], source.shape)
        kept = np.broadcast_to(inside, source.shape) & (data != 0)
        size = out * len(rows) * len(columns)
        starts = np.concatenate([[0], np.cumsum(kept.reshape(size, -1).sum(axis=1))])
        matrix = csr_array((data[kept], source[kept], starts), shape=(size, channels * height * width))
        bias = np.zeros(out) if bias is None else bias
        offset = np.repeat(bias, len(rows) * len(columns))
        layer = Linear(matrix, offset, np.abs(offset))
        return self._add(layer, (value,), (out, len(rows), len(columns)), name)

    def average_pool(self, value: int, size: tuple[int, int], stride: tuple[int, int], name: str) -> int:
        channels = self._image(value, name)[0]
        weight = np.full((channels, 1, *size), 1 / math.prod(size))
        return self.conv(value, weight, None, name, stride=stride, groups=channels)

    def global_average(self, value: int, name: str, *, keep: bool = False) -> int:
        """The mean over height and width, (C,), or (C, 1, 1) with `keep`."""
        size = self._image(value, name)[1:]
        pooled = self.average_pool(value, size, size, name)
        return pooled if keep else self.flatten(pooled, name)

    def max_pool(
        self, value: int, size: tuple[int, int], stride: tuple[int, int], padding: Pairs, name: str
    ) -> int:
        channels, height, width = self._image(value, name)
        rows, columns = self._places((height, width), size, stride, padding, (1, 1))
        at = rows[:, None, :, None] * width + columns[None, :, None, :]
        at = np.where((rows >= 0)[:, None, :, None] & (columns >= 0)[None, :, None, :], at, -1)
        windows = at.reshape(1, len(rows) * len(columns), -1)
        offset = np.arange(channels)[:, None, None] * height * width
        entries = np.where(windows < 0, -1, windows + offset).reshape(-1, windows.shape[-1])
        return self._add(MaxPool(entries), (value,), (channels, len(rows), len(columns)), name)

    def flatten(self, value: int, name: str, *, channels_last: bool = False) -> int:
        """A vector in the order (C, H, W), or (H, W, C) with `channels_last`."""
        from scipy.sparse import eye_array

        shape = self._shapes[value]
        if len(shape) == 1:
            return value
        order = np.arange(math.prod(shape)).reshape(shape)
        order = (np.moveaxis(order, 0, -1) if channels_last else order).reshape(-1)
        nothing = np.zeros(len(order))
        copies = Linear(eye_array(len(order), format="csr")[order], nothing, nothing, roundings=0)
        return self._add(copies, (value,), (len(order),), name)

    def pad(self, value: int, padding: Pairs, name: str) -> int:
        """Zeros around an image."""
        from scipy.sparse import csr_array

        channels, height, width = self._image(value, name)
        numbers = np.arange(channels * height * width).reshape(channels, height, width)
        wide = np.pad(numbers, ((0, 0), *padding), constant_values=-1)
        (at,) = np.nonzero(wide.reshape(-1) >= 0)
        matrix = csr_array((np.ones(numbers.size), (at, np.arange(numbers.size))), shape=(wide.size, numbers.size))
        nothing = np.zeros(wide.size)
        return self._add(Linear(matrix, nothing, nothing, roundings=0), (value,), wide.shape, name)

    def _image(self, value: int, name: str) -> tuple[int, int, int]:
        shape = self._shapes[value]
        if len(shape) != 3:
            raise unsupported(name, f"a layer of images on features of shape {shape}")
        return shape[0], shape[1], shape[2]

    def _count(self, products: int, name: str) -> None:
        self._products += products
        if self._products > MOST:
            raise UsageError(
                f"model: expected a network of at most {MOST:,} products a forward, some hundred thousand "
                f"weights; received {self._products:,} up to {name}. Smoothing takes any network"
            )

    @staticmethod
    def _places(
        shape: tuple[int, int], size: Sequence[int], stride: Sequence[int], padding: Pairs, dilation: Sequence[int]
    ) -> tuple[Array, Array]:
        """Of each output row and each tap the input's row, (H', h), −1 in the padding; and so for columns."""
        found = []
        for length, kernel, step, (before, after), apart in zip(
            shape, size, stride, padding, dilation, strict=True
        ):
            count = (length + before + after - apart * (kernel - 1) - 1) // step + 1
            places = step * np.arange(count)[:, None] + apart * np.arange(kernel) - before
            found.append(np.where((places >= 0) & (places < length), places, -1))
        return found[0], found[1]

    def _add(self, layer: Layer, inputs: tuple[int, ...], shape: Shape, name: str) -> int:
        self._nodes.append(Node(layer, inputs, math.prod(shape), name))
        self._shapes.append(tuple(int(n) for n in shape))
        return len(self._nodes)


def same_padding(length: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after, as "same" means in Keras."""
    total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
    return total // 2, total - total // 2


def unsupported(name: str, what: str) -> UsageError:
    """The error for a layer that no bound is known for."""
    return UsageError(
        "model: expected convolutions, linear layers, batch norms, ReLU, pooling, flattening and sums, whose "
        f"bounds are known; received {name}: {what}. Smoothing takes any network"
    )
