"""Results section: a run's accuracies, later evaluations, and the paper's row beside them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from stcore.evaluation.accuracy import Accuracy, MeanAccuracy
from stcore.evaluation.attack_names import has_own_budget
from stcore.evaluation.results import unusual
from stcore.evaluation.unions import threat_model
from stcore.paper import PRESETS
from stcore.paper.preset import Expected
from stcore.report.blocks import Block, Cell, Folded, Section, Table, Text
from stcore.report.gathered import GatheredRun, LaterEvaluation
from stcore.report.phrases import accuracy, images_of, listed, percent, plural, radius
from stcore.results.comparison import Row, compare
from stcore.results.names import attack_in_words

MADE = (
    "The corruptions follow those of CIFAR-10-C (Hendrycks and Dietterich, 2019), in kind and severity, and are "
    "made from the test images; frost is drawn, not photographed. Compare networks with each other by them, and "
    "with published figures on the published files. The intervals count images, not their versions."
)
PUBLISHED = "The corrupted images are read from published files. The intervals count images, not their versions."
WEAK = "PGD and FGSM overestimate robustness. Before publishing such a figure, evaluate with AutoAttack: "


def results(run: GatheredRun, key: str) -> Section:
    """The final accuracies. The last epoch of an unfinished run is in `stcore.report.history`."""
    blocks: list[Block] = []
    if run.result is None:
        blocks.append(Text("This run is unfinished: it has no result on the test split yet.", "warning"))
    else:
        blocks += [Text(caption(run)), scores_table(run)]
    blocks += cascades((run.result or {}).get("cascades", {}), run.checkpoint)
    blocks += later_evaluations(run)
    blocks += corrupted(run)
    if run.result is not None and not any(map(_is_autoattack, attacks_of(run))):
        command = shlex.join(["stcli", "evaluate", str(run.path), "--attacks", "autoattack"])
        blocks.append(Text(f"{WEAK}{command}", "note"))
    blocks += beside_the_paper(run)
    return Section(key, "Results", tuple(blocks))


def _is_autoattack(name: str) -> bool:
    threat = threat_model(name)
    return (name if threat is None else threat.attack).startswith("autoattack")


def caption(run: GatheredRun) -> str:
    """What the accuracies are measured on, and their intervals."""
    result, norm = run.result or {}, "linf" if run.plan is None else run.plan.norm
    return (
        f"Accuracy in percent on {plural(result['images'], 'image')} of the test split, under attacks with "
        f"{radius(result['epsilon'], norm)}. In brackets: 95 % Clopper–Pearson intervals over these images."
    )


def scores_table(run: GatheredRun) -> Table:
    """Checkpoints by attacks."""
    columns = list(dict.fromkeys(name for scores in run.checkpoints.values() for name in scores))
    result = run.result or {}
    epochs = result.get("checkpoint_epochs", {})
    rows = []
    for name, scores in run.checkpoints.items():
        label = Cell(name, f"epoch {epochs[name]}" if name in epochs else "")
        cells = (_on_images(scores[a], result["images"]) if a in scores else Cell("–") for a in columns)
        rows.append((label, *cells))
    titles = ("checkpoint", *(f"{attack_in_words(name)} %" for name in columns))
    return Table("Accuracy on the test split", titles, tuple(rows), len(columns))


def _on_images(score: Mapping[str, Any], all_images: int) -> Cell:
    """An accuracy with its interval, and the number of its images if it is not that of all."""
    cell, images = accuracy(score), images_of(score)
    return cell if images == all_images else replace(cell, detail=f"{cell.detail}, {plural(images, 'image')}")


def later_evaluations(run: GatheredRun) -> Iterator[Block]:
    """A row per attack of each evaluation in the run's folder, and the stages of the cascades."""
    if not run.evaluations:
        return
    rows = tuple(row for one in run.evaluations for row in _rows(one))
    titles = ("checkpoint", "attack", "images", "accuracy %")
    yield Table("Evaluated later, by stcli evaluate", titles, rows, 2)
    if mismatches := dict.fromkeys(one.mismatch for one in run.evaluations if one.mismatch):
        yield Text(
            f"Evaluations marked “{listed(list(mismatches))}” do not count for this run: they used other weights "
            "or test images than the run's.",
            "warning",
        )
    for one in run.evaluations:
        yield from cascades((one.result or {}).get("cascades", {}), f"{one.checkpoint}{one.ways}")


def cascades(found: Mapping[str, list[Mapping[str, Any]]], on: str) -> Iterator[Block]:
    """The stages of each cascade, folded away.   on: the checkpoint, and how its evaluation computed."""
    for name, stages in found.items():
        yield Folded(f"{attack_in_words(name)} on {on}, stage by stage", (_stages(stages),))


