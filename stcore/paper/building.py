"""From a recipe and a row's figures to its preset."""

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
    """A preset of these settings, with its row's attacks."""
    attacks = tuple(attack for attack in figures.expected if attack != "natural")
    monitor = ours("a monitor; the row's own attacks are not among a run's", attacks=("pgd20",))
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
    """What a figure shows and no text says."""
    return Figures(dict.fromkeys(attacks))


def wide(recipe: Recipe) -> Recipe:
    """The settings for a wide ResNet, whose schedule is not given."""
    return assumed(recipe, ("epochs", "learning_rate", "schedule", "drops"), "as for ResNet-18")


def standard(source: str, data: str, model: str = "resnet18") -> Recipe:
    """Normal training; its epoch is not chosen by PGD-20, under which it fails at every one."""
    recipe = assumed(table(source, "standard", data, model), OPTIMISATION, "as in adversarial training")
    return {**recipe, **ours("under PGD-20 it fails at every epoch", select_by="natural")}
