"""The accuracies of a run: its own, and those that `stcli evaluate` found later."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from stcore.report.blocks import Block, Cell, Folded, Section, Table, Text
from stcore.report.gathered import GatheredRun, LaterEvaluation
from stcore.report.paper_row import beside_the_paper
from stcore.report.phrases import accuracy, attack, listed, plural, radius

WEAK = "PGD and FGSM overestimate robustness. Before such a figure is published, evaluate by AutoAttack: "


def results(run: GatheredRun, key: str) -> Section:
    """Unfinished runs have the last epoch's figures, from `stcore.report.troubles`; here stands what is final."""
    blocks: list[Block] = []
    if run.result is None:
        blocks.append(Text("This run is unfinished: it has no result on the test split yet.", "warning"))
    else:
        blocks += [Text(about(run)), scores_table(run)]
    blocks += later(run)
    if run.result is not None and not any(name.startswith("autoattack") for name in judged_by(run)):
        command = shlex.join(["stcli", "evaluate", str(run.path), "--attacks", "autoattack"])
        blocks.append(Text(f"{WEAK}{command}", "note"))
    blocks += beside_the_paper(run)
    return Section(key, "Results", tuple(blocks))


def about(run: GatheredRun) -> str:
    """What the figures are of."""
    result, norm = run.result or {}, "linf" if run.plan is None else run.plan.norm
    return (
        f"Accuracy in percent on {plural(result['images'], 'image')} of the test split, under attacks with "
        f"{radius(result['epsilon'], norm)}. In brackets: 95 % Clopper–Pearson intervals over these images."
    )


def scores_table(run: GatheredRun) -> Table:
    """Checkpoints by attacks."""
    columns = list(dict.fromkeys(name for scores in run.checkpoints.values() for name in scores))
    epochs = (run.result or {}).get("checkpoint_epochs", {})
    rows = []
    for name, scores in run.checkpoints.items():
        label = Cell(name, f"epoch {epochs[name]}" if name in epochs else "")
        rows.append((label, *(accuracy(scores[a]) if a in scores else Cell("–") for a in columns)))
    titles = ("checkpoint", *(f"{attack(name)} %" for name in columns))
    return Table("Accuracy on the test split", titles, tuple(rows), len(columns))


def later(run: GatheredRun) -> Iterator[Block]:
    """What is in the run's evaluations folder, each attack of each in a row, and the stages of cascades."""
    if not run.evaluations:
        return
    rows = tuple(row for one in run.evaluations for row in _rows(one))
    titles = ("checkpoint", "attack", "images", "accuracy %")
    yield Table("Evaluated later, by stcli evaluate", titles, rows, 2)
    if others := dict.fromkeys(one.other for one in run.evaluations if one.other):
        yield Text(f"What is of {listed(list(others))} than the run's says nothing of the run.", "warning")
    for one in run.evaluations:
        for name, stages in (one.found or {}).get("cascades", {}).items():
            yield Folded(f"{attack(name)} on {one.checkpoint}, stage by stage", (_stages(stages),))


def _rows(one: LaterEvaluation) -> Iterator[tuple[Cell, ...]]:
    ball = radius(one.about["epsilon"], one.about["norm"])
    images = Cell(f"{one.about['images']:,}", which(one))
    label = Cell(one.checkpoint, one.other, bool(one.other))
    if one.found is None:
        for name in one.about["attacks"]:
            yield label, Cell(attack(name), ball), images, Cell("unfinished")
        return
    for name, score in one.found["accuracies"].items():
        yield label, Cell(attack(name), ball if name != "natural" else ""), images, accuracy(score)


def which(one: LaterEvaluation) -> str:
    """Which part of the test images it is of."""
    said = [f"{name} {one.about[name]}" for name in ("subset", "shard") if one.about[name]]
    return ", ".join(said)


def _stages(stages: list[Mapping[str, Any]]) -> Table:
    rows = [
        (
            Cell(stage["attack"]),
            Cell(f"{stage['robust']} of {stage['total']}"),
            *(Cell(f"{stage[name]:,}") for name in ("forwards", "backwards", "seconds")),
        )
        for stage in stages
    ]
    titles = ("attack", "withstand it and those before", "forwards", "backwards", "seconds")
    return Table("What each attack left standing, and what it cost", titles, tuple(rows), 4)


def judged_by(run: GatheredRun) -> set[str]:
    """The attacks that the run has figures for."""
    own = {name for scores in run.checkpoints.values() for name in scores}
    return own | {name for one in run.evaluations if one.found and not one.other for name in one.about["attacks"]}