def corrupted(run: GatheredRun) -> Iterator[Block]:
    """The accuracies on corrupted images, of the run's own result and of later evaluations."""
    found: list[tuple[str, Mapping[str, Any], Mapping[str, str]]] = [
        (name, scores, {}) for name, scores in run.checkpoints.items()
    ]
    found += [
        (f"{one.checkpoint}{one.ways}", one.result["accuracies"], one.identity["attacks"])
        for one in run.evaluations
        if one.result is not None and not one.mismatch
    ]
    for checkpoint, scores, settings in found:
        for name, score in scores.items():
            if "table" in score:
                yield _corruptions(checkpoint, score)
                yield Text(PUBLISHED if "Published(" in settings.get(name, "") else MADE)


def _corruptions(checkpoint: str, score: Mapping[str, Any]) -> Table:
    mean = Accuracy.of_json(score)
    if not isinstance(mean, MeanAccuracy):
        raise AssertionError  # it has a table
    rows = {**mean.rows(), "mean": mean}
    severities = mean.columns()
    cells = [
        (
            Cell(name.replace("_", " ")),
            *(Cell(percent(row[severity].value)) for severity in severities),
            accuracy(rows[name].as_json()),
        )
        for name, row in {**mean.table, "mean": severities}.items()
    ]
    images = plural(mean.total // mean.repeats, "image")
    return Table(
        f"Accuracy in percent on corrupted versions of {images}, {checkpoint} checkpoint, by severity",
        ("corruption", *map(str, severities), "mean"),
        tuple(cells),
        len(severities) + 1,
    )


def _rows(one: LaterEvaluation) -> Iterator[tuple[Cell, ...]]:
    ball = radius(one.identity["epsilon"], one.identity["norm"])
    ways = unusual(one.identity)
    images = Cell(f"{one.identity['images']:,}", part_of_images(one))
    label = Cell(one.checkpoint, one.mismatch, bool(one.mismatch))
    if one.result is None:
        for name in one.identity["attacks"]:
            setting = _joined("" if has_own_budget(name) else ball, *ways)
            yield label, Cell(attack_in_words(name), setting), images, Cell("unfinished")
        return
    for name, score in one.result["accuracies"].items():
        setting = _joined("" if name == "natural" or has_own_budget(name) else ball, *ways)
        yield label, Cell(attack_in_words(name), setting), images, accuracy(score)


def _joined(*settings: str) -> str:
    return ", ".join(filter(None, settings))


def part_of_images(one: LaterEvaluation) -> str:
    """The subset and shard of the test images; empty for all of them."""
    return ", ".join(f"{name} {one.identity[name]}" for name in ("subset", "shard") if one.identity[name])


def _stages(stages: list[Mapping[str, Any]]) -> Table:
    costs = {
        name: title
        for name, title in {
            "forwards": "forward passes",
            "backwards": "backward passes",
            "seconds": "seconds",
        }.items()
        if all(name in stage for stage in stages)
    }
    rows = [
        (
            Cell(stage["attack"]),
            Cell(f"{stage['robust']} of {stage['total']}"),
            *(Cell(f"{stage[name]:,}") for name in costs),
        )
        for stage in stages
    ]
    caption = "Images still classified correctly after each attack" + (", and its cost" if costs else "")
    return Table(caption, ("attack", "still correct after it", *costs.values()), tuple(rows), 1 + len(costs))


def attacks_of(run: GatheredRun) -> set[str]:
    """The attacks for which the run has an accuracy."""
    own = {name for scores in run.checkpoints.values() for name in scores}
    later = (one for one in run.evaluations if one.result and not one.mismatch)
    return own | {name for one in later for name in one.identity["attacks"]}


def beside_the_paper(run: GatheredRun) -> Iterator[Block]:
    """The paper's row of the run's preset beside the run's accuracies, with the verdict of `stcli verify`."""
    preset = PRESETS.get(str(run.config.get("preset")))
    if preset is None or run.plan is None:
        return
    verdict = compare(preset, [run.record])
    compared = [row for row in verdict.rows if isinstance(row, Row)]
    rows = [
        (
            Cell(attack_in_words(row.attack)),
            Cell(f"{row.mean:.2f}", f"[{row.low:.2f}, {row.high:.2f}]"),
            Cell(f"{row.expected.mean:.2f}" + "?" * row.uncertain, _half_width(row.expected)),
            Cell(f"{row.difference:+.2f}"),
            Cell(verdict.word(row), marked=not verdict.comparable or not row.reproduced),
        )
        for row in compared
    ]
    if rows:
        titles = ("attack", "this run %", "the paper %", "difference", "verdict")
        yield Table(
            f"Compared with the paper's row {preset.name}, {preset.checkpoint} checkpoint", titles, tuple(rows), 4
        )
    if verdict.reasons:
        yield Text(f"Not comparable with the paper's row {preset.name}: {'; '.join(verdict.reasons)}.", "note")
    if verdict.rows and verdict.missing:
        missing = listed([attack_in_words(name) for name in verdict.missing])
        yield Text(f"This run or the paper's text has no number for {missing}.")
    if any(row.uncertain for row in compared):
        yield Text("A question mark: some digits are reconstructed from a damaged scan of the paper.")


def _half_width(expected: Expected) -> str:
    return "" if expected.half_width is None else f"± {expected.half_width:.2f}"
