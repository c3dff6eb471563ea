"""Attacks for evaluation, with the paper's settings by name; see `stcore.attacks.pgd`."""

from __future__ import annotations

from stcore.attacks.pgd import FGSM, PGD, PRESETS, Attack, preset

__all__ = ["FGSM", "PGD", "PRESETS", "Attack", "preset"]
