"""`stcli verify`: compares finished runs with a preset that was run, or a row of the paper."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from stcore import errors
from stcore.cli.console import make_console
from stcore.cli.parsing import parse
from stcore.cli.presets import percent
from stcore.measured import Measured
from stcore.paper import Preset
from stcore.report.gathered import gather
from stcore.results.comparison import MeasuredRow, Verdict, compare
from stcore.runs.known_presets import find
from stcore.runs.record import Record, read_record


@dataclass(frozen=True)
class VerifyOptions:
    """Compare finished runs of one setting, over one or several seeds, with a preset that was run, or with the
    paper's row of a preset.

    Each accuracy is reproduced or off by a number of points. Runs with other settings are not comparable;
    all reasons are listed. For a preset that was run, later evaluations in the runs' folders count too.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """The runs' folders, as `stcli train` leaves them."""
    preset: str
    """The preset, such as fast/digits or table1/cifar10/st; `stcli presets` lists them."""
    json: bool = False
    """Print JSON instead of a table."""


def main(args: Sequence[str]) -> int:
    """Prints the verdict; returns 0 for any verdict. Raises UsageError for a run that cannot be read."""
    options = parse(VerifyOptions, args, "stcli verify")
    wanted = find(options.preset)
    if isinstance(wanted, Measured):
        verdict = compare(wanted, evaluated(options.runs, wanted))
    else:
        verdict = compare(wanted, [read_record(run) for run in options.runs])
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
        if verdict.comparable and preset.settings["select"] == "test" and preset.checkpoint == "best":
            console.print("best was selected on the TEST split (the paper's rule): its figures are optimistic")
    if isinstance(preset, Measured) and verdict.rows:
        _say_more(console, preset, verdict)
    elif isinstance(preset, Preset):
        if verdict.missing and verdict.rows:
            console.print(f"without a number here or in the paper's text: {', '.join(verdict.missing)}")
        if preset.note:
            console.print(preset.note)
    return errors.OK


def evaluated(runs: Sequence[Path], preset: Measured) -> list[Record]:
    """The runs' records with the counts of later evaluations, on as many images as the preset's."""
    records = []
    for run in gather(runs):
        counts = run.counts(preset.checkpoint)
        scores = {
            attack: {"correct": counts[attack][score["total"]], "total": score["total"]}
            for attack, score in preset.accuracies.items()
            if score["total"] in counts.get(attack, ())
        }
        result = run.result and {**run.result, "checkpoints": {preset.checkpoint: scores}}
        records.append(replace(run.record, result=result))
    return records


def table(verdict: Verdict) -> Table:
    """Each accuracy next to the preset's."""
    theirs = "the preset's %" if isinstance(verdict.preset, Measured) else "the paper's %"
    made = Table()
    made.add_column("attack", no_wrap=True)
    for title in ("ours %", theirs, "difference"):
        made.add_column(title, justify="right", no_wrap=True)
    made.add_column("verdict", no_wrap=True)
    for row in verdict.rows:
        ours, apart = _interval(row.mean, row.low, row.high), f"{row.difference:+.2f}"
        if isinstance(row, MeasuredRow):
            expected, apart = _interval(*row.expected), f"{apart} [{row.apart[1]:+.2f}, {row.apart[2]:+.2f}]"
        else:
            expected = percent(row.expected) + ("?" if row.uncertain else "")
        made.add_row(row.attack, ours, expected, apart, verdict.word(row))
    return made


def _interval(mean: float, low: float, high: float) -> str:
    return f"{mean:.2f} [{low:.2f}, {high:.2f}]"


def _say_more(console: Console, preset: Measured, verdict: Verdict) -> None:
    """What a preset that was run has beside the table."""
    many = len(preset.seeds)
    console.print(
        f"the preset's is of {many} seed{'s' * (many > 1)}; reproduced: the difference's interval contains 0"
    )
    for attack in verdict.missing:
        total = preset.accuracies[attack]["total"]
        console.print(f"without a number on the preset's {total:,} images here: {attack}", soft_wrap=True)
    if verdict.missing:
        console.print(
            f"stcli presets {preset.name} has the command of the evaluation that adds it", soft_wrap=True
        )
