"""`stcli presets`: lists the rows of the paper's tables, their settings, results and cost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table

from stcore import errors
from stcore.cli.console import make_console
from stcore.cli.parsing import MaybeText, parse
from stcore.paper import Expected, Preset, estimated_cost, matching

SHOWN = {"natural": "natural %", "pgd20": "PGD-20 %", "autoattack": "AutoAttack %"}

RADII = ("epsilon", "step_size", "eval_epsilon")

LEGEND = (
    "mean ± half of the 95 % interval over seven runs, as the paper prints them; –: only in a figure, or "
    "illegible in the scan; ?: digits reconstructed from a damaged scan; cost: training alone, in "
    "multiply-accumulates"
)


@dataclass(frozen=True)
class PresetsOptions:
    """List the presets, one per row of the paper's tables, or show one with the source of every setting."""

    name: tyro.conf.Positional[MaybeText] = None
    """A preset such as table1/cifar10/st, or the beginning of several, such as table1 or table1/cifar10."""
    json: bool = False
    """Print JSON instead of a table: every setting, source and number; unknown numbers are null."""


def main(args: Sequence[str]) -> int:
    """Prints the presets; returns the exit code."""
    options = parse(PresetsOptions, args, "stcli presets")
    presets = matching(options.name or "")
    console = make_console()
    if options.json:
        print(json.dumps([as_json(preset) for preset in presets], indent=2))
    elif [preset.name for preset in presets] == [options.name]:
        show(console, presets[0])
    else:
        console.print(listing(presets))
        console.print(LEGEND)
    return errors.OK


def as_json(preset: Preset) -> dict[str, Any]:
    """A preset with its cost."""
    return {**preset.as_json(), "cost_mac": estimated_cost(preset)}


def listing(presets: Sequence[Preset]) -> Table:
    """A table with a row per preset."""
    table = Table()
    for title in ("preset", "method"):
        table.add_column(title, no_wrap=True)
    for title in (*SHOWN.values(), "cost"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("measured", no_wrap=True)
    for preset in presets:
        figures = [figure(preset, attack) for attack in SHOWN]
        cost = f"{estimated_cost(preset):.1e}"
        table.add_row(preset.name, preset.settings["method"], *figures, cost, measured(preset))
    return table


def show(console: Console, preset: Preset) -> None:
    """Prints one preset in full."""
    console.print(f"{preset.name}: the {preset.checkpoint} checkpoint of a run, {measured(preset)}")
    if preset.note:
        console.print(preset.note)
    settings = Table()
    for title in ("setting", "value", "source"):
        settings.add_column(title, overflow="fold")
    for name, value in preset.settings.items():
        settings.add_row(name, shown(value, in_255ths=name in RADII), preset.sources[name])
    console.print(settings)
    figures = Table()
    for title in ("attack", "the paper's %"):
        figures.add_column(title)
    for attack in preset.expected:
        figures.add_row(attack, figure(preset, attack))
    console.print(figures)
    console.print(
        f"training costs about {estimated_cost(preset):.2e} multiply-accumulates, evaluation not counted"
    )
    console.print(LEGEND)


def figure(preset: Preset, attack: str) -> str:
    """83.10 ± 0.10; – for an unknown number, nothing if the row has no such column."""
    if attack not in preset.expected:
        return ""
    doubt = "?" if attack in preset.uncertain else ""
    return percent(preset.expected[attack]) + doubt


def percent(value: Expected | None) -> str:
    """83.10 ± 0.10, or 83.10 if no half-width is known."""
    if value is None:
        return "–"
    return f"{value.mean:.2f}" + (f" ± {value.half_width:.2f}" if value.half_width is not None else "")


def measured(preset: Preset) -> str:
    """The accuracies measured here, if any."""
    if preset.measured is None:
        return "not run by us"
    return ", ".join(f"{attack} {percent(value)}" for attack, value in preset.measured.items())


def shown(value: Any, in_255ths: bool = False) -> str:
    """A setting as text. in_255ths: as a fraction of 255, if it is a whole number of them."""
    if isinstance(value, (tuple, list)):
        return ", ".join(map(shown, value))
    if not isinstance(value, float):
        return str(value)
    steps = value * 255
    return f"{round(steps)}/255" if in_255ths and abs(steps - round(steps)) < 1e-9 else f"{value:.6g}"
