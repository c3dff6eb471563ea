"""The results of a probe (see `stcore.costs.probe`)."""

from __future__ import annotations

from dataclasses import dataclass

from stcore.costs.stopwatch import Pace, Spent


@dataclass(frozen=True)
class Phase:
    """Epochs with the same kind of step. perturbed: whether a weight perturbation acts."""

    first: int
    epochs: int
    perturbed: bool
    pace: Pace


@dataclass(frozen=True)
class Images:
    """The numbers of images in an epoch, in the selection and in the test split; their shape (H, W, C)."""

    epoch: int
    selection: int
    test: int
    shape: tuple[int, int, int]
    classes: int


@dataclass(frozen=True)
class Network:
    """The size of the network, and its memory in bytes.

    forward_flops: of one image; None if unknown.   optimizer: its own variables.   average: the averaged weights.
    peak: the peak of the memory of `peak_of`, a device or the process; None if unknown.
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
    """The measured cost of a run's parts.

    start_up: everything before the first step.   choosing: the evaluation after an epoch, of the trained weights
    and of averaged ones.   final: all attacks that run over whole batches.   one_pass: an image through the
    network; None without AutoAttack.   saving: the state and the weights, once.
    """

    images: Images
    network: Network
    start_up: Spent
    phases: tuple[Phase, ...]
    choosing: tuple[Pace, ...]
    final: Pace
    one_pass: Pace | None
    saving: Spent
