"""Robust accuracy against ε, from the minimum norms that evaluations recorded.

An image withstands ε if no adversarial example of it was found within ε, so that each curve is an upper bound. The
tightest takes the smallest norm of all attacks on a network for each image; an example that an attack in a ball
found counts too, with its distance.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stcore.attacks.presets import SCALED
from stcore.autoattack.cascade import under
from stcore.autoattack.records import NONE, Records
from stcore.base import checks
from stcore.base.files import read_arrays
from stcore.errors import DataError, UsageError
from stcore.evaluation.accuracy import Accuracy
from stcore.evaluation.folder import EVALUATIONS, IDENTITY, RECORDS, read_identity
from stcore.evaluation.unions import ThreatModel, in_ball
from stcore.protocols import Array
from stcore.runs.folder import CHECKPOINTS

TOGETHER = "all attacks"
"""What the curve of the smallest norms over several attacks is called."""


@dataclass(frozen=True)
class Settings:
    """norm: linf, l2, l1 or l0; by default that of the evaluations, if they have one.

    checkpoint: of the runs whose folders are given: best, last, best-ema or last-ema.
    """

    norm: str | None = None
    checkpoint: str = "best"

    def __post_init__(self) -> None:
        checks.choice("checkpoint", self.checkpoint, CHECKPOINTS)


@dataclass(frozen=True, eq=False)
class Curve:
    """The smallest norms (N,) that an attack found on a network; see `Records.minimum_norm`."""

    network: str
    attack: str
    norms: Array

    def at(self, epsilon: float) -> Accuracy:
        """The robust accuracy at a radius."""
        return Accuracy(int((self.norms > epsilon).sum()), len(self.norms))

    @property
    def radii(self) -> list[float]:
        """0, and the radii at which the accuracy falls, in ascending order."""
        finite = self.norms[np.isfinite(self.norms)]
        return np.unique(np.append(finite, 0.0)).tolist()  # type: ignore[no-any-return]

    @property
    def median(self) -> float | None:
        """The median norm of the images that are classified correctly; None if fewer than half have an example."""
        correct = self.norms[self.norms > 0]
        middle = float(np.median(correct)) if len(correct) else math.inf
        return None if math.isinf(middle) else middle


@dataclass(frozen=True)
class Point:
    """The accuracy under an attack in a ball of radius ε, on the images of the network's curves."""

    network: str
    attack: str
    epsilon: float
    robust: Accuracy


