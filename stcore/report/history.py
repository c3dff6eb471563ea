"""History section: duration of the training, interruptions, early stops, rollbacks and warnings."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from datetime import datetime

from stcore.report.blocks import Block, Cell, Section, Table, Text
from stcore.report.gathered import GatheredRun
from stcore.report.phrases import duration, percent, plural
from stcore.results.names import attack_in_words


def history(run: GatheredRun, key: str) -> list[Section]:
    """The training's history in sentences; for an unfinished run, also its last epoch. None if it is unknown."""
    blocks = tuple(_blocks(run))
    return [Section(key, "How training went", blocks)] if blocks else []


def _blocks(run: GatheredRun) -> Iterator[Block]:
    if run.rows:
        seconds = sum(row["seconds"] for row in run.rows)
        speed = sorted(row["images_per_second"] for row in run.rows)[len(run.rows) // 2]
        took = f"{plural(len(run.rows), 'epoch')} took {duration(seconds)}, not counting evaluation"
        yield Text(f"{took}: {speed:,.0f} images per second in the median epoch.")
    if run.result is None:
        yield from _unfinished(run)
    elif resumed_at := resumed(run):
        yield Text(
            f"The run or its evaluation was interrupted and resumed: the process that finished it started at "
            f"{resumed_at}. The figures are the same as without the interruption.",
            "note",
        )
    stopped = (run.result or {}).get("stopped")
    if stopped:
        yield Text(f"Training was stopped early: {stopped}.", "warning")
    found = {kind: text for row in reversed(run.rows) for kind, text in row.get("trouble", {}).items()}
    for text in reversed(found.values()):
        yield Text(f"Training diagnosis, {text}", "warning")
    undone = [one for row in run.rows for one in row.get("rolled_back", ())]
    if undone:
        rows = tuple(
            (Cell(str(one["epoch"])), Cell(str(one["to"]) if one["to"] else "start"), Cell(one["said"]))
            for one in undone
        )
        yield Table("Rollbacks, each with a tenth of the learning rate", ("in epoch", "back to", "reason"), rows)
    if run.rows and not (found or undone or stopped):
        yield Text("The training diagnosis found no problem in any epoch.")


def _unfinished(run: GatheredRun) -> Iterator[Block]:
    done = f"{len(run.rows)} of {run.config.get('epochs')} epochs are done"
    command = shlex.join(["stcli", "train", "--resume", str(run.path)])
    yield Text(f"Unfinished: {done}. To resume: {command}", "warning")
    if run.rows:
        last = run.rows[-1]
        names = [name for name in last if name.endswith("_accuracy")]
        cells = (Cell(str(last["epoch"])), *(Cell(percent(last[name])) for name in names))
        titles = ("epoch", *(f"{attack_in_words(name.removesuffix('_accuracy'))} %" for name in names))
        caption = "The last epoch, on the images that select the best epoch, not on the test split"
        yield Table(caption, titles, (cells,), len(names))


def resumed(run: GatheredRun) -> str | None:
    """The start of the process that finished the run, if it resumed the run; otherwise None."""
    started, written = (run.result or {}).get("started"), (run.record.environment or {}).get("written")
    if started is None or written is None:
        return None
    # The first process writes the environment after its start, so a later start is that of another process.
    return str(started) if datetime.fromisoformat(started) > datetime.fromisoformat(written) else None
