"""Framework-free descriptions of networks, as frozen dataclasses.

A node maps a batch of images or features to another. The name of a weight is the dotted path of its node's names,
then `weight`, `bias`, `running_mean` or `running_var`: torch's convention, with torch's axes (`o i h w`, `o i`),
on every backend. A Residual adds nothing to the path.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Literal

ConvLaw = Literal["uniform_fan_in", "normal_fan_out"]
BiasLaw = Literal["uniform_fan_in", "zeros"]


@dataclass(frozen=True)
class Normalize:
    """(x − mean) / std per channel. Mean and std are constants, neither trained nor saved."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Conv:
    """A square convolution with an odd kernel, zero-padded by kernel // 2 on all four sides."""

    in_channels: int
    out_channels: int
    kernel: int = 3
    stride: int = 1
    bias: bool = False
    law: ConvLaw = "uniform_fan_in"


@dataclass(frozen=True)
class BatchNorm:
    """Batch normalisation as in torch, over all axes except the channels."""

    channels: int
    epsilon: float = 1e-5
    update: float = 0.1
    """The weight of the new batch in the running statistics: torch's momentum, one minus Keras'."""


@dataclass(frozen=True)
class ReLU:
    """max(x, 0)."""


@dataclass(frozen=True)
class SiLU:
    """x · sigmoid(x)."""


@dataclass(frozen=True)
class Softplus:
    """log(1 + exp(x)): a smooth activation, for tests that must not depend on the sign of a rounding error."""


@dataclass(frozen=True)
class MaxPool:
    """The maximum over non-overlapping size×size windows; incomplete windows are dropped."""

    size: int = 2


@dataclass(frozen=True)
class GlobalAveragePool:
    """The mean over the two spatial axes; returns (batch, channels)."""


@dataclass(frozen=True)
class Linear:
    """x Wᵀ + b on (batch, in_features)."""

    in_features: int
    out_features: int
    bias_law: BiasLaw = "uniform_fan_in"


@dataclass(frozen=True)
class Sequence:
    """Named steps, applied in order."""

    steps: "tuple[tuple[str, Node], ...]"


@dataclass(frozen=True)
class Residual:
    """body(x) + shortcut(x), or body(x) + x without a shortcut."""

    body: Sequence
    shortcut: Sequence | None = None

    @property
    def branches(self) -> Sequence:
        """The named children: the body's steps, and `shortcut` if there is one."""
        return self.body if self.shortcut is None else sequence(*self.body.steps, ("shortcut", self.shortcut))


Leaf = Normalize | Conv | BatchNorm | ReLU | SiLU | Softplus | MaxPool | GlobalAveragePool | Linear
Node = Leaf | Sequence | Residual


def sequence(*steps: tuple[str, Node]) -> Sequence:
    """A Sequence with the steps as arguments."""
    return Sequence(steps)


def replaced(node: Node, old: Leaf, new: Leaf) -> Node:
    """The node with every leaf `old` replaced by `new`; names stay."""
    match node:
        case Sequence():
            return _steps_replaced(node, old, new)
        case Residual(body, shortcut):
            new_shortcut = None if shortcut is None else _steps_replaced(shortcut, old, new)
            return Residual(_steps_replaced(body, old, new), new_shortcut)
        case _:
            return new if node == old else node


def _steps_replaced(node: Sequence, old: Leaf, new: Leaf) -> Sequence:
    return sequence(*((name, replaced(step, old, new)) for name, step in node.steps))


def join(path: str, name: str) -> str:
    """The dotted path of `name` below `path` ("" is the root)."""
    return f"{path}.{name}" if path else name


def leaves(node: Node, path: str = "") -> Iterator[tuple[str, Leaf]]:
    """Yields each leaf of `node` with its dotted path, in the order of the description."""
    match node:
        case Sequence(steps):
            for name, step in steps:
                yield from leaves(step, join(path, name))
        case Residual():
            yield from leaves(node.branches, path)
        case _:
            yield path, node


def leaf_shapes(leaf: Leaf) -> dict[str, tuple[int, ...]]:
    """The canonical shape of each tensor of a leaf, by the last part of its name."""
    match leaf:
        case Conv(i, o, k):
            shapes: dict[str, tuple[int, ...]] = {"weight": (o, i, k, k)}
            return shapes | {"bias": (o,)} if leaf.bias else shapes
        case BatchNorm(c):
            return dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (c,))
        case Linear(i, o):
            return {"weight": (o, i), "bias": (o,)}
        case _:
            return {}


def weight_shapes(node: Node) -> dict[str, tuple[int, ...]]:
    """The canonical name and shape of every weight and running statistic of `node`."""
    return {join(path, name): shape for path, leaf in leaves(node) for name, shape in leaf_shapes(leaf).items()}


def count_parameters(node: Node) -> int:
    """The number of trainable parameters of `node`, without running statistics; builds nothing."""
    return sum(prod(shape) for name, shape in weight_shapes(node).items() if ".running_" not in name)
