"""The paper's figures beside a run's."""

from __future__ import annotations

from collections.abc import Iterator

from stcore.paper import PRESETS
from stcore.paper.preset import Expected
from stcore.report.blocks import Block, Cell, Table, Text
from stcore.report.gathered import GatheredRun
from stcore.report.phrases import attack, listed
from stcore.results.comparison import compare


def beside_the_paper(run: GatheredRun) -> Iterator[Block]:
    """The row that the run's preset stands for, judged as `stcli verify` does."""
    preset = PRESETS.get(str(run.config.get("preset")))
    if preset is None or run.plan is None:
        return
    verdict = compare(preset, [run.record])
    rows = [
        (
            Cell(attack(row.attack)),
            Cell(f"{row.mean:.2f}", f"[{row.low:.2f}, {row.high:.2f}]"),
            Cell(f"{row.expected.mean:.2f}" + "?" * row.uncertain, _half(row.expected)),
            Cell(f"{row.difference:+.2f}"),
            Cell(verdict.word(row), marked=not verdict.comparable or not row.reproduced),
        )
        for row in verdict.rows
    ]
    if rows:
        titles = ("attack", "this run %", "the paper %", "difference", "verdict")
        yield Table(
            f"Beside the paper's row {preset.name}, {preset.checkpoint} checkpoint", titles, tuple(rows), 4
        )
    if verdict.reasons:
        yield Text(f"Not comparable with the paper's row {preset.name}: {'; '.join(verdict.reasons)}.", "note")
    if verdict.rows and verdict.missing:
        names = listed([attack(name) for name in verdict.missing])
        yield Text(f"Without a number here, or in the paper's text: {names}.")
    if any(row.uncertain for row in verdict.rows):
        yield Text("A question mark: digits reconstructed from a damaged scan of the paper.")


def _half(expected: Expected) -> str:
    return "" if expected.half_width is None else f"± {expected.half_width:.2f}"
