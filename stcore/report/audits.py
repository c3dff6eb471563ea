"""The audit of a run's evaluations, in plain words."""

from __future__ import annotations

from collections.abc import Iterator

from stcore.report.blocks import Block, Cell, Folded, Section, Table, Text
from stcore.report.gathered import GatheredRun, LaterEvaluation
from stcore.report.phrases import attack, listed, plural

WHAT = (
    "A robust accuracy is what the attacks left standing. A network can be hard to attack and yet not robust: its "
    "gradients vanish or mislead, or it answers at random. The audit asks questions on a few images. It can raise "
    "doubt; it cannot prove that a network is robust."
)
NONE = (
    "No evaluation of this run was audited, so nothing is known about whether its gradients mislead the attacks. "
    "stcli evaluate asks, unless told --no-audit, and keeps the answers with the run where autoattack is among "
    "the attacks."
)


def audits(run: GatheredRun, key: str) -> Section:
    """Of each evaluation that has one and is of the run's own weights."""
    blocks: list[Block] = [Text(WHAT)]
    asked = [one for one in run.evaluations if one.found is not None and one.found["audit"] and not one.other]
    if not asked:
        blocks.append(Text(NONE, "note"))
    for one in asked:
        blocks += of(one)
    return Section(key, "Can these figures be believed?", tuple(blocks))


def of(one: LaterEvaluation) -> Iterator[Block]:
    """The verdict, each doubt in a sentence of its own, and all answers folded away."""
    findings = (one.found or {})["audit"]
    by = {status: [f for f in findings if f["status"] == status] for status in ("pass", "warn", "skipped")}
    what = f"the {one.checkpoint} checkpoint under {listed([attack(name) for name in one.about['attacks']])}"
    counts = f"of {plural(len(findings), 'question')} {len(by['pass'])} found nothing"
    skipped = f", {len(by['skipped'])} could not be asked" if by["skipped"] else ""
    if not by["warn"]:
        yield Text(f"Of {what}: {counts}{skipped}, and none raised doubt.")
    else:
        yield Text(f"Of {what}: {counts}{skipped}, and {len(by['warn'])} raised doubt:", "warning")
        for finding in by["warn"]:
            yield Text(f"{finding['check']} ({finding['value']}): {finding['meaning']}", "warning")
    rows = tuple(
        (
            Cell(finding["check"]),
            Cell(
                {"pass": "fine", "warn": "doubt", "skipped": "not asked"}[finding["status"]],
                "",
                finding in by["warn"],
            ),
            Cell(finding["value"]),
            Cell(finding["meaning"]),
        )
        for finding in findings
    )
    titles = ("question", "answer", "measured", "what it means")
    yield Folded(f"All answers for {one.checkpoint}", (Table("The audit", titles, rows),))
