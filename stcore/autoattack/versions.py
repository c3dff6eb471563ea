"""AutoAttack's versions: attacks, their order and settings; and a fast version.

`fast` approximates the verdict of `standard` at a tenth of its passes: a short APGD on the cross-entropy fools
most images, then targeted APGD, whose loss is invariant to the logits' scale, tries all targets, the likeliest
first, in fewer than half the steps. FAB-T and Square, four fifths of the cost, are left out: on adversarially
trained networks they find next to nothing after APGD-T, and the audit warns of masked gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from stcore.attacks.apgd import APGD
from stcore.attacks.apgd_l1 import APGDL1
from stcore.attacks.fab import FAB
from stcore.attacks.square import Square
from stcore.attacks.stepped import HostAttack, SteppedAttack
from stcore.base import checks
from stcore.errors import UsageError

VERSIONS = ("standard", "plus", "rand", "fast", "custom")
STANDARD_TARGETS = 9
FAST = {"apgd-ce": 25, "apgd-t": 45}
"""The attacks of the fast version, and their steps."""
IDS = {"apgd-ce": 1, "apgd-dlr": 2, "apgd-t": 3, "fab": 4, "fab-t": 5, "square": 6}
"""The attacks of a custom version, with their number in the noise's addresses: never renumber them."""


@dataclass(frozen=True)
class Stage:
    """One attack on the images still robust: `restarts` runs for each target class, or without targets."""

    name: str
    attack: SteppedAttack | HostAttack
    restarts: int = 1
    first: int = 0
    """The first restart's number, which addresses its noise."""
    targets: int = 0
    samples: int = 1
    """Forwards that verify a success; more than half of them must be wrong."""
    nearest: bool = False
    """Whether every run takes all its steps, and an image's nearest example counts, in the ball or not."""


class Staged(Protocol):
    """What runs as a cascade."""

    def stages(self, classes: int) -> tuple[Stage, ...]:
        """Returns the attacks in their order, for a network with this number of classes."""

    def check_images(self, shape: Sequence[int]) -> None:
        """Raises UsageError if one of its attacks does not take images of this shape."""


@dataclass(frozen=True)
class _Settings:
    norm: str
    epsilon: float
    bounds: tuple[float, float]
    classes: int
    restarts: int
    targets: int
    samples: int
    queries: int
    steps: Mapping[str, int]
    """Steps of APGD by attack; by default 100."""


def stages(
    version: str,
    norm: str,
    epsilon: float,
    classes: int,
    *,
    attacks: Sequence[str] = (),
    bounds: tuple[float, float] = (0.0, 1.0),
    queries: int = 5000,
) -> tuple[Stage, ...]:
    """Returns the stages of a version for a network with `classes` classes.

    version: one of `VERSIONS`.   norm: linf, l2 or l1.   bounds: the range of pixels.
    epsilon: radius of the ball, in units of pixels in [0, 1].   queries: iterations of Square.
    attacks: the names of a custom version, among `IDS`.
    Raises UsageError for an unknown version or attack, or attacks beside another version than custom.
    """
    checks.choice("version", version, VERSIONS)
    checks.choice("norm", norm, ("linf", "l2", "l1"))
    if bool(attacks) != (version == "custom"):
        raise UsageError(
            "attacks: expected the names of a custom version's attacks, and of no other's; "
            f"received {', '.join(attacks) or 'none'} with version {version}"
        )
    for name in attacks:
        checks.choice("attacks", name, IDS)
    if len(set(attacks)) < len(attacks):
        raise UsageError(f"attacks: expected each attack once; received {', '.join(attacks)}")
    many = version in ("plus", "custom") or (version == "standard" and norm == "l1")
    settings = _Settings(
        norm,
        epsilon,
        bounds,
        classes,
        restarts=5 if many else 1,
        targets=min(5 if norm == "l1" and version in ("standard", "fast") else STANDARD_TARGETS, classes - 1),
        samples=20 if version == "rand" else 1,
        queries=queries,
        steps=FAST if version == "fast" else {},
    )
    names = {
        "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
        "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
        "rand": ("apgd-ce", "apgd-dlr"),
        "fast": tuple(FAST),
        "custom": tuple(attacks),
    }[version]
    return tuple(stage for name in names for stage in _BUILD[name](settings))


def _search(s: _Settings, name: str, loss: str) -> SteppedAttack:
    if s.norm == "l1":  # its schedule is fixed
        return APGDL1(s.epsilon, loss, s.samples, s.bounds)
    return APGD(s.epsilon, loss, s.steps.get(name, 100), samples=s.samples, norm=s.norm, bounds=s.bounds)


def _apgd(name: str, loss: str) -> Callable[[_Settings], list[Stage]]:
    return lambda s: [Stage(name, _search(s, name, loss), s.restarts, samples=s.samples)]


def _apgd_t(s: _Settings) -> list[Stage]:
    return [Stage("apgd-t", _search(s, "apgd-t", "targeted_dlr"), targets=s.targets)]


def _fab(s: _Settings) -> list[Stage]:
    """The first run starts at the image, the others at random."""
    from_image, from_random = (
        FAB(s.epsilon, s.norm, s.bounds, targeted=False, classes=s.classes, random_start=random)
        for random in (False, True)
    )
    first, others = Stage("fab", from_image), Stage("fab", from_random, s.restarts - 1, first=1)
    return [first, others] if s.restarts > 1 else [first]


def _fab_t(s: _Settings) -> list[Stage]:
    attack = FAB(s.epsilon, s.norm, s.bounds, targeted=True)
    return [Stage("fab-t", attack, targets=min(STANDARD_TARGETS, s.classes - 1))]


def _square(s: _Settings) -> list[Stage]:
    return [Stage("square", Square(s.epsilon, s.norm, s.bounds, queries=s.queries))]


_BUILD: dict[str, Callable[[_Settings], list[Stage]]] = {
    "apgd-ce": _apgd("apgd-ce", "cross_entropy"),
    "apgd-dlr": _apgd("apgd-dlr", "dlr"),
    "apgd-t": _apgd_t,
    "fab": _fab,
    "fab-t": _fab_t,
    "square": _square,
}


def notes(classes: int, versions: Sequence[str] = ()) -> list[str]:
    """Returns notes to print with a result: what differs from the standard version with ten classes."""
    found = []
    if classes == 2:
        found = [
            "2 classes: DLR needs three, so its losses are the plain difference of the two logits; one target"
        ]
    elif classes == 3:
        found = ["3 classes: targeted DLR needs four, so its denominator is z_(1) - z_(3); two targets"]
    elif classes <= STANDARD_TARGETS:
        found = [f"{classes} classes: {classes - 1} targets, all there are, instead of {STANDARD_TARGETS}"]
    if "fast" in versions:
        found.append(
            f"fast: APGD-CE in {FAST['apgd-ce']} steps and APGD-T in {FAST['apgd-t']} instead of 100, FAB-T and "
            "Square left out; the figure to report is autoattack's"
        )
    return found
