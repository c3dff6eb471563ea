"""Summary of a report: accuracies under every attack, the headline, and a warning about useless networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stcore.evaluation.attack_names import has_own_budget
from stcore.evaluation.results import unusual
from stcore.evaluation.unions import without_members
from stcore.report.blocks import Block, Headline, Number, Text
from stcore.report.gathered import GatheredRun, LaterEvaluation
from stcore.report.phrases import accuracy, images_of, listed, percent, plural, radius
from stcore.results.names import attack_in_words

AT_A_GLANCE = ("natural", "pgd20", "autoattack")
"""The attacks of the headline."""

ONE_CLASS = "several classes"
"""The audit's check that a network predicts more than one class."""


def figures(run: GatheredRun, checkpoint: str | None = None) -> dict[str, Mapping[str, Any]]:
    """The accuracies of a checkpoint, by default the report's, by attack, the run's own and later ones.

    If an evaluation's settings differ from the run's, they are a suffix of the attack's name.
    """
    checkpoint = checkpoint or run.checkpoint
    own = run.checkpoints.get(checkpoint, {})
    found = {f"{attack_in_words(name)}{_suffix_of_own(run, score)}": score for name, score in own.items()}
    for one in run.evaluations:
        if one.checkpoint == checkpoint and one.result is not None and not one.mismatch:
            for name, score in one.result["accuracies"].items():
                if name != "natural":  # the run has its own, on all images
                    found.setdefault(f"{attack_in_words(name)}{_suffix(run, one, name)}", score)
    return found


def _suffix_of_own(run: GatheredRun, score: Mapping[str, Any]) -> str:
    """The number of images if it is not that of all of them: AutoAttack may be of the first."""
    images = images_of(score)
    return "" if images == (run.result or {}).get("images") else f" ({images:,} images)"


def _suffix(run: GatheredRun, one: LaterEvaluation, attack: str) -> str:
    identity, result = one.identity, run.result or {}
    different = [f"{identity['images']:,} images"] if identity["images"] != result.get("images") else []
    norm = "linf" if run.plan is None else run.plan.norm
    ball = identity["epsilon"], identity["norm"]
    if ball != (result.get("epsilon"), norm) and not has_own_budget(attack):
        different.append(radius(identity["epsilon"], identity["norm"]))
    if identity["backend"] != run.config.get("backend", identity["backend"]):
        different.append(identity["backend"])
    different.extend(unusual(identity))
    return f" ({', '.join(different)})" if different else ""


def headline(runs: Sequence[GatheredRun]) -> tuple[Block, ...]:
    """The main accuracies, after a warning for each network that has learnt nothing.

    For several runs, the highest of each, and whether it is clearly above the others.
    """
    finished = {run.name: figures(run) for run in runs if run.result is not None}
    if not finished:
        return (Text(f"{plural(len(runs), 'run')}, none of them finished.", "warning"),)
    shown = [attack_in_words(name) for name in AT_A_GLANCE]
    members = tuple(f"{name} (" for run in runs for one in run.evaluations for name in _members(one))
    names = dict.fromkeys(
        name
        for one in finished.values()
        for name in one
        if name.startswith(("union of", "corruptions"))
        or (name.partition(" (")[0] in shown and not f"{name} (".startswith(members))
    )
    scores = {name: {run: one[name] for run, one in finished.items() if name in one} for name in names}
    numbers = [_number(name, of, alone=len(runs) == 1) for name, of in scores.items()]
    return (*(text for run in runs for text in chance_warning(run)), Headline(tuple(numbers)))


def _members(one: LaterEvaluation) -> list[str]:
    """The threat models of the evaluation's unions, in words: beside the union they are no headline."""
    attacks = one.identity["attacks"]
    return [attack_in_words(name) for name in attacks if name not in without_members(attacks)]


def _number(name: str, scores: Mapping[str, Mapping[str, Any]], *, alone: bool) -> Number:
    best = max(scores, key=lambda run: scores[run]["accuracy"])
    value, interval = percent(scores[best]["accuracy"]), accuracy(scores[best]).detail
    what = "natural accuracy" if name == "natural" else f"accuracy under {name}"
    what = f"mean {what}" if name.startswith("corruptions") else what.replace("under union", "under the union")
    if len(scores) == 1:
        return Number(what, f"{value} %", f"95 % interval {interval}" + (f", {best}" if not alone else ""))
    low = scores[best]["interval_95"][0]
    near = [run for run, score in scores.items() if run != best and score["interval_95"][1] >= low]
    margin = f"not clearly above {listed(near)}" if near else "clearly above the others"
    return Number(f"highest {what}", f"{value} %", f"{best} {interval}, {margin}")


def chance_warning(run: GatheredRun, checkpoint: str | None = None) -> Iterator[Text]:
    """A warning if the network is no better than chance, so that its robust accuracy means nothing.

    That is the case if its natural accuracy is not clearly above that of guessing one of equally frequent classes,
    or if its audit found that it predicts one class for every image.   checkpoint: by default the report's.
    """
    checkpoint = checkpoint or run.checkpoint
    reasons = list(_chance_reasons(run, checkpoint))
    if reasons:
        yield Text(
            f"{run.name}, {checkpoint} checkpoint: this network has learnt nothing: {' and '.join(reasons)}. "
            "A network that ignores its input cannot be fooled by changing it, so its accuracy under attack says "
            "nothing about robustness. Do not use it.",
            "warning",
        )


def _chance_reasons(run: GatheredRun, checkpoint: str) -> Iterator[str]:
    natural = run.checkpoints.get(checkpoint, {}).get("natural")
    if natural is not None and run.classes and natural["interval_95"][0] <= 1 / run.classes:
        cell = accuracy(natural)
        yield (
            f"its natural accuracy, {cell.text} % {cell.detail}, is not clearly above the "
            f"{100 / run.classes:.3g} % of guessing one of {run.classes} classes"
        )
    own = [one for one in run.evaluations if one.checkpoint == checkpoint and not one.mismatch]
    findings = [finding for one in own if one.result for finding in one.result["audit"] or ()]
    if any(finding["check"] == ONE_CLASS and finding["status"] == "warn" for finding in findings):
        yield "its audit found that it predicts the same class for every image"
