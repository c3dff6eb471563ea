"""Writing of reports: from run folders to a file."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from stcore.base import checks
from stcore.base.files import write_file, writing
from stcore.base.progress import Progress, Silent
from stcore.errors import UsageError
from stcore.report.gathered import gather

FORMATS = {"html": "report.html", "markdown": "report.md", "card": "model-card.md"}
"""The formats, each with its default file name."""


def check_installed() -> None:
    """Raises UsageError if a package that reports need is not installed."""
    missing = [name for name in ("matplotlib", "jinja2") if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"report: {' and '.join(missing)} not installed: pip install 'stcore[plots]', or in the repository "
            "pip install '.[plots]'"
        )


def check_out(out: Path) -> None:
    """Raises UsageError if `out` is a folder, or its parent folder does not exist."""
    if out.is_dir():
        raise UsageError(f"out: expected a file, such as {out / 'report.html'}; received the folder {out}")
    if not out.parent.is_dir():
        raise UsageError(f"out: expected a file in an existing folder; received {out}. Make {out.parent} first")


def write(
    runs: Sequence[Path],
    out: Path,
    form: str = "html",
    *,
    examples: bool = True,
    progress: Progress | None = None,
) -> Path:
    """Writes a report of the runs in these folders atomically, and returns its path.

    form: `html`, one file; `markdown`, with its figures in a folder beside it; `card`, a model card of one run.
    examples: compute example pictures, which needs each run's backend and data; if one is missing, the report says
    so.
    Raises UsageError for a folder without a run, an `out` that cannot be written, or a missing package.
    """
    check_installed()
    checks.choice("format", form, tuple(FORMATS))
    check_out(out)
    gathered = gather(runs)
    if form == "card":
        from stcore.report.card import card

        if len(gathered) != 1:
            raise UsageError(
                f"runs: expected one run for a model card; received {len(gathered)}. Write a card for each run"
            )
        write_file(out, card(gathered[0]))
        return out
    from stcore.report.document import document
    from stcore.report.examples import examples_of

    found = {run.name: examples_of(run, progress or Silent()) for run in gathered} if examples else {}
    content = document(gathered, found)
    if form == "html":
        from stcore.report.html import html

        write_file(out, html(content))
        return out
    from stcore.report.markdown import markdown, pictures, save_pictures

    folder = out.with_name(f"{out.stem}-figures")
    if any(pictures(content)):
        with writing(folder):
            folder.mkdir(exist_ok=True)
        save_pictures(content, folder)
    write_file(out, markdown(content, folder.name))
    return out