@dataclass(frozen=True)
class Result:
    """The curves and points in one norm, and the reasons why evaluations were left out."""

    settings: Settings
    norm: str
    curves: list[Curve]
    points: list[Point]
    left_out: tuple[str, ...]

    def rows(self) -> list[dict[str, Any]]:
        """A row per fall of a curve, and per point, with the 95 % interval over the images."""
        falls = [(c.network, c.attack, "curve", radius, c.at(radius)) for c in self.curves for radius in c.radii]
        fixed = [(p.network, p.attack, "point", p.epsilon, p.robust) for p in self.points]
        return [
            {
                "network": network,
                "attack": attack,
                "kind": kind,
                "epsilon": epsilon,
                "robust": robust.value,
                **dict(zip(("low", "high"), robust.interval(), strict=True)),
                "correct": robust.correct,
                "images": robust.total,
            }
            for network, attack, kind, epsilon, robust in (*falls, *fixed)
        ]

    def table(self) -> list[dict[str, Any]]:
        """A row per curve."""
        return [
            {
                "network": curve.network,
                "attack": curve.attack,
                "images": len(curve.norms),
                "natural": curve.at(0.0).value,
                "median_norm": curve.median,
                "without_example": int(np.isinf(curve.norms).sum()),
            }
            for curve in self.curves
        ]

    def content(self) -> dict[str, Any]:
        common = {name: getattr(self, name) for name in ("norm", "left_out")}
        return {
            "settings": dataclasses.asdict(self.settings),
            **common,
            "table": self.table(),
            "rows": self.rows(),
        }


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation, and its network's name."""

    network: str
    folder: Path
    identity: Mapping[str, Any]
    records: Mapping[str, Array]

    def ball(self, attack: str) -> ThreatModel:
        """The norm and radius of one of its attacks: those that its name says, or the evaluation's."""
        return in_ball(attack, self.identity["norm"], self.identity["epsilon"])

    def attacks(self, norm: str) -> list[str]:
        """Its attacks in this norm."""
        return [attack for attack in self.identity["attacks"] if self.ball(attack).norm == norm]

    def nearest(self, attack: str) -> bool:
        """Whether an attack of its looks for the nearest example."""
        return f"{attack}/minimum_norm" in self.records

    @property
    def norms_searched(self) -> list[str]:
        """The norms of its minimum-norm attacks."""
        return list(dict.fromkeys(self.ball(name).norm for name in self.identity["attacks"] if self.nearest(name)))

    def norms(self, attack: str, positions: Array) -> Array:
        """The smallest norm at which a cascade fooled each of these images; infinite for images it did not see."""
        records = Records.of(under(attack, self.records))
        within = np.fmin(records.minimum_norm, self.ball(attack).epsilon)  # up to rounding
        return self._at(positions, np.where(records.attack == NONE, records.minimum_norm, within), math.inf)

    def correct(self, attack: str, positions: Array) -> Array | None:
        """Booleans: which of these images are classified correctly under an attack; None unless it saw all."""
        if not np.isin(positions, self.records["position"]).all():
            return None
        return self._at(positions, self.records[f"predicted/{attack}"] == self.records["label"], False)

    def _at(self, positions: Array, values: Array, otherwise: Any) -> Array:
        """The images' values at these positions of the test split."""
        known = dict(zip(self.records["position"].tolist(), values.tolist(), strict=True))
        return np.array([known.get(position, otherwise) for position in positions.tolist()])


def compute(runs: Mapping[str, Path], settings: Settings) -> Result:
    """The curves of evaluations: of all in a run's folder, or of the evaluations whose folders are given.

    Raises UsageError if none recorded minimum norms, if they have several norms or differ in data.
    """
    places = [(name, folder) for name, path in runs.items() for folder in folders_of(path, settings.checkpoint)]
    found, left_out = read(places)
    return curves_of(found, settings.norm or _norm_of(found, left_out), settings, left_out)


def read(places: Iterable[tuple[str, Path]]) -> tuple[list[Evaluation], list[str]]:
    """The finished evaluations in these folders, each after its network's name, and why others were left out."""
    found, left_out = [], []
    for network, folder in places:
        try:
            found.append(_read(network, folder))
        except (DataError, UsageError) as reason:
            left_out.append(str(reason))
    return found, left_out


def curves_of(
    evaluations: Sequence[Evaluation], norm: str, settings: Settings | None = None, left_out: Sequence[str] = ()
) -> Result:
    """The curves in one norm. Raises UsageError as `compute` does."""
    found = [one for one in evaluations if one.attacks(norm)]
    searched = [one for one in found if norm in one.norms_searched]
    if not searched:
        raise UsageError(
            f"norm: expected that of an evaluation with minimum norms; received {norm}, which has none"
        )
    if len(of := {str(one.identity["data"])[:8]: one.network for one in searched}) > 1:
        several = "; ".join(f"{name} has {data}" for data, name in of.items())
        raise UsageError(f"runs: expected one data set for all; received {several}. Analyse them separately")
    curves: list[Curve] = []
    points: list[Point] = []
    for name, of_network in _by_network(found).items():
        if any(norm in one.norms_searched for one in of_network):
            lines, fixed = _curves(name, of_network, norm)
            curves, points = curves + lines, points + fixed
    return Result(settings or Settings(norm), norm, curves, points, tuple(left_out))


