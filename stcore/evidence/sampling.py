"""Claims of an accuracy, the recorded order of the images that test them, and what these images say."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from stcore.base import checks
from stcore.errors import UsageError
from stcore.evaluation.subset import select_indices
from stcore.evidence import sequential
from stcore.evidence.file import Evidence
from stcore.protocols import Array

REFUTED, SUPPORTED, UNDECIDED = "refuted", "supported", "undecided"


@dataclass(frozen=True)
class Claim:
    """At least a share of a network's test images is classified correctly, whatever happens within ε.

    accuracy: in (0, 1]. It is met by the whole number of images below it: a rounded claim is not refuted by its
        rounding.   epsilon: in units of pixels in [0, 1].   norm: linf, l2 or l1.
    confidence: of either verdict.   tolerance: the claim is supported if no more than this is missing.
    Raises UsageError for a value out of range.
    """

    accuracy: float
    epsilon: float
    norm: str = "linf"
    confidence: float = 0.95
    tolerance: float = 0.02

    def __post_init__(self) -> None:
        checks.choice("norm", self.norm, ("linf", "l2", "l1"))
        checks.number("epsilon", self.epsilon)
        checks.number("accuracy", self.accuracy, high=1.0)
        checks.number("tolerance", self.tolerance, high=1.0)
        if not 0.5 <= self.confidence < 1:
            raise UsageError(f"confidence: expected a number in [0.5, 1); received {self.confidence}")
        if self.accuracy <= self.tolerance:
            raise UsageError(
                f"claim: expected an accuracy above the tolerance, {self.tolerance}; received {self.accuracy}, "
                "which anything would support. Lower --tolerance"
            )

    @classmethod
    def parse(cls, text: str, **more: Any) -> Claim:
        """The claim of a text such as 0.52@8/255. Raises UsageError for another form."""
        number = r"(\d*\.?\d+(?:[eE][-+]?\d+)?)"
        found = re.fullmatch(rf"{number}@{number}(?:/{number})?", text.strip())
        if found is None or (found[3] is not None and float(found[3]) == 0):
            raise UsageError(f"claim: expected ACCURACY@EPSILON such as 0.52@8/255; received {text!r}")
        if float(found[1]) > 1:
            raise UsageError(f"claim: expected an accuracy in (0, 1], such as 0.52; received {found[1]}")
        return cls(float(found[1]), float(found[2]) / float(found[3] or 1), **more)

    def least(self, total: int) -> int:
        """The fewest of `total` images that meet the claim."""
        return math.floor(self.accuracy * total + 1e-9)

    def tolerated(self, total: int) -> int:
        """The fewest of `total` images with which the claim is supported."""
        return math.ceil((self.accuracy - self.tolerance) * total - 1e-9)


@dataclass(frozen=True)
class Standing:
    """What the images looked at say of a claim.

    total: images in all.   seen: images looked at.   broken: those that fell.   stood: those that withstood the
    whole ladder; the others are in between.   agrees: whether order and verdict are as recorded.
    """

    claim: Claim
    total: int
    seen: int
    broken: int
    stood: int
    agrees: bool = True

    @property
    def verdict(self) -> str:
        """refuted, supported or undecided; what is in between stands for the first, and falls for the second."""
        claim, (total, seen) = self.claim, (self.total, self.seen)
        if sequential.is_refuted(total, seen, seen - self.broken, claim.least(total), claim.confidence):
            return REFUTED
        if sequential.is_supported(total, seen, self.stood, claim.tolerated(total), claim.confidence):
            return SUPPORTED
        return UNDECIDED

    @property
    def bounds(self) -> tuple[float, float]:
        """The lowest and the highest accuracy under these attacks, in [0, 1], each at the claim's confidence."""
        total, seen, confidence = self.total, self.seen, self.claim.confidence
        low = sequential.lower_bound(total, seen, self.stood, confidence)
        return low / total, sequential.upper_bound(total, seen, seen - self.broken, confidence) / total

    @property
    def sentence(self) -> str:
        """The verdict with what it means."""
        claim, (low, high) = self.claim, self.bounds
        sure, said = f"{100 * claim.confidence:g} %", f"{100 * claim.accuracy:g} %"
        if self.verdict == REFUTED:
            return (
                f"refuted at {sure}: the robust accuracy is at most {100 * high:.2f} %, below the claimed {said}; "
                f"{self.broken} of {self.seen} images in random order were broken"
            )
        if self.verdict == SUPPORTED:
            return (
                f"supported at {sure}, against these attacks alone, and not proved: the accuracy under them is at "
                f"least {100 * low:.2f} %, no more than {100 * claim.tolerance:g} points below the claimed {said}"
            )
        return (
            f"undecided: after {self.seen} of {self.total} images the accuracy under these attacks is between "
            f"{100 * low:.2f} % and {100 * high:.2f} %, and {said} is claimed"
        )

    @property
    def not_checked(self) -> list[str]:
        """What a replay cannot check of it, a sentence each."""
        if self.verdict == REFUTED and self.agrees:
            return ["That the order's seed was fixed beforehand: whoever tries many draws until one refutes"]
        if self.verdict == REFUTED:
            return [
                "The order of the images is not that of the recorded seed, so that nothing follows from the share"
            ]
        return [f"That {self.stood} images withstood the whole ladder, on which “supported” rests"]

    def as_json(self) -> dict[str, Any]:
        """All of it in JSON's types."""
        return {
            "verdict": self.verdict,
            "sentence": self.sentence,
            "interval": list(self.bounds),
            "images": self.total,
            "seen": self.seen,
            "broken": self.broken,
            "stood": self.stood,
            "agrees": self.agrees,
        }


def order(positions: Array, seed: int, weights: str, data: str) -> Array:
    """The positions in the random order that belongs to a seed, a network's fingerprint and the data's: (N,).

    By the SHA-256 of each with its position, which any machine computes.
    """
    begun = hashlib.sha256(f"{seed} {weights} {data} ".encode())

    def key(position: int) -> bytes:
        digest = begun.copy()
        digest.update(str(position).encode())
        return digest.digest()

    return np.array(sorted(np.asarray(positions).tolist(), key=key), np.int64)


def recorded_order(header: Mapping[str, Any]) -> Array:
    """The order of a refutation, from its header."""
    settings, data = header["refutation"], header["data"]
    positions = select_indices(data["images"], settings["subset"], None)
    return order(positions, settings["seed"], header["network"]["weights"], data["sha256"])


def claim_of(header: Mapping[str, Any]) -> Claim:
    """The claim of a refutation, from its header."""
    settings, claim = header["refutation"], header["claim"]
    return Claim(
        settings["accuracy"], claim["epsilon"], claim["norm"], settings["confidence"], settings["tolerance"]
    )


def restated(evidence: Evidence, confirmed: Array) -> Standing:
    """What the confirmed successes of a refutation say, with nothing else believed but which images stood."""
    header = evidence.header
    recorded, seen = recorded_order(header), len(evidence.evaluated)
    fallen = np.isin(evidence.evaluated, evidence.row)
    ladder = header["refutation"]["ladder"]
    stood = int((~fallen & (evidence.rung == len(ladder))).sum()) if ladder else 0
    found = Standing(claim_of(header), len(recorded), seen, int(confirmed.sum()), stood)
    agrees = (
        np.array_equal(recorded[:seen], evidence.evaluated) and found.verdict == header["refutation"]["verdict"]
    )
    return Standing(found.claim, found.total, found.seen, found.broken, found.stood, bool(agrees))
