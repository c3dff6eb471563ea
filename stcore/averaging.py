"""Weight averaging: a twin whose weights and running statistics follow the trained ones (Gowal et al., 2020)."""

from __future__ import annotations

from stcore.protocols import Classifier


def follow(average: Classifier, model: Classifier, decay: float) -> None:
    """average ← decay·average + (1 − decay)·model, weights and running statistics alike."""
    pairs = zip(average.state(), model.state(), strict=True)
    average.assign([mean + (1.0 - decay) * (now - mean) for mean, now in pairs])
