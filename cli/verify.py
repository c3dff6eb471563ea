"""`stcli verify`: compares finished runs with a row of the paper."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.table import Table

from stcore import errors
from stcore.cli.console import make_console
from stcore.cli.parsing import parse
from stcore.cli.presets import percent
from stcore.paper import find
from stcore.results.comparison import Verdict, compare
from stcore.runs.record import read_record


@dataclass(frozen=True)
class VerifyOptions:
    """Compare finished runs of one setting, over one or several seeds, with a preset's row of the paper.

    Each accuracy is reproduced or off by a number of points. Runs with other settings are not comparable;
    all reasons are listed.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """The runs' folders, as `stcli train` leaves them."""
    preset: str
    """The row, such as table1/cifar10/st; `stcli presets` lists them."""
    json: bool = False
    """Print JSON instead of a table."""


def main(args: Sequence[str]) -> int:
    """Prints the verdict; returns 0 for any verdict. Raises UsageError for a run that cannot be read."""
    options = parse(VerifyOptions, args, "stcli verify")
    verdict = compare(find(options.preset), [read_record(run) for run in options.runs])
    if options.json:
        print(json.dumps(verdict.as_json(), indent=2))
        return errors.OK
    console = make_console()
    preset, count = verdict.preset, len(verdict.runs)
    console.print(
        f"{preset.name}, {preset.checkpoint} checkpoint of {count} run{'s' * (count > 1)}", soft_wrap=True
    )
    if verdict.reasons:
        console.print("not comparable:")
        for reason in verdict.reasons:
            console.print(f"  {reason}", soft_wrap=True)
    if verdict.rows:
        console.print(table(verdict))
        console.print(f"95 % intervals; ours is over {'images' if count == 1 else 'seeds'}")
        if verdict.comparable and preset.checkpoint == "best":
            console.print("best was selected on the TEST split (the paper's rule): its figures are optimistic")
    if verdict.missing and verdict.rows:
        console.print(f"without a number here or in the paper's text: {', '.join(verdict.missing)}")
    if preset.note:
        console.print(preset.note)
    return errors.OK


def table(verdict: Verdict) -> Table:
    """Each accuracy next to the paper's."""
    made = Table()
    made.add_column("attack", no_wrap=True)
    for title in ("ours %", "the paper's %", "difference"):
        made.add_column(title, justify="right", no_wrap=True)
    made.add_column("verdict", no_wrap=True)
    for row in verdict.rows:
        ours = f"{row.mean:.2f} [{row.low:.2f}, {row.high:.2f}]"
        paper = percent(row.expected) + ("?" if row.uncertain else "")
        made.add_row(row.attack, ours, paper, f"{row.difference:+.2f}", verdict.word(row))
    return made
