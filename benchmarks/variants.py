"""Variants of one training run: accuracies and times compared with the first variant's, seed by seed.

Each run is `stcli train` in its own process and folder. Finished runs are not repeated, so an interrupted
benchmark resumes. The variants take turns within each seed, so a machine that slows down slows all of them.
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
class VariantRuns:
    """Runs that share `base` and differ in a variant's options.

    title: the beginning of the folders' names.   variants: options of `stcli train` by name, without dashes; the
    first variant is the reference.
    """

    title: str
    base: Options
    variants: Mapping[str, Options]

    def train(self, runs: Path, seeds: Sequence[int], jobs: int = 1) -> None:
        """Trains all runs without a result, `jobs` at a time, each with one thread."""

        def one(seed_and_name: tuple[int, str]) -> None:
            seed, name = seed_and_name
            self._train(runs, name, seed)
            print(
                f"{self.title}, {name}, seed {seed}: {_seconds(self.run(runs, name, seed)):.2f} s/epoch",
                flush=True,
            )

        with ThreadPoolExecutor(jobs) as pool:
            for _ in pool.map(one, [(seed, name) for seed in seeds for name in self.variants]):
                pass

    def run(self, runs: Path, name: str, seed: int) -> FinishedRun:
        """The run with its last epoch's accuracies, those of the averaged weights if the variant averages."""
        averaged = "ema" in {**self.base, **self.variants[name]}
        return read_run(self._folder(runs, name) / f"seed{seed}", "last-ema" if averaged else "last")

    def rows(self, runs: Path, seeds: Sequence[int]) -> list[dict[str, Any]]:
        """A row per variant: accuracies over the seeds, and differences to the first variant, seed by seed."""
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
    """Accuracies in percent and their differences to the reference in points, computed seed by seed: mean, low and
    high of 95 % t-intervals over the seeds. Also median seconds of an epoch and of all epochs, and their
    ratios."""
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
    """The mean and the ends of its 95 % t-interval, which are NaN for a single value."""
    from scipy.stats import t

    mean, count = statistics.mean(values), len(values)
    half = t.ppf(0.975, count - 1) * statistics.stdev(values) / count**0.5 if count > 1 else float("nan")
    return [mean, mean - half, mean + half]


def plus_minus(values: Sequence[float], sign: str = "") -> str:
    """51.9 ± 1.7; with the sign "+", for a difference, −0.3 ± 0.5."""
    mean, low, high = values
    half = f" ± {(high - low) / 2:.1f}" if high == high else ""
    return f"{round(mean, 1) + 0.0:{sign}.1f}{half}".replace("-", "−")


def _words(value: Value) -> tuple[str, ...]:
    return value if isinstance(value, tuple) else (str(value),)


def _all_seconds(run: FinishedRun) -> float:
    return sum(run.seconds)


def _seconds(run: FinishedRun) -> float:
    """The median seconds of an epoch, without the first, which compiles, unless it is the only one."""
    return statistics.median(run.seconds[1:] or run.seconds)
