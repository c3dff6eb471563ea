"""AutoAttack's versions: attacks, their order and settings; a fast version, and one with MALT's order of targets.

`fast` approximates the verdict of `standard` at a tenth of its passes: a short APGD on the cross-entropy fools
most images, then targeted APGD, whose loss is invariant to the logits' scale, tries nine targets, the nearest by
MALT's distances first, in fewer than half the steps. FAB-T and Square, four fifths of the cost, are left out: on
adversarially trained networks they find next to nothing after APGD-T, and the audit warns of masked gradients.

`malt` is `standard` with the targets in MALT's order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from stcore.attacks.apgd import APGD
from stcore.attacks.apgd_l1 import APGDL1
from stcore.attacks.fab import FAB
from stcore.attacks.malt import CANDIDATES, MALT
from stcore.attacks.pma import OPENINGS, PMA
from stcore.attacks.presets import RAND, SAMPLES
from stcore.attacks.square import Square
from stcore.attacks.stepped import HostAttack, SteppedAttack
from stcore.base import checks
from stcore.errors import UsageError

STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")
VERSIONS = ("standard", "malt", "plus", "rand", "fast", "custom")
STANDARD_TARGETS = 9
FAST = {"apgd-ce": 25, "apgd-t": 45}
"""The attacks of the fast version, and their steps."""
IDS = {
    "apgd-ce": 1,
    "apgd-dlr": 2,
    "apgd-t": 3,
    "fab": 4,
    "fab-t": 5,
    "square": 6,
    "apgd-pm": 7,
    "pma": 8,
    "malt": 9,
}
"""The members of a custom version, with their number in the noise's addresses: never renumber them."""
TARGETED = ("apgd-t", "fab-t")
"""The members whose targets are ordered: by logit, or, after the member malt, by its distances."""
AVERAGED = tuple(f"{name}{RAND}" for name in ("apgd-ce", "apgd-dlr", "apgd-t", "apgd-pm", "pma"))
"""Members for random networks: a gradient is the mean over `SAMPLES` forwards; of as many a majority verifies."""
MEMBERS = (*IDS, *AVERAGED)
ATTACKS = tuple(name for name in IDS if name != "malt")
"""The members that attack, also alone."""


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
    attacks: the names of a custom version, among `MEMBERS`.
    Raises UsageError for an unknown version or attack, attacks beside another version than custom, or malt without
    an attack with targets after it.
    """
    checks.choice("version", version, VERSIONS)
    checks.choice("norm", norm, ("linf", "l2", "l1"))
    if bool(attacks) != (version == "custom"):
        raise UsageError(
            "attacks: expected the names of a custom version's attacks, and of no other's; "
            f"received {', '.join(attacks) or 'none'} with version {version}"
        )
    for name in attacks:
        checks.choice("attacks", name, MEMBERS)
    if len(set(attacks)) < len(attacks):
        raise UsageError(f"attacks: expected each attack once; received {', '.join(attacks)}")
    after = attacks[attacks.index("malt") :] if "malt" in attacks else TARGETED
    if not any(name.removesuffix(RAND) in TARGETED for name in after):
        raise UsageError(
            f"attacks: expected {' or '.join(TARGETED)} after malt, which orders their targets; received "
            f"{', '.join(attacks)}"
        )
    many = version in ("plus", "custom") or (version in ("standard", "malt") and norm == "l1")
    few = norm == "l1" and version in ("standard", "malt", "fast")
    settings = _Settings(
        norm,
        epsilon,
        bounds,
        classes,
        restarts=5 if many else 1,
        targets=min(5 if few else STANDARD_TARGETS, classes - 1),
        samples=SAMPLES if version == "rand" else 1,
        queries=queries,
        steps=FAST if version == "fast" else {},
    )
    names = {
        "standard": STANDARD,
        "malt": (STANDARD[0], "malt", *STANDARD[1:]),
        "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
        "rand": ("apgd-ce", "apgd-dlr"),
        "fast": ("apgd-ce", "malt", "apgd-t"),
        "custom": tuple(attacks),
    }[version]
    return tuple(stage for name in names for stage in _member(name, settings))


def _member(name: str, settings: _Settings) -> list[Stage]:
    """The stages of one member; of NAME-rand those of NAME under its own name, with averaged gradients."""
    if name not in AVERAGED:
        return _BUILD[name](settings)
    plain = _BUILD[name.removesuffix(RAND)](replace(settings, samples=SAMPLES))
    return [replace(stage, name=name) for stage in plain]


def _search(s: _Settings, name: str, loss: str) -> SteppedAttack:
    if s.norm == "l1":  # its schedule is fixed
        return APGDL1(s.epsilon, loss, s.samples, s.bounds)
    return APGD(s.epsilon, loss, s.steps.get(name, 100), samples=s.samples, norm=s.norm, bounds=s.bounds)


def _apgd(name: str, loss: str) -> Callable[[_Settings], list[Stage]]:
    return lambda s: [Stage(name, _search(s, name, loss), s.restarts, samples=s.samples)]


def _apgd_t(s: _Settings) -> list[Stage]:
    return [Stage("apgd-t", _search(s, "apgd-t", "targeted_dlr"), targets=s.targets, samples=s.samples)]


def _pma(s: _Settings) -> list[Stage]:
    """Two runs, which differ in what their first halves ascend."""
    attacks = (PMA(s.epsilon, opening, samples=s.samples, norm=s.norm, bounds=s.bounds) for opening in OPENINGS)
    return [Stage("pma", attack, first=run, samples=s.samples) for run, attack in enumerate(attacks)]


def _malt(s: _Settings) -> list[Stage]:
    """Nothing with two classes, of which one is the target."""
    return [Stage("malt", MALT(s.norm, min(CANDIDATES, s.classes - 1)))] if s.classes > 2 else []


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
    "apgd-pm": _apgd("apgd-pm", "probability_margin"),
    "pma": _pma,
    "malt": _malt,
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
            "Square left out, targets in MALT's order; the figure to report is autoattack's"
        )
    if "malt" in versions:
        found.append("malt: targets in MALT's order instead of by logit; the figure to report is autoattack's")
    return found
