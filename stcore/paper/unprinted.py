"""Presets of the models in the paper's curves, and of those that only its text mentions."""

from __future__ import annotations

from collections.abc import Iterator

from stcore.paper.building import build, drawn, standard, wide
from stcore.paper.extra_data import extra_data
from stcore.paper.preset import Expected, Preset
from stcore.paper.recipes import OPTIMISATION, assumed, ours, paper, table
from stcore.paper.tables import DELTAS, FIGURES, Figures

_CURVES = drawn("natural", "pgd20")


def figure4() -> Iterator[Preset]:
    """Normal training, and training with collaborative examples alone (Eq. 5)."""
    source, note = "3.2, Fig. 4", "Drawn in Fig. 4, not printed."
    ball = paper("3.2", epsilon=8 / 255, step_size=2 / 255)
    for data in ("cifar10", "cifar100"):
        yield build(f"figure4/{data}/standard", standard(source, data), _CURVES, note)
        recipe = assumed(table(source, "collaborative", data), OPTIMISATION, "as in adversarial training")
        yield build(f"figure4/{data}/collaborative", {**recipe, **ball}, _CURVES, note)


def figure9() -> Iterator[Preset]:
    """TRADES and squeeze training, epoch by epoch."""
    for data in ("cifar10", "cifar100"):
        for method in ("trades", "st"):
            note = f"Drawn in Fig. 9, not printed. The settings of table1/{data}/{method}."
            yield build(f"figure9/{data}/{method}", table("D, Fig. 9", method, data), _CURVES, note)


def figure10() -> Iterator[Preset]:
    """RST and ST-RST, epoch by epoch."""
    note = (
        "Drawn in Fig. 10, not printed. Its PGD-20 has α = 0.007, starts at the natural image, and counts the "
        "worst iterate."
    )
    for row in ("rst", "st-rst"):
        recipe = assumed(extra_data("D, Fig. 10", row), ("epochs",), "those of Table 4; the figure has more")
        monitor = paper("D, Fig. 10", eval_epsilon=0.031, test_size=500)
        yield build(f"figure10/{row}", {**recipe, **monitor}, _CURVES, note, "last")


def appendix_c() -> Iterator[Preset]:
    """Models with fewer or more inner steps, and two-example variants beyond Table 6."""
    source = "C"
    step = ours("as with 10 steps", step_size=2 / 255)
    recipes = {
        "st-half-steps": {**table(source, "st", "cifar10"), **paper(source, steps=5), **step},
        "trades-double-steps": {**table(source, "trades", "cifar10"), **paper(source, steps=20), **step},
        "trades2-rst": extra_data(source, "trades2-rst"),
        "trades2-wrn-34-5": wide(table(source, "trades2", "cifar10", "wrn-34-5")),
        "trades2-wrn-34-10": wide(table(source, "trades2", "cifar10", "wrn-34-10")),
    }
    for row, recipe in recipes.items():
        name, note = f"appendix-c/{row}", "In the text alone."
        figures = FIGURES.get(name) or _shifted(row)
        if row in DELTAS:
            base, points = DELTAS[row]
            note += f" Printed as differences to {base}: " + ", ".join(f"{k} {v:+.2f}" for k, v in points.items())
        yield build(name, recipe, figures, note, "last" if row == "trades2-rst" else "best")


def _shifted(row: str) -> Figures:
    """The figures of another row with the printed differences added."""
    base, points = DELTAS[row]
    found = FIGURES[base].expected
    means = {attack: value.mean for attack in points if (value := found[attack]) is not None}
    return Figures({attack: Expected(round(means[attack] + points[attack], 2)) for attack in points})
