"""How training went: how long it took, whether it was resumed or interrupted, and what the watchers said."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from datetime import datetime

from stcore.report.blocks import Block, Cell, Section, Table, Text
from stcore.report.gathered import GatheredRun
from stcore.report.phrases import attack, duration, percent, plural


def course(run: GatheredRun, key: str) -> Section:
    """Sentences; and of an unfinished run what its last epoch was."""
    return Section(key, "How training went", tuple(_blocks(run)))


def _blocks(run: GatheredRun) -> Iterator[Block]:
    if run.rows:
        seconds = sum(row["seconds"] for row in run.rows)
        speed = sorted(row["images_per_second"] for row in run.rows)[len(run.rows) // 2]
        took = f"{plural(len(run.rows), 'epoch')} took {duration(seconds)}, without their evaluations"
        yield Text(f"{took}: {speed:,.0f} images a second in the median epoch.")
    if run.result is None:
        yield from _unfinished(run)
    elif resumed_at := resumed(run):
        yield Text(
            f"The run was interrupted, or its evaluation was, and resumed: the process that finished it began at "
            f"{resumed_at}. The figures are those of a run without a break.",
            "note",
        )
    stopped = (run.result or {}).get("stopped")
    if stopped:
        yield Text(f"Training was stopped early: {stopped}.", "warning")
    said = {kind: text for row in reversed(run.rows) for kind, text in row.get("trouble", {}).items()}
    for text in reversed(said.values()):
        yield Text(f"The watchers said at {text}", "warning")
    undone = [one for row in run.rows for one in row.get("rolled_back", ())]
    if undone:
        rows = tuple(
            (Cell(str(one["epoch"])), Cell(str(one["to"]) if one["to"] else "start"), Cell(one["said"]))
            for one in undone
        )
        yield Table("Rollbacks, each to a tenth of the learning rate", ("in epoch", "back to", "because"), rows)
    if run.rows and not (said or undone or stopped):
        yield Text("No epoch's figures showed trouble.")


def _unfinished(run: GatheredRun) -> Iterator[Block]:
    there = f"{len(run.rows)} of {run.config.get('epochs')} epochs are there"
    command = shlex.join(["stcli", "train", "--resume", str(run.path)])
    yield Text(f"Unfinished: {there}. To go on: {command}", "warning")
    if run.rows:
        last = run.rows[-1]
        names = [name for name in last if name.endswith("_accuracy")]
        cells = (Cell(str(last["epoch"])), *(Cell(percent(last[name])) for name in names))
        titles = ("epoch", *(f"{attack(name.removesuffix('_accuracy'))} %" for name in names))
        caption = "The last epoch, on the images that choose the best one, not on the test split"
        yield Table(caption, titles, (cells,), len(names))


def resumed(run: GatheredRun) -> str | None:
    """When the process began that finished the run, if another one had begun it."""
    started, begun = (run.result or {}).get("started"), (run.record.environment or {}).get("written")
    if started is None or begun is None:
        return None
    # A run writes its environment once it has begun: what started later is another process.
    return str(started) if datetime.fromisoformat(started) > datetime.fromisoformat(begun) else None
