"""A run's figures of one checkpoint under every attack it met, its own and later ones; the best at a glance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stcore.report.blocks import Block, Headline, Number, Text
from stcore.report.chance import useless
from stcore.report.gathered import GatheredRun, LaterEvaluation
from stcore.report.phrases import accuracy, attack, listed, percent, plural, radius

AT_A_GLANCE = ("natural", "pgd20", "autoattack")


def figures(run: GatheredRun, checkpoint: str = "best") -> dict[str, Mapping[str, Any]]:
    """Accuracies by attack, as papers write it; one that was made otherwise than the run's says so in its name."""
    found = {attack(name): score for name, score in run.checkpoints.get(checkpoint, {}).items()}
    for one in run.evaluations:
        if one.checkpoint == checkpoint and one.found is not None and not one.other:
            for name, score in one.found["accuracies"].items():
                if name != "natural":  # which the run has, on all images
                    found.setdefault(f"{attack(name)}{_otherwise(run, one)}", score)
    return found


def _otherwise(run: GatheredRun, one: LaterEvaluation) -> str:
    about, result = one.about, run.result or {}
    said = [f"{about['images']:,} images"] if about["images"] != result.get("images") else []
    norm = "linf" if run.plan is None else run.plan.norm
    if (about["epsilon"], about["norm"]) != (result.get("epsilon"), norm):
        said.append(radius(about["epsilon"], about["norm"]))
    if about["backend"] != run.config.get("backend", about["backend"]):
        said.append(about["backend"])
    return f" ({', '.join(said)})" if said else ""


def headline(runs: Sequence[GatheredRun]) -> tuple[Block, ...]:
    """Of one run its figures, of several the highest of each, and whether it is clearly apart from the others;
    before them which networks have learnt nothing."""
    finished = {run.name: figures(run) for run in runs if run.result is not None}
    if not finished:
        return (Text(f"{plural(len(runs), 'run')}, none of them finished.", "warning"),)
    shown = [attack(name) for name in AT_A_GLANCE]
    names = dict.fromkeys(name for one in finished.values() for name in one if name.partition(" (")[0] in shown)
    scores = {name: {run: one[name] for run, one in finished.items() if name in one} for name in names}
    numbers = [_number(name, of, alone=len(runs) == 1) for name, of in scores.items()]
    doubts = [text for run in runs for text in useless(run)]
    return (*doubts, Headline(tuple(numbers)))


def _number(name: str, scores: Mapping[str, Mapping[str, Any]], *, alone: bool) -> Number:
    best = max(scores, key=lambda run: scores[run]["accuracy"])
    value, interval = percent(scores[best]["accuracy"]), accuracy(scores[best]).detail
    what = "natural accuracy" if name == "natural" else f"accuracy under {name}"
    if len(scores) == 1:
        return Number(what, f"{value} %", f"95 % interval {interval}" + (f", {best}" if not alone else ""))
    low = scores[best]["interval_95"][0]
    near = [run for run, score in scores.items() if run != best and score["interval_95"][1] >= low]
    apart = f"not clearly above {listed(near)}" if near else "clearly above the others"
    return Number(f"highest {what}", f"{value} %", f"{best} {interval}, {apart}")
