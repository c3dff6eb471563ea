"""What a network is, said without a framework: a small algebra of frozen dataclasses.

A node maps a batch of images or features to another. The name of a weight is the path of names that leads
to its node, joined by dots, then `weight`, `bias`, `running_mean` or `running_var`: torch's convention, and
torch's axes (`o i h w`, `o i`), on every backend. A Residual adds no part of its own to the path.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Literal

ConvLaw = Literal["uniform_fan_in", "normal_fan_out"]
BiasLaw = Literal["uniform_fan_in", "zeros"]


@dataclass(frozen=True)
class Normalize:
    """(x − mean) / std, channel by channel. Its numbers are constants, which nothing trains or saves."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Conv:
    """A square convolution with an odd kernel, padded by kernel // 2 zeros on all four sides."""

    in_channels: int
    out_channels: int
    kernel: int = 3
    stride: int = 1
    bias: bool = False
    law: ConvLaw = "uniform_fan_in"


@dataclass(frozen=True)
class BatchNorm:
    """Batch normalisation as torch has it, over everything but the channels."""

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
    """log(1 + exp(x)): a smooth activation, for tests that no sign of a rounding error may decide."""


@dataclass(frozen=True)
class MaxPool:
    """The maximum over size×size windows that do not overlap; what does not fill a window is dropped."""

    size: int = 2


@dataclass(frozen=True)
class GlobalAveragePool:
    """The mean over the two spatial axes; leaves (batch, channels)."""


@dataclass(frozen=True)
class Linear:
    """x Wᵀ + b on (batch, in_features)."""

    in_features: int
    out_features: int
    bias_law: BiasLaw = "uniform_fan_in"


@dataclass(frozen=True)
class Sequence:
    """Named steps, one after the other."""

    steps: "tuple[tuple[str, Node], ...]"


@dataclass(frozen=True)
class Residual:
    """body(x) + shortcut(x), or body(x) + x without a shortcut."""

    body: Sequence
    shortcut: Sequence | None = None

    @property
    def branches(self) -> Sequence:
        """What is named below this node: the body's own steps, and `shortcut` where there is one."""
        return self.body if self.shortcut is None else sequence(*self.body.steps, ("shortcut", self.shortcut))


Leaf = Normalize | Conv | BatchNorm | ReLU | SiLU | Softplus | MaxPool | GlobalAveragePool | Linear
Node = Leaf | Sequence | Residual


def sequence(*steps: tuple[str, Node]) -> Sequence:
    """Sequence, with the steps as arguments."""
    return Sequence(steps)


def replaced(node: Node, old: Leaf, new: Leaf) -> Node:
    """The node with another leaf wherever it has this one; names stay."""
    match node:
        case Sequence():
            return _steps_replaced(node, old, new)
        case Residual(body, shortcut):
            other = None if shortcut is None else _steps_replaced(shortcut, old, new)
            return Residual(_steps_replaced(body, old, new), other)
        case _:
            return new if node == old else node


def _steps_replaced(node: Sequence, old: Leaf, new: Leaf) -> Sequence:
    return sequence(*((name, replaced(step, old, new)) for name, step in node.steps))


def join(path: str, name: str) -> str:
    """The dotted path of `name` below `path` ("" is the root)."""
    return f"{path}.{name}" if path else name


def leaves(node: Node, path: str = "") -> Iterator[tuple[str, Leaf]]:
    """Each leaf of `node` with its dotted path, in the order of the description."""
    match node:
        case Sequence(steps):
            for name, step in steps:
                yield from leaves(step, join(path, name))
        case Residual():
            yield from leaves(node.branches, path)
        case _:
            yield path, node


def leaf_shapes(leaf: Leaf) -> dict[str, tuple[int, ...]]:
    """The canonical shape of each tensor that one leaf owns, by the last part of its name."""
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
    """How many numbers training may change in `node` (running statistics are not parameters).

    Read off the description: nothing is built.
    """
    return sum(prod(shape) for name, shape in weight_shapes(node).items() if ".running_" not in name)
