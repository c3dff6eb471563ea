"""`stcli merge`: joins the shards of an evaluation, or evaluations in several threat models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from stcore import errors
from stcore.cli.console import label_of, make_console, say, score_table, stage_table
from stcore.cli.parsing import parse
from stcore.errors import UsageError
from stcore.evaluation.folder import IDENTITY, EvaluationFolder
from stcore.evaluation.results import STRICT, result_json
from stcore.evaluation.shards import merge
from stcore.evaluation.union_merge import merge_union


@dataclass(frozen=True)
class MergeOptions:
    """Join the shards of an evaluation, as `stcli evaluate --shard i/n` leaves them, or, with --union, evaluations
    in several threat models."""

    parts: tyro.conf.Positional[tuple[Path, ...]]
    """The folders of all shards, or of all threat models."""
    out: Path
    """Folder for the joined evaluation, new or empty."""
    union: bool = False
    """Join evaluations of the same weights and images in several norms or at several radii: an image withstands
    their union if it withstands every attack of each."""


def main(args: Sequence[str]) -> int:
    """Merges as the arguments say; returns the exit code."""
    options = parse(MergeOptions, args, "stcli merge")
    if not options.parts:
        raise UsageError("parts: expected the folders of an evaluation's shards, or of evaluations; received none")
    names = [sorted(path.parent.name for path in part.glob(f"*/{IDENTITY}")) for part in options.parts]
    if not names[0] or any(one != names[0] for one in names):
        raise UsageError(f"parts: expected folders of stcli evaluate with the same checkpoints; received {names}")
    join = merge_union if options.union else merge
    merged = {name: join([part / name for part in options.parts]) for name in names[0]}
    console = make_console()
    for name, (about, records, found) in merged.items():
        result = result_json(found, list(about["attacks"]), precision=about.get("precision", STRICT))
        EvaluationFolder(options.out / name, about).finish(records, result)
    labelled = {label_of(name, None, about): found for name, (about, _, found) in merged.items()}
    console.print(score_table({label: found.accuracies for label, found in labelled.items()}))
    for label, found in labelled.items():
        for attack, cascade in found.cascades.items():
            console.print(stage_table(f"{label}, {attack}", cascade.stages))
    part = "evaluation" if options.union else "shard"
    say(console, f"everything is in {options.out}; each {part} keeps its own audit and examples")
    return errors.OK
