"""Comparison sections: several runs' accuracies, differences in settings, and whether they are comparable."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from stcore.report.blocks import Block, Cell, Folded, Section, Table, Text
from stcore.report.gathered import GatheredRun
from stcore.report.phrases import accuracy, listed, radius, value
from stcore.report.summary import figures
from stcore.results.names import attack_in_words
from stcore.runs.record import data_of

MANY = 5
"""The largest number of runs that are columns; more runs are rows."""


def side_by_side(runs: Sequence[GatheredRun], key: str) -> Section:
    """The accuracies of the best checkpoints, a row per run."""
    found = [figures(run) for run in runs]
    columns = list(dict.fromkeys(name for one in found for name in one))
    rows = []
    for run, one in zip(runs, found, strict=True):
        other = "" if run.checkpoint == "best" else run.checkpoint
        details = (str(run.config.get("method", "st")), other, "" if run.result is not None else "unfinished")
        detail = ", ".join(word for word in details if word not in ("", run.name))
        cells = [accuracy(one[name]) if name in one else Cell("–") for name in columns]
        rows.append((Cell(run.name, detail), *cells))
    titles = ("run", *(f"{name} %" for name in columns))
    blocks: list[Block] = [
        Text(
            "Accuracy in percent of each run's best checkpoint on the test split, with 95 % Clopper–Pearson "
            "intervals over the images. Each run is one seed; the intervals do not cover the variation over seeds."
        ),
        Table("Best checkpoints", titles, tuple(rows), len(columns)),
        *doubts(runs),
    ]
    return Section(key, "Side by side", tuple(blocks))


def differences(runs: Sequence[GatheredRun], key: str) -> Section:
    """The settings in which the runs differ; those that only some methods have are folded away."""
    flats = [dict(run.config) if run.plan is None else run.plan.flat() for run in runs]
    varied, partial = [], []
    for name in dict.fromkeys(name for flat in flats for name in flat):
        if len({json.dumps(flat[name]) for flat in flats if name in flat}) > 1:
            varied.append(name)
        elif not all(name in flat for flat in flats):
            partial.append(name)
    blocks: list[Block] = []
    if varied:
        blocks.append(_settings("Settings in which the runs differ", runs, flats, varied))
    else:
        blocks.append(Text("The runs have the same values for all settings that they share.", "note"))
    if partial:
        table = _settings("Settings that only some methods have", runs, flats, partial)
        blocks.append(Folded(f"{len(partial)} settings that only some of the methods have", (table,)))
    return Section(key, "What differs", tuple(blocks))


def _settings(
    caption: str, runs: Sequence[GatheredRun], flats: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> Table:
    """A column per run, or a row per run if there are more than `MANY`."""
    cells = [[Cell(value(flat[name]) if name in flat else "–") for name in names] for flat in flats]
    if len(runs) > MANY:
        rows = tuple((Cell(run.name), *row) for run, row in zip(runs, cells, strict=True))
        return Table(caption, ("run", *names), rows)
    columns = zip(*cells, strict=True)
    rows = tuple((Cell(name), *column) for name, column in zip(names, columns, strict=True))
    return Table(caption, ("setting", *(run.name for run in runs)), rows)


def doubts(runs: Sequence[GatheredRun]) -> Iterator[Text]:
    """Warnings about differences that make the figures hard to compare."""
    finished = [run for run in runs if run.result is not None]
    for what, (tone, value_of) in _COMPARED.items():
        groups: dict[str, list[str]] = {}
        for run in finished:
            groups.setdefault(value_of(run), []).append(run.name)
        if len(groups) > 1:
            values = "; ".join(f"{listed(names)}: {it}" for it, names in groups.items())
            yield Text(f"Compare with care: the runs differ in {what}. {values}.", tone)
    if any(run.plan is not None and run.plan.evaluation.select == "test" for run in finished):
        yield Text(
            "The figures of best epochs selected on the TEST split (the paper's rule) are optimistic.", "warning"
        )


def _test_data(run: GatheredRun) -> str:
    test = data_of(run.record).get("test", {})
    return f"{test.get('images', 'unknown')} test images ({str(test.get('sha256', 'unknown'))[:8]})"


def _ball(run: GatheredRun) -> str:
    return radius((run.result or {})["epsilon"], "linf" if run.plan is None else run.plan.norm)


def _selection(run: GatheredRun) -> str:
    by, _, on = (run.result or {}).get("selected_on", "@").partition("@")
    return f"{attack_in_words(by)} on {on}"


_COMPARED: dict[str, tuple[str, Callable[[GatheredRun], str]]] = {
    "their test images": ("warning", _test_data),
    "the attacks' budget": ("warning", _ball),
    "the selection of the best epoch": ("note", _selection),
}
