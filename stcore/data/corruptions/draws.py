"""Random numbers of corruptions, addressed by seed, corruption and the image's position."""

from __future__ import annotations

from dataclasses import dataclass

from stcore.base.seeding import Stream, generator, sample_normal, sample_uniform
from stcore.protocols import Array


@dataclass(frozen=True)
class Draws:
    """The random numbers of a batch; each image's depend on its position alone.

    number: of the corruption.   positions: (B,).
    """

    seed: int
    number: int
    positions: Array

    def normal(self, *shape: int, draw: int = 0) -> Array:
        """Standard normals (B, *shape)."""
        return sample_normal(
            self.seed, Stream.CORRUPTION, self.positions, shape, epoch=self.number, draw=draw, dtype="float64"
        )

    def uniform(self, *shape: int, draw: int = 0) -> Array:
        """Uniforms in [−1, 1), (B, *shape)."""
        return sample_uniform(
            self.seed, Stream.CORRUPTION, self.positions, shape, epoch=self.number, draw=draw, dtype="float64"
        )

    def angles(self, low: float, high: float) -> Array:
        """Angles (B,) in degrees, uniform between the two."""
        middle, half = (low + high) / 2, (high - low) / 2
        angles: Array = middle + half * self.uniform(1, draw=99)[:, 0]
        return angles

    def poisson(self, means: Array) -> Array:
        """Poisson numbers of these means (B, …)."""
        drawn: Array = means.copy()
        for row, position in zip(drawn, self.positions.tolist(), strict=True):
            rng = generator(self.seed, Stream.CORRUPTION, epoch=self.number, position=position)
            row[...] = rng.poisson(row)
        return drawn
