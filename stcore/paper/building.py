"""Builders of presets from a recipe and a row's figures."""

from __future__ import annotations

from stcore.paper.preset import Preset, Recipe
from stcore.paper.recipes import OPTIMISATION, assumed, ours, paper, table
from stcore.paper.tables import Figures


def build(
    name: str,
    recipe: Recipe,
    figures: Figures,
    note: str = "",
    checkpoint: str = "best",
    trained_by_authors: bool = True,
) -> Preset:
    """The preset of these settings, evaluated under its row's attacks."""
    attacks = tuple(attack for attack in figures.expected if attack != "natural")
    monitor = ours("a monitor; stcli train has none of the row's own attacks", attacks=("pgd20",))
    recipe = {**recipe, **(paper("5", attacks=attacks) if attacks else monitor)}
    return Preset(
        name,
        {name: setting.value for name, setting in recipe.items()},
        {name: setting.source for name, setting in recipe.items()},
        figures.expected,
        figures.uncertain,
        note,
        checkpoint,
        trained_by_authors,
    )


def drawn(*attacks: str) -> Figures:
    """Figures without numbers, for attacks that the paper only draws."""
    return Figures(dict.fromkeys(attacks))


def wide(recipe: Recipe) -> Recipe:
    """The recipe for a wide ResNet. The paper does not give its schedule, so ResNet-18's is assumed."""
    return assumed(recipe, ("epochs", "learning_rate", "schedule", "drops"), "as for ResNet-18")


def standard(source: str, data: str, model: str = "resnet18") -> Recipe:
    """The recipe of normal training; natural accuracy selects its epoch, since PGD-20 defeats every epoch."""
    recipe = assumed(table(source, "standard", data, model), OPTIMISATION, "as in adversarial training")
    return {**recipe, **ours("PGD-20 defeats every epoch", select_by="natural")}
