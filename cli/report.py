"""`stcli report`: runs as a page to look at, as Markdown, or as a model card."""

from __future__ import annotations

import os
import sys
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from stcore import errors
from stcore.base import checks
from stcore.cli.console import make_console, make_progress, say
from stcore.cli.parsing import MaybeText, parse
from stcore.cli.quiet import load_quietly
from stcore.core.dispatch import available_backends
from stcore.report.writing import FORMATS, check_installed, check_out, write
from stcore.runs.folder import RunFolder


@dataclass(frozen=True)
class ReportOptions:
    """Write a report of runs, finished or not: what was trained, results with intervals, curves, examples, audit.

    As one HTML file it needs no network and no other file, and is printable. Several runs are compared first.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """The runs' folders, as `stcli train` leaves them."""
    out: MaybeText = None
    """The file to write; by default report.html, report.md or model-card.md here."""
    format: str = "html"
    """html; markdown, with its figures in a folder beside it; or card, a model card of one run for the hub."""
    examples: bool = True
    """Find adversarial and collaborative examples to show, which takes each run's backend and data."""
    open: bool = False
    """Show it in a browser."""


def main(args: Sequence[str]) -> int:
    """Writes the report, and says where it is; returns the exit code."""
    options = parse(ReportOptions, args, "stcli report")
    checks.choice("format", options.format, tuple(FORMATS))
    out = Path(options.out or FORMATS[options.format])
    check_installed()
    check_out(out)  # before anything heavy is loaded
    console = make_console()
    if options.examples and options.format != "card":
        for backend in backends(options.runs):
            load_quietly(backend)
    write(options.runs, out, options.format, examples=options.examples, progress=make_progress(console))
    tell(console, out, show=options.open)
    return errors.OK


def backends(runs: Sequence[Path]) -> set[str]:
    """Those of the runs that are installed here; of another one the report will say that it is not."""
    named = {str(RunFolder.open(run).read_config().get("backend")) for run in runs}
    return named & set(available_backends())


def tell(console: Console, out: Path, *, show: bool) -> None:
    """Says where the report is, and shows it if asked and there is something to show it on."""
    say(console, f"the report is in {out} ({out.stat().st_size / 1e6:.1f} MB)")
    if show and not (has_display() and webbrowser.open(out.resolve().as_uri())):
        say(console, f"no browser is to be had here: open {out.resolve()} in one")


def has_display() -> bool:
    """Whether a window can appear; without one a browser in the terminal would take it over."""
    return sys.platform in ("darwin", "win32") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
