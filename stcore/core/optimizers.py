"""What updates the weights: SGD or AdamW, with each weight's share of the learning rate and its decay."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple

from stcore.base.checks import did_you_mean
from stcore.errors import UsageError

_BLOCK = re.compile(r"(?:[^.]+\.)*?\d+\.(?:(?:blocks|layers)\.\d+\.)?")
"""The path of a numbered block, such as `blocks.3.`, `layer1.0.` or `stages.2.blocks.0.`"""


class Update(NamedTuple):
    """How one weight is updated.   share: of the learning rate.   decay: of the weight."""

    share: float
    decay: float


@dataclass(frozen=True, kw_only=True)
class _Optimizer:
    """Settings that every optimizer has.

    learning_rate: η, at the start.   weight_decay: λ.   decay_vectors: whether it concerns biases, normalisation
    and other weights of rank 1 too.
    layer_decay: factor of the learning rate from each block to the one before it (Bao et al., 2022): the head has
    the whole rate.   freeze: patterns of the weights that stay as they are.
    """

    learning_rate: float = 0.1
    weight_decay: float = 0.0
    decay_vectors: bool = True
    layer_decay: float | None = None
    freeze: tuple[str, ...] = ()

    def updates(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, Update | None]:
        """Each weight's update; None for a frozen one.   shapes: of the weights by name, in the network's order.

        Raises UsageError for a pattern that no weight has, and if none is left to train.
        """
        frozen = _frozen(self.freeze, shapes)
        depths = _depths(shapes)
        top = max(depths.values())
        layer_decay = 1.0 if self.layer_decay is None else self.layer_decay

        def update(name: str) -> Update:
            decays = self.decay_vectors or len(shapes[name]) > 1
            return Update(layer_decay ** (top - depths[name]), self.weight_decay if decays else 0.0)

        return {name: None if name in frozen else update(name) for name in shapes}


@dataclass(frozen=True, kw_only=True)
class SGD(_Optimizer):
    """Stochastic gradient descent with coupled weight decay: v ← μ·v + g + λ·w, then w ← w − η·v.

    momentum: μ.   nesterov: w ← w − η·(g + λ·w + μ·v) instead.
    """

    momentum: float = 0.0
    nesterov: bool = False


@dataclass(frozen=True, kw_only=True)
class AdamW(_Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019): w ← w − η·λ·w − η·m̂ / (√v̂ + 1e-8).

    betas: of the running means m of the gradient and v of its square; m̂ and v̂ are these divided by 1 − βᵗ.
    """

    betas: tuple[float, float] = (0.9, 0.999)


ADAM_EPSILON = 1e-8


def _frozen(patterns: Sequence[str], names: Iterable[str]) -> set[str]:
    names = list(names)
    frozen: set[str] = set()
    for pattern in patterns:
        matched = [name for name in names if fnmatchcase(name, pattern)]
        if not matched:
            raise UsageError(
                f"freeze: expected patterns of weights such as {names[0]} or {names[0].partition('.')[0]}.*; "
                f"received {pattern!r}, which is the name of none" + did_you_mean(pattern, names)
            )
        frozen |= {*matched}
    if names and len(frozen) == len(names):
        raise UsageError(f"freeze: expected a weight left to train; received patterns of all {len(names)}")
    return frozen


def _depths(names: Iterable[str]) -> dict[str, int]:
    """Each weight's place in the network: its numbered block counted from 1, 0 before them, the last after them.

    A network without numbered blocks counts by layers.
    """
    blocks = {name: match[0] if (match := _BLOCK.match(name)) else "" for name in names}
    if not any(blocks.values()):
        blocks = {name: name.rpartition(".")[0] for name in blocks}
        order = list(dict.fromkeys(blocks.values()))
        return {name: order.index(block) for name, block in blocks.items()}
    order = list(dict.fromkeys(filter(None, blocks.values())))
    depths, passed = {}, False
    for name, block in blocks.items():
        passed |= bool(block)
        depths[name] = order.index(block) + 1 if block else passed * (len(order) + 1)
    return depths
