"""Randomised smoothing: certified l2 radii of the smoothed classifier, for any network (Cohen et al., 2019).

The smoothed classifier g(x) is the class that the network f predicts most often for x + σ·(standard normal noise).
If a class has probability p > 1/2 under this noise, g keeps it within σ·Φ⁻¹(p) of x in l2 (Theorem 1). p is not
known: its lower confidence limit by Clopper and Pearson (1934) is taken instead, so that each radius is wrong with
probability at most α (Algorithm 1, CERTIFY). What is certified is g, never f, whose own prediction is one draw of
it. The noise is that of real arithmetic; its rounding to float32 is not covered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from stcore.base import checks
from stcore.base.seeding import Stream, sample_normal
from stcore.errors import UsageError
from stcore.protocols import Array

ABSTAINS = -1


@dataclass(frozen=True)
class Smoothing:
    """Settings of the smoothed classifier and of its certificates.

    sigma: standard deviation of the noise, in units of pixels in [0, 1].   selection: samples that select a class.
    samples: others, which estimate its probability.   alpha: probability of a wrong certificate, in (0, 1).
    Raises UsageError for a value out of range.
    """

    sigma: float
    selection: int = 100
    samples: int = 1000
    alpha: float = 0.001

    def __post_init__(self) -> None:
        checks.number("smoothing", self.sigma)
        checks.whole("selection", self.selection, 1)
        checks.whole("samples", self.samples, 1)
        if self.sigma <= 0 or not 0 < self.alpha < 1:
            raise UsageError(
                f"smoothing, alpha: expected a deviation above 0 and a probability in (0, 1); received "
                f"{self.sigma} and {self.alpha}"
            )

    def largest_radius(self) -> float:
        """The radius that is certified if all samples agree: none is larger."""
        return self.radius(self.samples)

    def radius(self, agreeing: int) -> float:
        """The certified l2 radius if this number of `samples` is of the selected class; 0 if none can be."""
        from scipy.special import betaincinv, ndtri

        lowest = float(betaincinv(agreeing, self.samples - agreeing + 1, self.alpha)) if agreeing else 0.0
        return self.sigma * float(ndtri(lowest)) if lowest > 0.5 else 0.0

    def certify(
        self, predict: Callable[[Array], Array], image: Array, *, seed: int, position: int, batch_size: int
    ) -> tuple[int, float]:
        """The class of g for an image, or ABSTAINS, and its certified radius.

        predict: host images (B, …), not clipped to [0, 1] → classes (B,).   image: a host image in [0, 1].
        position: of the image in its data set, which addresses its noise: the batch size changes nothing.
        """
        first = self._classes(predict, image, range(self.selection), seed, position, batch_size)
        selected = int(np.bincount(first).argmax())
        numbers = range(self.selection, self.selection + self.samples)
        agreeing = int((self._classes(predict, image, numbers, seed, position, batch_size) == selected).sum())
        radius = self.radius(agreeing)
        return (selected, radius) if radius > 0 else (ABSTAINS, 0.0)

    def _classes(
        self, predict: Callable[[Array], Array], image: Array, numbers: range, seed: int, position: int, batch: int
    ) -> Array:
        """The classes of the samples with these numbers."""
        found = []
        for begin in range(0, len(numbers), batch):
            # An address for each sample: its number for the position, and the image's position for the draw.
            places = np.array(numbers[begin : begin + batch])
            noise = sample_normal(seed, Stream.SMOOTH, places, image.shape, draw=position, dtype="float64")
            found.append(predict((image + self.sigma * noise).astype(image.dtype)))
        return np.concatenate(found)
