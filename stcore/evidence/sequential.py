"""Sequential test of a share among finitely many images, valid at every look.

Of N images an unknown number K stands. They are looked at in random order, without replacement; after t of them s
stand. The probability of these outcomes is P(s, t | K) = K!/(K−s)! · (N−K)!/(N−K−t+s)! · (N−t)!/N!. The evidence
against "at least k stand" is a mixture likelihood ratio,

    E_t(k) = Σ_{j<k} w_j P(s, t | j) / max_{k' ≥ k} P(s, t | k').

If at least k stand, E is at most a martingale that starts at 1, so that it ever reaches 1/α with probability at
most α (Ville, 1939): look as often as you like, and stop when you like. The weights w_j say which errors are
expected, an excess of k over j that is exponential with a mean of ten points; they change the number of images,
not the validity. For two-sided sets with a beta-binomial mixture: Waudby-Smith and Ramdas (2020), "Confidence
sequences for sampling without replacement".

E falls as s rises. An image of which it is not known whether it falls may therefore count as standing: the test
then rejects later, never wrongly.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from stcore.protocols import Array

EXPECTED = 0.1
"""The mean excess of a wrong claim, as a share of all images."""


def log_evidence(total: int, seen: int, standing: int) -> Array:
    """The logarithm of E against "at least k of `total` images stand", for k = 0 … total: (total + 1,).

    seen: t, images looked at.   standing: s of them, at most `seen`. +∞ is proof, at k = 0 it is −∞.
    """
    factorials, likelihood = _log_factorials(total), np.full(total + 1, -np.inf)
    possible = np.arange(standing, total - (seen - standing) + 1)
    fallen = total - possible
    likelihood[possible] = (
        factorials[possible]
        - factorials[possible - standing]
        + factorials[fallen]
        - factorials[fallen - (seen - standing)]
    )
    rate = 1 / (EXPECTED * total)
    k = np.arange(total + 1)
    sums = np.logaddexp.accumulate(likelihood + rate * k)[:-1] - rate * k[1:]  # Σ_{j<k} e^{−rate (k−j)} P_j
    weights = np.log(-np.expm1(-rate * k[1:])) - math.log(math.expm1(rate))  # Σ_{1≤d≤k} e^{−rate d}
    most = np.maximum.accumulate(likelihood[::-1])[::-1][1:]  # max over k' ≥ k
    with np.errstate(invalid="ignore"):
        ratio = np.where(np.isneginf(sums), -np.inf, sums - weights - most)
    return np.concatenate(([-np.inf], ratio))


def is_refuted(total: int, seen: int, standing: int, at_least: int, confidence: float) -> bool:
    """Whether "at least `at_least` of `total` stand" is rejected at this confidence.   standing: or not known."""
    return bool(log_evidence(total, seen, standing)[at_least] >= -math.log1p(-confidence))


def is_supported(total: int, seen: int, stood: int, at_least: int, confidence: float) -> bool:
    """Whether "fewer than `at_least` of `total` stand" is rejected: that more fall than may, by the same test.

    stood: the images that are known to stand; all others that were looked at count as fallen.
    """
    return at_least <= 0 or is_refuted(total, seen, seen - stood, total - at_least + 1, confidence)


def upper_bound(total: int, seen: int, standing: int, confidence: float) -> int:
    """The most images that may stand at this confidence, at every look.   standing: or not known."""
    return int(np.flatnonzero(log_evidence(total, seen, standing) < -math.log1p(-confidence))[-1])


def lower_bound(total: int, seen: int, stood: int, confidence: float) -> int:
    """The fewest images that may stand at this confidence, at every look.   stood: those known to."""
    return total - upper_bound(total, seen, seen - stood, confidence)


@lru_cache(maxsize=4)
def _log_factorials(count: int) -> Array:
    """log n! for n = 0 … count."""
    return np.concatenate(([0.0], np.cumsum(np.log(np.arange(1.0, count + 1)))))
