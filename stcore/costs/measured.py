"""What a probe finds out about a run (see `stcore.costs.probe`)."""

from __future__ import annotations

from dataclasses import dataclass

from stcore.costs.stopwatch import Pace, Spent


@dataclass(frozen=True)
class Phase:
    """Epochs whose steps are alike. perturbed: whether a weight perturbation acts."""

    first: int
    epochs: int
    perturbed: bool
    pace: Pace


@dataclass(frozen=True)
class Images:
    """How many there are in an epoch, to choose an epoch on, and to test on; and their shape (H, W, C)."""

    epoch: int
    selection: int
    test: int
    shape: tuple[int, int, int]
    classes: int


@dataclass(frozen=True)
class Network:
    """How large the network is, and what it takes in bytes.

    forward_flops: of one image; None where they cannot be told.   optimizer: its own variables.   average: of the
    averaged weights.   peak: the most there was of the memory `peak_of`; None where nothing tells.
    """

    parameters: int
    forward_flops: int | None
    weights: int
    optimizer: int
    average: int
    peak: int | None
    peak_of: str


@dataclass(frozen=True)
class Measured:
    """What a run's parts take.

    start_up: all before the first step.   choosing: after an epoch, of the trained weights and of averaged ones.
    final: under all attacks that run over whole batches.   one_pass: of an image through the network, where
    AutoAttack is asked for.   saving: the state and the weights, once.
    """

    images: Images
    network: Network
    start_up: Spent
    phases: tuple[Phase, ...]
    choosing: tuple[Pace, ...]
    final: Pace
    one_pass: Pace | None
    saving: Spent