def folders_of(path: Path, checkpoint: str) -> list[Path]:
    """The evaluations' folders: the one given, all in a folder of `stcli evaluate`, or a run's of a checkpoint.

    Raises UsageError for a folder of anything else.
    """
    if (path / IDENTITY).is_file():
        return [path]
    of_run = (path / EVALUATIONS).is_dir()
    pattern = f"{EVALUATIONS}/*/{checkpoint}/{IDENTITY}" if of_run else f"*/{IDENTITY}"
    folders = [file.parent for file in sorted(path.glob(pattern))]
    if not folders:
        raise UsageError(
            f"runs: expected a run with an evaluation of its {checkpoint} checkpoint, or the folder of an "
            f"evaluation; received {path}. Evaluate: stcli evaluate {path} --attacks fmn"
        )
    return folders


def _read(network: str, folder: Path) -> Evaluation:
    identity = read_identity(folder)
    if identity["shard"] is not None:
        raise UsageError(f"{folder} is shard {identity['shard']}. Merge the shards: stcli merge")
    if not (folder / RECORDS).is_file():
        raise UsageError(f"{folder} is unfinished. To resume it, repeat its stcli evaluate command")
    return Evaluation(network, folder, identity, read_arrays(folder / RECORDS))


def _norm_of(found: Sequence[Evaluation], left_out: Sequence[str]) -> str:
    """The only norm in which minimum norms were recorded."""
    known = dict.fromkeys(norm for one in found for norm in one.norms_searched)
    if len(known) == 1:
        return next(iter(known))
    if known:
        raise UsageError(
            f"norm: expected one of {', '.join(known)}, in which there are minimum norms; received none"
        )
    reasons = "; ".join(left_out) or "received none"
    raise UsageError(
        f"runs: expected an evaluation with minimum norms, by stcli evaluate RUN --attacks fmn; {reasons}"
    )


def _by_network(found: Sequence[Evaluation]) -> dict[str, list[Evaluation]]:
    """Evaluations of the same weights together, under the first one's name."""
    groups: dict[str, list[Evaluation]] = {}
    for one in found:
        groups.setdefault(one.identity["weights"], []).append(one)
    named = [group[0].network for group in groups.values()]
    return {
        name if named.count(name) == 1 else f"{name} ({weights[:8]})": group
        for (weights, group), name in zip(groups.items(), named, strict=True)
    }


def _curves(network: str, evaluations: Sequence[Evaluation], norm: str) -> tuple[list[Curve], list[Point]]:
    """A curve per minimum-norm attack, one of all attacks together, and the points of attacks in a ball."""
    searched = [one for one in evaluations if norm in one.norms_searched]
    positions = searched[0].records["position"]
    for one in searched[1:]:
        positions = np.intersect1d(positions, one.records["position"])
    if not len(positions):
        folders = " and ".join(str(one.folder) for one in searched)
        raise UsageError(f"runs: expected evaluations of the same images; {folders} have none in common")
    positions = np.sort(positions)
    norms: dict[str, Array] = {}
    fixed: dict[str, Array] = {}
    points = []
    for one, attack in _attacks(evaluations, norm):
        if one.nearest(attack):
            found = one.norms(attack, positions)
            norms[attack] = np.minimum(norms.get(attack, found), found)
            continue
        if f"{attack}/attack" in one.records:
            fixed[f"{attack} {one.folder}"] = one.norms(attack, positions)
        elif one.ball(attack).attack not in SCALED:  # its radius may be its own
            continue
        if (correct := one.correct(attack, positions)) is not None:
            robust = Accuracy(int(correct.sum()), len(correct))
            points.append(Point(network, attack, one.ball(attack).epsilon, robust))
    curves = [Curve(network, attack, found) for attack, found in norms.items()]
    if len(norms) + len(fixed) > 1:
        curves.append(Curve(network, TOGETHER, np.minimum.reduce([*norms.values(), *fixed.values()])))
    return curves, points


def _attacks(evaluations: Sequence[Evaluation], norm: str) -> Iterator[tuple[Evaluation, str]]:
    for one in evaluations:
        for attack in one.attacks(norm):
            yield one, attack
