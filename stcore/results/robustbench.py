"""RobustBench entries: the evaluation behind an entry, its path, and its model_info file.

RobustBench itself is not imported; fields and paths follow its repository
(model_info/DATASET/THREAT/NAME.json in github.com/RobustBench/robustbench; Croce et al. 2021).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stcore.base.files import read_json
from stcore.errors import UsageError
from stcore.evaluation.folder import IDENTITY, RESULT, read_result
from stcore.evaluation.results import STRICT

STANDARD, FAST = "autoattack", "autoattack-fast"
BOARDS = {("cifar10", "linf"): "8/255", ("cifar10", "l2"): "0.5", ("cifar100", "linf"): "8/255"}
"""The leaderboards for norm-bounded perturbations: (data set, norm) → radius."""
THREATS = {"linf": "Linf", "l2": "L2"}
TEST_IMAGES = 10_000  # in each of the two data sets


@dataclass(frozen=True)
class Evaluation:
    """The facts of a finished evaluation that an entry reports.

    dataset: cifar10 or cifar100.   norm: linf or l2.   epsilon: for pixels in [0, 1].
    fast: whether the fast AutoAttack was used.   precision: fp32 or tf32, of the products.
    weights: `stcore.runs.evaluation_identity.fingerprint` of them.
    natural, autoattack: (correctly classified images, all images).
    """

    dataset: str
    norm: str
    epsilon: float
    fast: bool
    weights: str
    natural: tuple[int, int]
    autoattack: tuple[int, int]
    precision: str = STRICT

    @classmethod
    def read(cls, folder: Path) -> Evaluation:
        """Reads the result of the standard AutoAttack or, failing that, of the fast one.

        Raises UsageError if the folder holds no finished evaluation with either, DataError if a file is damaged.
        """
        for name in (IDENTITY, RESULT):
            if not (folder / name).is_file():
                raise UsageError(
                    f"evaluation: expected the folder of a finished evaluation; {folder} has no {name}"
                )
        identity, accuracies = read_json(folder / IDENTITY), read_result(folder)["accuracies"]
        attack = next((name for name in (STANDARD, FAST) if name in accuracies), None)
        if attack is None:
            raise UsageError(f"evaluation: expected one with {STANDARD}; {folder} has {', '.join(accuracies)}")
        natural, autoattack = (
            (accuracies[name]["correct"], accuracies[name]["total"]) for name in ("natural", attack)
        )
        return cls(
            dataset=identity["dataset"],
            norm=identity["norm"],
            epsilon=identity["epsilon"],
            fast=attack == FAST,
            weights=identity["weights"],
            natural=natural,
            autoattack=autoattack,
            precision=identity.get("precision", STRICT),
        )

    def shortcomings(self) -> list[str]:
        """Why the leaderboard would not accept the figures: too few images, a fast AutoAttack, or TF32."""
        totals = {"natural accuracy": self.natural[1], "AutoAttack": self.autoattack[1]}
        few = [f"{what} on {n} of {TEST_IMAGES} images" for what, n in totals.items() if n != TEST_IMAGES]
        fast = ["a fast AutoAttack, which overestimates"] if self.fast else []
        return few + fast + ([f"products in {self.precision}"] if self.precision != STRICT else [])


@dataclass(frozen=True)
class Paper:
    """The authors' description of their network; `reported` is their robust accuracy in percent."""

    title: str
    authors: str
    link: str
    venue: str
    additional_data: bool
    reported: float | None = None
    footnote: str | None = None


def entry_path(evaluation: Evaluation, name: str) -> str:
    """The entry's path in the repository, DATASET/THREAT/NAME.

    Raises UsageError for a malformed name, or if there is no leaderboard for the data set, norm and radius.
    """
    if not re.fullmatch(r"[A-Za-z-]+\d{4}[A-Za-z][\w-]*", name):
        raise UsageError(f"name: expected author, year and first word, such as Li2023Squeeze; received {name!r}")
    if BOARDS.get((evaluation.dataset, evaluation.norm)) != _radius(evaluation):
        boards = ", ".join(f"{dataset} {norm} {radius}" for (dataset, norm), radius in BOARDS.items())
        raise UsageError(
            f"evaluation: expected one of RobustBench's threats, {boards}; received {evaluation.dataset} "
            f"{evaluation.norm} {_radius(evaluation)}. Evaluate at a leaderboard's radius; for images from files, "
            "name the data set with --dataset"
        )
    return f"{evaluation.dataset}/{THREATS[evaluation.norm]}/{name}"


def model_info(evaluation: Evaluation, paper: Paper, model: str) -> dict[str, Any]:
    """The fields of model_info, accuracies as text in percent. A footnote marks an entry with shortcomings."""
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
    """The leaderboard's name of one of our networks; other networks keep their own names."""
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
