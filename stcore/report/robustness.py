"""Robustness section: robust accuracy against ε, from the minimum norms of a run's later evaluations."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

from stcore import zoo
from stcore.analysis.robustness import TOGETHER, Curve, Evaluation, Result, curves_of, read
from stcore.errors import UsageError
from stcore.report.blocks import Block, Cell, Picture, Pictures, Section, Table, Text
from stcore.report.gathered import GatheredRun
from stcore.report.phrases import percent
from stcore.results import names

CAPTION = (
    "The share of images for which no adversarial example was found within ε; shaded: 95 % Clopper–Pearson "
    "intervals over the images. Each curve is an upper bound of the robust accuracy."
)


def robustness(run: GatheredRun, key: str) -> list[Section]:
    """A figure and a table per norm; no section without minimum norms of the run's own weights and test images."""
    own = [one for one in run.evaluations if not one.mismatch]
    found, _ = read((one.checkpoint, one.path) for one in own)
    if run.card is not None:
        found.append(_of_card(run.card))
    blocks: list[Block] = []
    for norm in dict.fromkeys(norm for one in found for norm in one.norms_searched):
        try:
            blocks += _of_norm(curves_of(found, norm), f"{key}-{norm}")
        except UsageError as reason:
            blocks.append(Text(f"No figure in {names.norm(norm)}: {reason}", "note"))
    return [Section(key, "Robust accuracy against ε", tuple(blocks))] if blocks else []


def _of_card(card: zoo.Card) -> Evaluation:
    """The evaluation whose records come with a network of the zoo."""
    identity = {name: getattr(card, name) for name in ("norm", "epsilon", "attacks", "data", "weights")}
    return Evaluation(card.checkpoint, card.files["npz"], identity, card.read_records())


def _of_norm(result: Result, name: str) -> Iterator[Block]:
    def draw(dark: bool) -> Any:
        return import_module("stcore.figures.robustness").draw(result, dark=dark)

    norm = names.norm(result.norm)
    described = [
        f"{_attack(curve)} on {curve.network}: from {percent(curve.at(0.0).value)} % at ε = 0; {_median(curve)}"
        for curve in result.curves
    ]
    alt = f"Line chart of the robust accuracy against ε in {norm}. {'. '.join(described)}."
    yield Pictures((Picture(name, alt, CAPTION, draw),))
    rows = tuple(
        (
            Cell(curve.network),
            Cell(_attack(curve)),
            Cell(f"{len(curve.norms):,}"),
            Cell("–" if curve.median is None else f"{curve.median:.4g}"),
        )
        for curve in result.curves
    )
    titles = ("checkpoint", "attack", "images", "median norm")
    caption = f"Median {norm} norm of the nearest examples, over the images that are classified correctly"
    yield Table(caption, titles, rows, 2)


def _attack(curve: Curve) -> str:
    return curve.attack if curve.attack == TOGETHER else names.attack_in_words(curve.attack)


def _median(curve: Curve) -> str:
    return "more than half without an example" if curve.median is None else f"median norm {curve.median:.4g}"
