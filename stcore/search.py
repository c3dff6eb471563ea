"""What every search for examples is told, and what follows from it: its threat model, its noise, its start."""

from __future__ import annotations

from typing import Protocol

from stcore.protocols import Tensor
from stcore.threat import NORMS, Threat


class Search(Protocol):
    """The settings that squeeze training, adversarial training and the attacks share.

    epsilon: radius of the ball, in units of pixels in [0, 1].   step_size: α.   steps: K.
    init: `gaussian` (x + noise_std·N(0, 1)), `uniform` (in the ball) or `natural` (x itself).
    norm: `linf` or `l2`.   bounds: the range of pixels.
    """

    @property
    def epsilon(self) -> float: ...
    @property
    def step_size(self) -> float: ...
    @property
    def steps(self) -> int: ...
    @property
    def init(self) -> str: ...
    @property
    def noise_std(self) -> float: ...
    @property
    def norm(self) -> str: ...
    @property
    def bounds(self) -> tuple[float, float]: ...


def threat_of(search: Search) -> Threat:
    """The ball and the range that bound its examples."""
    return NORMS[search.norm](search.epsilon, search.bounds)


def noise_laws(search: Search, count: int) -> tuple[str, ...]:
    """The laws of the `count` noise arrays it starts from (see `stcore.noise`); none from x itself."""
    if search.init == "natural":
        return ()
    law = "normal" if search.init == "gaussian" else "uniform" if search.norm == "linf" else "ball"
    return (law,) * count


def starts(search: Search, x: Tensor, noise: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """x + noise_std·noise (gaussian) or x + ε·noise (uniform) for each noise, not clamped; without noise, x."""
    scale = search.noise_std if search.init == "gaussian" else search.epsilon
    return tuple(x + scale * one for one in noise) or (x,)
