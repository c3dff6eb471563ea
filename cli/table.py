"""`stcli table`: puts finished runs and their seeds into one table."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import tyro

from stcore import errors
from stcore.base import checks
from stcore.cli.parsing import MaybeText, parse
from stcore.errors import UsageError
from stcore.results.tables import paper, paper_text
from stcore.results.tables.evaluations import with_evaluations
from stcore.results.tables.notes import notes
from stcore.results.tables.table import make_table
from stcore.results.tables.text import FORMATS
from stcore.runs.folder import CHECKPOINTS
from stcore.runs.record import FinishedRun, find_runs, read_run

STYLES = {"runs": (FORMATS, notes), "paper": (paper_text.FORMATS, paper_text.caption_and_notes)}


@dataclass(frozen=True)
class TableOptions:
    """Put finished runs into a table; runs that differ only in their seed make one row, with 95 % intervals.

    Passes are those of one training step, in forwards of the batch: a backward pass to the pixels counts one, to
    pixels and weights two. s/epoch and images/s are medians over epochs. Unfinished runs are left out and named on
    stderr.
    """

    runs: tyro.conf.Positional[tuple[str, ...]]
    """Runs' folders, as `stcli train` leaves them, folders of runs, or globs."""
    checkpoint: str = "best"
    """Checkpoint: best, last, best-ema or last-ema."""
    columns: MaybeText = None
    """Settings to show, separated by commas, such as backend,method,awp; by default those that differ."""
    evaluations: bool = False
    """Add later results of stcli evaluate, such as autoattack: the finished ones in the runs' evaluations/."""
    sort: MaybeText = None
    """Sort the rows by this column: accuracies from the highest, others from the lowest."""
    style: str = "runs"
    """runs: settings, accuracies and costs; paper: like the paper's tables, the best of each column in bold, and
    below the runs of a preset the accuracies that the paper prints."""
    format: str = "markdown"
    """Output format: markdown, csv, json or latex (booktabs)."""


def main(args: Sequence[str]) -> int:
    """Prints the table on stdout, everything else on stderr; returns the exit code."""
    options = parse(TableOptions, args, "stcli table")
    checks.choice("checkpoint", options.checkpoint, CHECKPOINTS)
    checks.choice("style", options.style, STYLES)
    checks.choice("format", options.format, FORMATS)
    runs = read_runs(options.runs, options.checkpoint, options.evaluations)
    columns = None if options.columns is None else [name for name in options.columns.split(",") if name]
    table = make_table(runs, options.checkpoint, columns, options.sort)
    if options.style == "paper" and columns is None:
        table = paper.narrowed(table)
    formats, notes_of = STYLES[options.style]
    print(formats[options.format](table), end="")
    if options.format == "csv":
        for note in notes_of(table):
            print(note, file=sys.stderr)
    return errors.OK


def read_runs(words: Sequence[str], checkpoint: str, evaluations: bool = False) -> list[FinishedRun]:
    """The finished runs among those named; reports the others on stderr with the reason."""
    runs = []
    for path in find_runs(words, left_out):
        try:
            run = read_run(path, checkpoint)
            runs.append(with_evaluations(run, checkpoint, left_out) if evaluations else run)
        except UsageError as reason:
            left_out(str(reason))
    return runs


def left_out(reason: str) -> None:
    """Reports on stderr what is left out."""
    print(f"left out: {reason}", file=sys.stderr)
