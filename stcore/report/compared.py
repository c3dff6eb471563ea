"""Several runs side by side: their figures, what differs in their settings, and whether they compare at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from stcore.report.blocks import Block, Cell, Folded, Section, Table, Text
from stcore.report.gathered import GatheredRun
from stcore.report.phrases import accuracy, attack, listed, radius, value
from stcore.report.summary import figures
from stcore.runs.record import data_of

MANY = 5
"""So many runs fit beside each other; with more, settings are columns and runs are rows."""


def side_by_side(runs: Sequence[GatheredRun], key: str) -> Section:
    """The best checkpoints' figures, a row for each run."""
    found = [figures(run) for run in runs]
    columns = list(dict.fromkeys(name for one in found for name in one))
    rows = []
    for run, one in zip(runs, found, strict=True):
        said = (str(run.config.get("method", "st")), "" if run.result is not None else "unfinished")
        detail = ", ".join(word for word in said if word not in ("", run.name))
        cells = [accuracy(one[name]) if name in one else Cell("–") for name in columns]
        rows.append((Cell(run.name, detail), *cells))
    titles = ("run", *(f"{name} %" for name in columns))
    blocks: list[Block] = [
        Text(
            "Accuracy in percent of each run's best checkpoint on the test split, with 95 % Clopper–Pearson "
            "intervals over the images. Each run is one seed: how much another would differ is not in them."
        ),
        Table("Best checkpoints", titles, tuple(rows), len(columns)),
        *doubts(runs),
    ]
    return Section(key, "Side by side", tuple(blocks))


def differences(runs: Sequence[GatheredRun], key: str) -> Section:
    """The settings in which runs that have them differ; those that only some methods have are folded away."""
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
        blocks.append(Text("The runs differ in no setting that they share.", "note"))
    if partial:
        table = _settings("Settings that only some methods have", runs, flats, partial)
        blocks.append(Folded(f"{len(partial)} settings that only some of the methods have", (table,)))
    return Section(key, "What differs", tuple(blocks))


def _settings(
    caption: str, runs: Sequence[GatheredRun], flats: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> Table:
    """A column for each run, or with many a row for each."""
    cells = [[Cell(value(flat[name]) if name in flat else "–") for name in names] for flat in flats]
    if len(runs) > MANY:
        rows = tuple((Cell(run.name), *row) for run, row in zip(runs, cells, strict=True))
        return Table(caption, ("run", *names), rows)
    columns = zip(*cells, strict=True)
    rows = tuple((Cell(name), *column) for name, column in zip(names, columns, strict=True))
    return Table(caption, ("setting", *(run.name for run in runs)), rows)


def doubts(runs: Sequence[GatheredRun]) -> Iterator[Text]:
    """What keeps figures from being compared."""
    finished = [run for run in runs if run.result is not None]
    for what, (tone, told) in _COMPARED.items():
        groups: dict[str, list[str]] = {}
        for run in finished:
            groups.setdefault(told(run), []).append(run.name)
        if len(groups) > 1:
            said = "; ".join(f"{listed(names)}: {it}" for it, names in groups.items())
            yield Text(f"Compare with care, for the runs differ in {what}. {said}.", tone)
    if any(run.plan is not None and run.plan.evaluation.select == "test" for run in finished):
        yield Text("Best epochs chosen on the TEST split (the paper's rule) have optimistic figures.", "warning")


def _test_data(run: GatheredRun) -> str:
    test = data_of(run.record).get("test", {})
    return f"{test.get('images', 'unknown')} test images ({str(test.get('sha256', 'unknown'))[:8]})"


def _ball(run: GatheredRun) -> str:
    return radius((run.result or {})["epsilon"], "linf" if run.plan is None else run.plan.norm)


def _choice(run: GatheredRun) -> str:
    by, _, on = (run.result or {}).get("selected_on", "@").partition("@")
    return f"{attack(by)} on {on}"


_COMPARED: dict[str, tuple[str, Callable[[GatheredRun], str]]] = {
    "their test images": ("warning", _test_data),
    "the attacks' budget": ("warning", _ball),
    "how the best epoch was chosen": ("note", _choice),
}
