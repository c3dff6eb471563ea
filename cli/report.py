"""`stcli report`: reports runs as HTML, Markdown or a model card."""

from __future__ import annotations

import os
import sys
import webbrowser
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from stcore import errors, zoo
from stcore.base import checks
from stcore.cli.console import make_console, make_progress, say
from stcore.cli.parsing import MaybeText, parse
from stcore.cli.quiet import load_quietly
from stcore.core.dispatch import available_backends
from stcore.report.writing import FORMATS, check_installed, check_out, write
from stcore.runs.folder import RunFolder


@dataclass(frozen=True)
class ReportOptions:
    """Report runs, finished or not: settings, results with intervals, curves, examples, audit.

    The HTML report is one file that opens offline and can be printed. Several runs are compared first.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """The runs' folders, as `stcli train` leaves them, or zoo:NAME (stcli zoo list), whose evaluations are those
    in evaluations/ here."""
    out: MaybeText = None
    """File to write; by default report.html, report.md or model-card.md in the working directory."""
    format: str = "html"
    """html; markdown, with its figures in a folder beside it; or card, a Hugging Face model card of one run."""
    examples: bool = True
    """Show adversarial and collaborative examples; needs each run's backend and data."""
    open: bool = False
    """Open the report in a browser."""


def main(args: Sequence[str]) -> int:
    """Writes the report and prints its path; returns the exit code."""
    options = parse(ReportOptions, args, "stcli report")
    checks.choice("format", options.format, tuple(FORMATS))
    out = Path(options.out or FORMATS[options.format])
    check_installed()
    check_out(out)  # before a framework is loaded
    console = make_console()
    if options.examples and options.format != "card":
        for backend in backends(options.runs):
            load_quietly(backend)
    write(options.runs, out, options.format, examples=options.examples, progress=make_progress(console))
    tell(console, out, show=options.open)
    return errors.OK


def backends(runs: Sequence[Path]) -> set[str]:
    """The backends of the runs that are installed; the report names those that are not."""
    return {str(_settings(run).get("backend")) for run in runs} & set(available_backends())


def _settings(run: Path) -> Mapping[str, Any]:
    card = zoo.find(run)
    return RunFolder.open(run).read_config() if card is None else card.config


def tell(console: Console, out: Path, *, show: bool) -> None:
    """Prints the report's path, and opens it in a browser if `show` and a display exist."""
    say(console, f"the report is in {out} ({out.stat().st_size / 1e6:.1f} MB)")
    if show and not (has_display() and webbrowser.open(out.resolve().as_uri())):
        say(console, f"no browser found: open {out.resolve()} in one")


def has_display() -> bool:
    """Whether a display exists; without one a terminal browser would take over the terminal."""
    return sys.platform in ("darwin", "win32") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
