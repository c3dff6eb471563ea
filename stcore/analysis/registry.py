"""Registry of the analyses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Analysis:
    """One analysis.

    what: a one-line description.   figure: in the paper.   of: its input, networks, training logs or evaluations.
    module: computes it (see `stcore.analysis`).   drawer: the module whose `draw(result, *, dark=False)` draws it.
    """

    what: str
    figure: str
    of: Literal["checkpoints", "runs", "evaluations"]
    module: str
    drawer: str


ANALYSES = {
    "collaborative": Analysis(
        "loss of natural and of collaborative examples against the budget",
        "Fig. 1",
        "checkpoints",
        "stcore.analysis.collaborative",
        "stcore.figures.collaborative",
    ),
    "examples": Analysis(
        "adversarial and collaborative examples as pictures, with their perturbations",
        "Figs. 2, 11",
        "checkpoints",
        "stcore.analysis.examples",
        "stcore.figures.examples",
    ),
    "landscape": Analysis(
        "loss over the collaborative direction and one orthogonal to it",
        "Fig. 3",
        "checkpoints",
        "stcore.analysis.landscape",
        "stcore.figures.landscape",
    ),
    "curves": Analysis(
        "natural and robust accuracy, epoch by epoch",
        "Figs. 4, 9, 10",
        "runs",
        "stcore.analysis.curves",
        "stcore.figures.curves",
    ),
    "losses": Analysis(
        "loss of natural, adversarial and collaborative points in training",
        "Figs. 5 upper, 8",
        "runs",
        "stcore.analysis.losses",
        "stcore.figures.losses",
    ),
    "ratio": Analysis(
        "share of collaborative points among those that TRADES and similar methods find",
        "Fig. 5 lower",
        "runs",
        "stcore.analysis.ratio",
        "stcore.figures.ratio",
    ),
    "tradeoff": Analysis(
        "natural against robust accuracy over β, from the runs of a sweep",
        "Fig. 6",
        "runs",
        "stcore.analysis.tradeoff",
        "stcore.figures.tradeoff",
    ),
    "angles": Analysis(
        "angle between the adversarial and the collaborative perturbation, step by step",
        "Fig. 7",
        "checkpoints",
        "stcore.analysis.angles",
        "stcore.figures.angles",
    ),
    "robustness-curve": Analysis(
        "robust accuracy against ε, from the minimum norms of evaluations",
        "not in the paper",
        "evaluations",
        "stcore.analysis.robustness",
        "stcore.figures.robustness",
    ),
}
"""The analyses by name, in the order of the paper's figures."""
