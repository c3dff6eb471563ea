"""Where a step's noise is drawn: on the host ahead of the step, or on the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stcore.base import device_noise
from stcore.base.noise import sample
from stcore.base.seeding import Stream
from stcore.protocols import Array, Learner, Tensor

NOISE = ("host", "device")


@dataclass(frozen=True)
class HostNoise:
    """Noise from numpy: the same numbers on every framework.   shape: of one image on the host."""

    learner: Learner
    laws: tuple[str, ...]
    seed: int
    shape: tuple[int, ...]

    def ahead(self, epoch: int, positions: Array) -> Any:
        """What can be done before the step, in any thread: the noise of these examples, (B,) positions."""
        noise = sample(self.laws, self.seed, Stream.NOISE, positions, self.shape, epoch=epoch)
        return tuple(map(self.learner.staged, noise))

    def placed(self, ahead: Any) -> tuple[Tensor, ...]:
        """The noise on the device, from what `ahead` returned."""
        return tuple(map(self.learner.images, ahead))


class DeviceNoise(HostNoise):
    """Noise from the device, which receives keys and positions alone (see `stcore.base.device_noise`)."""

    def ahead(self, epoch: int, positions: Array) -> Any:
        return device_noise.keys(len(self.laws), self.seed, Stream.NOISE, epoch), positions

    def placed(self, ahead: Any) -> tuple[Tensor, ...]:
        keys, positions = ahead
        return self.learner.noise(self.laws, keys, positions, self.shape)
