"""An entry for RobustBench: the evaluation that it stands on, its place, and its model_info file.

RobustBench itself is not imported; fields and places are those of its repository
(model_info/DATASET/THREAT/NAME.json in github.com/RobustBench/robustbench; Croce et al. 2021).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stcore.base.files import read_json
from stcore.errors import UsageError
from stcore.evaluation.folder import IDENTITY, RESULT

STANDARD, FAST = "autoattack", "autoattack-fast"
BOARDS = {("cifar10", "linf"): "8/255", ("cifar10", "l2"): "0.5", ("cifar100", "linf"): "8/255"}
"""The leaderboards for perturbations, with the radius of each."""
THREATS = {"linf": "Linf", "l2": "L2"}
TEST_IMAGES = 10_000  # of either data set


@dataclass(frozen=True)
class Evaluation:
    """What an entry needs of a finished evaluation's folder.

    dataset: cifar10 or cifar100.   norm: linf or l2.   epsilon: for pixels in [0, 1].
    fast: whether AutoAttack was the fast one.   weights: their `stcore.runs.evaluation_identity.fingerprint`.
    natural, autoattack: how many were classified correctly, of how many.
    """

    dataset: str
    norm: str
    epsilon: float
    fast: bool
    weights: str
    natural: tuple[int, int]
    autoattack: tuple[int, int]

    @classmethod
    def read(cls, folder: Path) -> Evaluation:
        """Of the standard AutoAttack, or where there is none of the fast one.

        UsageError where the folder is not of a finished evaluation with either, DataError where it is damaged.
        """
        for name in (IDENTITY, RESULT):
            if not (folder / name).is_file():
                raise UsageError(
                    f"evaluation: expected the folder of a finished evaluation; {folder} has no {name}"
                )
        about, found = read_json(folder / IDENTITY), read_json(folder / RESULT)["accuracies"]
        attack = next((name for name in (STANDARD, FAST) if name in found), None)
        if attack is None:
            raise UsageError(f"evaluation: expected one with {STANDARD}; {folder} has {', '.join(found)}")
        natural, autoattack = ((found[name]["correct"], found[name]["total"]) for name in ("natural", attack))
        return cls(
            dataset=about["dataset"],
            norm=about["norm"],
            epsilon=about["epsilon"],
            fast=attack == FAST,
            weights=about["weights"],
            natural=natural,
            autoattack=autoattack,
        )

    def shortcomings(self) -> list[str]:
        """Why its figures are no leaderboard's: fewer images, or less than AutoAttack."""
        totals = {"natural accuracy": self.natural[1], "AutoAttack": self.autoattack[1]}
        few = [f"{what} on {n} of {TEST_IMAGES} images" for what, n in totals.items() if n != TEST_IMAGES]
        return few + (["a fast AutoAttack, which overestimates"] if self.fast else [])


@dataclass(frozen=True)
class Paper:
    """What the network's authors say of it; `reported` is their robust accuracy in percent."""

    title: str
    authors: str
    link: str
    venue: str
    additional_data: bool
    reported: float | None = None
    footnote: str | None = None


def place(evaluation: Evaluation, name: str) -> str:
    """DATASET/THREAT/NAME; UsageError for a name of another form, or where there is no such leaderboard."""
    if not re.fullmatch(r"[A-Za-z-]+\d{4}[A-Za-z][\w-]*", name):
        raise UsageError(f"name: expected author, year and first word, such as Li2023Squeeze; received {name!r}")
    if BOARDS.get((evaluation.dataset, evaluation.norm)) != _radius(evaluation):
        boards = ", ".join(f"{dataset} {norm} {radius}" for (dataset, norm), radius in BOARDS.items())
        raise UsageError(
            f"evaluation: expected one of RobustBench's threats, {boards}; received {evaluation.dataset} "
            f"{evaluation.norm} {_radius(evaluation)}. Evaluate at its radius; for files in other formats, "
            "name the --dataset"
        )
    return f"{evaluation.dataset}/{THREATS[evaluation.norm]}/{name}"


def model_info(evaluation: Evaluation, paper: Paper, model: str) -> dict[str, Any]:
    """The fields of model_info; accuracies in percent, as text. What falls short is marked in the footnote."""
    robust = _percent(evaluation.autoattack)
    info: dict[str, Any] = {
        "link": paper.link,
        "name": paper.title,
        "authors": paper.authors,
        "additional_data": paper.additional_data,
        "number_forward_passes": 1,
        "dataset": evaluation.dataset,
        "venue": paper.venue,
        "architecture": architecture(model),
        "eps": _radius(evaluation),
        "clean_acc": _percent(evaluation.natural),
        "reported": robust if paper.reported is None else f"{paper.reported:.2f}",
        "autoattack_acc": robust,
    }
    short = evaluation.shortcomings()
    notes = [f"DRAFT, not to be submitted: {'; '.join(short)}."] if short else []
    notes += [paper.footnote] if paper.footnote else []
    return info | {"footnote": " ".join(notes)} if notes else info


def architecture(model: str) -> str:
    """What the leaderboard calls one of our networks; others go by their own names."""
    for ours, theirs in (("wrn-", "WideResNet-"), ("preact-resnet", "PreActResNet-"), ("resnet", "ResNet-")):
        if model.startswith(ours):
            return theirs + model.removeprefix(ours)
    return model.rpartition(":")[2]


def _radius(evaluation: Evaluation) -> str:
    pixels = evaluation.epsilon * 255
    whole = evaluation.norm == "linf" and abs(pixels - round(pixels)) < 1e-6
    return f"{round(pixels)}/255" if whole else f"{evaluation.epsilon:g}"


def _percent(count: tuple[int, int]) -> str:
    correct, total = count
    return f"{100 * correct / total:.2f}"
