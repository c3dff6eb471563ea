"""`stcli analyze`."""

from __future__ import annotations

import csv
import importlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from stcore import errors
from stcore.analysis.registry import ANALYSES, Analysis
from stcore.base import checks
from stcore.base.files import write_file, writing
from stcore.base.version import __version__
from stcore.cli.analyze_checkpoints import settings_of, subjects, targets
from stcore.cli.analyze_options import OPTIONS, OfAny, given
from stcore.cli.console import make_console, make_progress, say
from stcore.cli.fitting import Fitting, fitting
from stcore.cli.parsing import parse
from stcore.cli.table import left_out
from stcore.errors import UsageError
from stcore.runs.folder import RunFolder

HELP = f"""usage: stcli analyze WHAT RUN… [options]

Draws the paper's figures from your own networks and runs, and saves their numbers.

{chr(10).join(f"  {name:<17} {it.what} ({it.figure})" for name, it in ANALYSES.items())}

  stcli analyze WHAT --help lists its options. Start with: stcli analyze angles runs/st runs/standard
"""


def main(args: Sequence[str]) -> int:
    """Analyses as the arguments say; returns the exit code."""
    if not args or args[0] in ("-h", "--help"):
        print(HELP, end="")
        return errors.OK if args else UsageError.exit_code
    what = args[0]
    checks.choice("what", what, ANALYSES)
    options: OfAny = parse(OPTIONS[what], args[1:], f"stcli analyze {what}")
    drawer = importlib.import_module(ANALYSES[what].drawer)  # raises if a package is missing, before any work
    style = importlib.import_module("stcore.figures.style")
    formats = options.formats.split(",")
    for kind in formats:
        checks.choice("formats", kind, style.FORMATS)
    runs = named_runs(options)
    console = make_console()
    result, about = computed(what, runs, options, console)
    figure = drawer.draw(result, dark=options.dark)
    folder = Path(options.out)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    files = save_numbers(result, folder / what, {**head(what), **about})
    files += style.save(figure, folder / what, formats)
    console.print(as_table(result.table()))
    for reason in getattr(result, "left_out", ()):
        left_out(reason)
    for file in files:
        say(console, str(file))
    return errors.OK


def named_runs(options: OfAny) -> dict[str, Path]:
    """The runs by name: from --names, else their folders' names, or their whole paths if two names are equal."""
    runs = options.folders()
    if not runs:
        raise UsageError("run: expected at least one, such as runs/st; received none")
    if options.names is not None:
        names = options.names.split(",")
        if len(names) != len(runs) or len(set(names)) < len(names) or not all(names):
            raise UsageError(
                f"names: expected {len(runs)}, one for each run, all different, separated by commas; "
                f"received {options.names!r}"
            )
        return dict(zip(names, runs, strict=True))
    paths = [Path(os.path.abspath(run)) for run in runs]  # a name for "." too; a link keeps its own
    short = [path.stem if path.is_file() else path.name for path in paths]
    named = {name if short.count(name) == 1 else str(run): run for name, run in zip(short, runs, strict=True)}
    if len(named) < len(runs):
        raise UsageError("run: expected each run once; received one twice")
    return named


def computed(
    what: str, runs: Mapping[str, Path], options: Any, console: Console
) -> tuple[Any, dict[str, dict[str, Any]]]:
    """The result, and its origin for the record."""
    module = importlib.import_module(ANALYSES[what].module)
    if ANALYSES[what].of == "runs":
        folders = {name: RunFolder.open(run).path for name, run in runs.items()}
        return module.compute(folders, module.Settings(**given(module.Settings, options))), {
            "runs": {name: str(path) for name, path in folders.items()}
        }
    if ANALYSES[what].of == "evaluations":
        return module.compute(runs, module.Settings(**given(module.Settings, options))), {
            "runs": {name: str(path) for name, path in runs.items()}
        }
    found = targets(dict(runs), options)
    settings = settings_of(module, found, options)
    record: dict[str, dict[str, Any]] = {}
    result = module.compute(subjects(found, options, record), settings, progress=make_progress(console))
    return result, {"checkpoints": record}


def head(what: str) -> dict[str, Any]:
    """The head of an analysis' record."""
    it: Analysis = ANALYSES[what]
    return {"analysis": what, "what": it.what, "figure": it.figure, "stcore": __version__}


def save_numbers(result: Any, path: Path, about: Mapping[str, Any]) -> list[Path]:
    """Writes the rows as CSV and the whole record as JSON; returns the files' paths."""
    rows = result.rows()
    text = io.StringIO()
    table = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    files = [path.with_name(f"{path.name}.{kind}") for kind in ("csv", "json")]
    write_file(files[0], text.getvalue())
    write_file(files[1], json.dumps({**about, **result.content()}, indent=1, allow_nan=False) + "\n")
    return files


def as_table(rows: Sequence[Mapping[str, Any]]) -> Fitting:
    """Rows as a table for the terminal."""
    texts = [n for n, value in enumerate(rows[0].values()) if isinstance(value, str)]
    cells = [[_shown(value) for value in row.values()] for row in rows]
    return fitting([name.replace("_", " ") for name in rows[0]], cells, texts)


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, tuple):  # with its deviation, or with its interval
        middle, *around = map(_shown, value)
        return f"{middle} ± {around[0]}" if len(around) == 1 else f"{middle} [{', '.join(around)}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
