"""Variants of one training run: where they end and how long their epochs take, against the first, seed by seed.

Each run is `stcli train` in a process and a folder of its own; one that has a result is not made again: a search
that was stopped goes on. The variants take turns within each seed: a machine that slows down slows all of them.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from rounds import spread

from stcore.results.tables.table import Row
from stcore.runs.record import FinishedRun, read_run

Value: TypeAlias = str | float | tuple[str, ...]
Options: TypeAlias = Mapping[str, Value]
LIMITS = {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}


@dataclass(frozen=True)
class Search:
    """Runs that share `base` and differ in a variant's options.

    title: names the folders.   variants: options of `stcli train` by name, without dashes; the first is what
    the others are compared with.
    """

    title: str
    base: Options
    variants: Mapping[str, Options]

    def train(self, runs: Path, seeds: Sequence[int], jobs: int = 1) -> None:
        """All that have no result yet, so many at a time, each with one thread."""

        def one(place: tuple[int, str]) -> None:
            seed, name = place
            self._train(runs, name, seed)
            print(
                f"{self.title}, {name}, seed {seed}: {_seconds(self.run(runs, name, seed)):.2f} s/epoch",
                flush=True,
            )

        with ThreadPoolExecutor(jobs) as pool:
            for _ in pool.map(one, [(seed, name) for seed in seeds for name in self.variants]):
                pass

    def run(self, runs: Path, name: str, seed: int) -> FinishedRun:
        """Its last epoch, by the averaged weights where the variant averages them."""
        averaged = "ema" in {**self.base, **self.variants[name]}
        return read_run(self._folder(runs, name) / f"seed{seed}", "last-ema" if averaged else "last")

    def rows(self, runs: Path, seeds: Sequence[int]) -> list[dict[str, Any]]:
        """Of each variant its accuracies over the seeds, and what it has over the first one, seed by seed."""
        found = {name: [self.run(runs, name, seed) for seed in seeds] for name in self.variants}
        first = next(iter(found.values()))
        return [
            {"variant": name, "options": self.variants[name], **summary(each, first)}
            for name, each in found.items()
        ]

    def _folder(self, runs: Path, name: str) -> Path:
        words = "".join(c if c.isalnum() or c == "." else " " for c in f"{self.title} {name}").split()
        return runs / "-".join(words)

    def _train(self, runs: Path, name: str, seed: int) -> None:
        options = {"threads": 1, **self.base, **self.variants[name]}
        words = [word for key, value in options.items() for word in (f"--{key}", *_words(value))]
        stcli = Path(sysconfig.get_path("scripts")) / "stcli"
        command = [stcli, "train", *words, "--seeds", seed, "--out", self._folder(runs, name)]
        subprocess.run(list(map(str, command)), check=True, env=os.environ | LIMITS, stdout=subprocess.DEVNULL)


def summary(runs: Sequence[FinishedRun], reference: Sequence[FinishedRun]) -> dict[str, Any]:
    """Accuracies in percent: mean, low, high of the 95 % t-interval over seeds, and of the differences to the
    reference's runs, seed by seed, in points; median seconds of an epoch and of all, and ratios, seed by seed."""
    figures, differences = {}, {}
    for attack in runs[0].accuracies:
        figure = Row(tuple(runs)).figure(attack)
        assert figure is not None
        figures[attack] = [figure.mean, figure.low, figure.high]
        pairs = zip(runs, reference, strict=True)
        differences[attack] = interval(
            [100 * (a.accuracies[attack].value - b.accuracies[attack].value) for a, b in pairs]
        )

    def ratios(seconds: Callable[[FinishedRun], float]) -> tuple[float, float, float]:
        return spread(seconds(run) / seconds(other) for run, other in zip(runs, reference, strict=True))

    return {
        "accuracies": figures,
        "differences": differences,
        "seconds_per_epoch": statistics.median(map(_seconds, runs)),
        "first_epoch_seconds": statistics.median(run.seconds[0] for run in runs),
        "ratio": ratios(_seconds),
        "seconds": statistics.median(map(_all_seconds, runs)),
        "ratio_of_seconds": ratios(_all_seconds),
    }


def interval(values: Sequence[float]) -> list[float]:
    """Mean, and the ends of its 95 % t-interval; of one value none."""
    from scipy.stats import t

    mean, count = statistics.mean(values), len(values)
    half = t.ppf(0.975, count - 1) * statistics.stdev(values) / count**0.5 if count > 1 else float("nan")
    return [mean, mean - half, mean + half]


def plus_minus(values: Sequence[float], sign: str = "") -> str:
    """51.9 ± 1.7; of a difference, by sign "+", −0.3 ± 0.5"""
    mean, low, high = values
    half = f" ± {(high - low) / 2:.1f}" if high == high else ""
    return f"{round(mean, 1) + 0.0:{sign}.1f}{half}".replace("-", "−")


def _words(value: Value) -> tuple[str, ...]:
    return value if isinstance(value, tuple) else (str(value),)


def _all_seconds(run: FinishedRun) -> float:
    return sum(run.seconds)


def _seconds(run: FinishedRun) -> float:
    """Of an epoch, the median without the first, which compiles, where there are others."""
    return statistics.median(run.seconds[1:] or run.seconds)
