"""Audit section: the audits of a run's evaluations in plain words."""

from __future__ import annotations

from collections.abc import Iterator

from stcore.evaluation.unions import without_members
from stcore.report.blocks import Block, Cell, Folded, Section, Table, Text
from stcore.report.gathered import GatheredRun, LaterEvaluation
from stcore.report.phrases import listed, plural
from stcore.results.names import attack_in_words

WHAT = (
    "A robust accuracy is the share of images that stay correctly classified under the attacks. A network can be "
    "hard to attack and yet not robust: its gradients vanish or mislead, or its output is random. The audit "
    "checks for this on a few images. It can raise doubts; it cannot prove that a network is robust."
)
NONE = (
    "No evaluation here was audited, so it is unknown whether its gradients mislead the attacks. stcli "
    "evaluate audits unless --no-audit is given, and saves the audit with an evaluation that has a folder."
)


def audits(run: GatheredRun, key: str) -> Section:
    """The audit of each evaluation that has one and was made with the run's own weights and images."""
    blocks: list[Block] = [Text(WHAT)]
    audited = [one for one in run.evaluations if one.result and one.result["audit"] and not one.mismatch]
    if not audited:
        blocks.append(Text(NONE, "note"))
    for one in audited:
        blocks += audit(one)
    return Section(key, "Can these figures be believed?", tuple(blocks))


def audit(one: LaterEvaluation) -> Iterator[Block]:
    """The summary, a sentence for each doubt, and all answers folded away."""
    findings = (one.result or {})["audit"]
    by = {status: [f for f in findings if f["status"] == status] for status in ("pass", "warn", "skipped")}
    attacks = listed([attack_in_words(name) for name in without_members(one.identity["attacks"])])
    counts = f"{len(by['pass'])} of {plural(len(findings), 'check')} passed"
    skipped = f", {len(by['skipped'])} could not run" if by["skipped"] else ""
    summary = f"Audit of the {one.checkpoint} checkpoint under {attacks}{one.ways}: {counts}{skipped}"
    if not by["warn"]:
        yield Text(f"{summary}, and none raised doubts.")
    else:
        yield Text(f"{summary}, and {len(by['warn'])} raised doubts:", "warning")
        for finding in by["warn"]:
            yield Text(f"{finding['check']} ({finding['value']}): {finding['meaning']}", "warning")
    rows = tuple(
        (
            Cell(finding["check"]),
            Cell(
                {"pass": "passed", "warn": "doubt", "skipped": "not run"}[finding["status"]],
                "",
                finding in by["warn"],
            ),
            Cell(finding["value"]),
            Cell(finding["meaning"]),
        )
        for finding in findings
    )
    titles = ("check", "outcome", "measured", "meaning")
    yield Folded(f"All checks of the {one.checkpoint} checkpoint", (Table("The audit", titles, rows),))
