"""`stcli presets`: lists the presets: recipes that were run, and the rows of the paper's tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table

from stcore import errors
from stcore.cli.console import make_console
from stcore.cli.parsing import MaybeText, parse
from stcore.evaluation.accuracy import over_runs
from stcore.measured import Measured
from stcore.paper import Expected, Preset, estimated_cost
from stcore.results import names
from stcore.runs.known_presets import Known, matching
from stcore.runs.plan import make_plan

SHOWN = {"natural": "natural %", "pgd20": "PGD-20 %", "autoattack": "AutoAttack %"}

RADII = ("epsilon", "step_size", "eval_epsilon")

OF_RUNS = (
    "mean over seeds with its 95 % interval, of one seed over images; minutes: of training alone, on the machine "
    "that the preset names; *: on the first images of the test split"
)
LEGEND = (
    "mean ± half of the 95 % interval over seven runs, as the paper prints them; –: only in a figure, or "
    "illegible in the scan; ?: digits reconstructed from a damaged scan; cost: training alone, in "
    "multiply-accumulates"
)


@dataclass(frozen=True)
class PresetsOptions:
    """List the presets, or show one: of a recipe that was run its settings and what was measured, of a row of the
    paper's tables the source of every setting."""

    name: tyro.conf.Positional[MaybeText] = None
    """A preset such as fast/digits or table1/cifar10/st, or the beginning of several, such as fast or table1."""
    json: bool = False
    """Print JSON instead of tables: every setting, source and number; unknown numbers are null."""


def main(args: Sequence[str]) -> int:
    """Prints the presets; returns the exit code."""
    options = parse(PresetsOptions, args, "stcli presets")
    presets = matching(options.name or "")
    console = make_console()
    run = [preset for preset in presets if isinstance(preset, Measured)]
    rows = [preset for preset in presets if isinstance(preset, Preset)]
    if options.json:
        print(json.dumps([as_json(preset) for preset in presets], indent=2))
    elif [preset.name for preset in presets] == [options.name]:
        for measured_one in run:
            show_measured(console, measured_one)
        for row in rows:
            show(console, row)
        return errors.OK
    else:
        if run:
            console.print(listing_measured(run))
            console.print(OF_RUNS)
        if rows:
            console.print(listing(rows))
            console.print(LEGEND)
    return errors.OK


def as_json(preset: Known) -> dict[str, Any]:
    """A preset, and of a row of the paper its cost."""
    return preset.as_json() | ({"cost_mac": estimated_cost(preset)} if isinstance(preset, Preset) else {})


def listing_measured(presets: Sequence[Measured]) -> Table:
    """A table with a row per preset that was run."""
    table = Table()
    for title in ("preset", "method", "network"):
        table.add_column(title, no_wrap=True)
    for title in (*SHOWN.values(), "minutes"):
        table.add_column(title, justify="right", no_wrap=True)
    for preset in presets:
        what = preset.settings["method"], preset.settings["model"]
        figures = [measured_figure(preset, attack) + "*" * _is_part(preset, attack) for attack in SHOWN]
        table.add_row(preset.name, *what, *figures, f"{preset.minutes:.2g}")
    return table


def measured_figure(preset: Measured, attack: str) -> str:
    """98.08 ± 0.50 over seeds, or 98.08 [96.02, 99.23] of one."""
    mean, low, high = over_runs(preset.runs(attack))
    one = len(preset.seeds) == 1
    return f"{mean:.2f} [{low:.2f}, {high:.2f}]" if one else f"{mean:.2f} ± {high - mean:.2f}"


def _is_part(preset: Measured, attack: str) -> bool:
    """Whether only the first images of the test split were attacked."""
    return bool(preset.accuracies[attack]["total"] < preset.data["test"]["images"])


def show_measured(console: Console, preset: Measured) -> None:
    """Prints one preset that was run in full."""
    seeds, machine = ", ".join(map(str, preset.seeds)), dict(preset.machine)
    console.print(f"{preset.name}: the {preset.checkpoint} checkpoint of a run, with seed {seeds}")
    figures = Table()
    figures.add_column("attack", no_wrap=True)
    for title in ("%", "95 % interval", "correct, each seed", "images"):
        figures.add_column(title, justify="right", no_wrap=True)
    for attack, score in preset.accuracies.items():
        mean, low, high = over_runs(preset.runs(attack))
        images = f"{score['total']:,}" if not _is_part(preset, attack) else f"the first {score['total']:,}"
        correct = ", ".join(map(str, score["correct"]))
        figures.add_row(names.attack_in_words(attack), f"{mean:.2f}", f"{low:.2f} to {high:.2f}", correct, images)
    console.print(figures)
    console.print(
        f"95 % intervals over {'images' if len(preset.seeds) == 1 else 'seeds'}, on the same test images"
    )
    settings = Table()
    for title in ("setting", "value", "the data set's own recipe"):
        settings.add_column(title, overflow="fold")
    usual = make_plan({name: preset.settings[name] for name in ("dataset", "method")}).flat()
    for name, value in sorted(preset.settings.items(), key=lambda one: usual.get(one[0]) == one[1]):
        say: Callable[[Any], str] = names.radius if name in RADII else shown
        settings.add_row(name, say(value), "" if usual.get(name) == value else say(usual.get(name)))
    console.print(settings)
    took = ", ".join(f"{seconds / 60:.2f}" for seconds in preset.seconds)
    threads = machine.pop("threads")
    cores = f"{machine.pop('cpus')} cores, {threads} thread{'s' * (threads != 1)}"
    console.print(f"minutes of training alone, each seed: {took}", soft_wrap=True)
    console.print(f"on {machine.pop('processor')}, {cores}, device {machine.pop('device')}", soft_wrap=True)
    console.print(", ".join(f"{name} {version}" for name, version in machine.items()), soft_wrap=True)
    for command in preset.commands:
        console.print(command, soft_wrap=True, highlight=False)


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
