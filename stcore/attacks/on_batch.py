"""The call of an attack on one batch: `attack(model, x, y)`."""

from __future__ import annotations

from typing import Any

import numpy as np

from stcore.core.entry import FindsExamples, attack_batch
from stcore.protocols import Tensor


class OnBatch:
    """Base of attacks that `find` examples of whole batches (see `stcore.attacks.Attack`)."""

    def __call__(
        self: FindsExamples,
        model: Any,
        x: Tensor,
        y: Tensor,
        *,
        noise: tuple[Tensor, ...] | None = None,
        rng: np.random.Generator | int | None = None,
    ) -> Tensor:
        """Returns what `find` does, adversarial examples of native x (B, …) with labels y (B,), shaped like x.

        noise, rng: the starts, as for `stcore.find_squeeze_pair`; one noise for each of `noise_laws`. An attack
        without any draws nothing.
        Raises TypeError, DataError or UsageError as that function does.
        """
        return attack_batch(self, model, x, y, noise, rng)
