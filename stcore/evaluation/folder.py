"""Folder of an evaluation: its identity, its state, and its results.

    evaluation.json       identity: what is evaluated and how; another evaluation is refused
    state.npz             the state so far; a killed evaluation resumes from it
    NAME-examples.npz     with --save-examples, `examples` (n, H, W, C) of the attack of this name, and `rows`
    (n,),
                          their indices among the evaluated images; of a cascade those that fool the network
    records.npz           at the end: labels, predicted classes, and the attack that fooled each image; arrays as
    in
                          `stcore.evaluation.results.record_arrays`
    result.json           at the end: accuracies with intervals, stages with their costs, the audit

Every file is written under a temporary name and then renamed, so none is ever half-written.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stcore.base.files import as_plain, held, is_vacant, read_arrays, read_json, sweep, write_arrays, write_json
from stcore.errors import DataError, UsageError
from stcore.protocols import Array

IDENTITY, STATE, RECORDS, RESULT = "evaluation.json", "state.npz", "records.npz", "result.json"
EVALUATIONS = "evaluations"  # the folder of these folders within a run's


class EvaluationFolder:
    """A `stcore.evaluation.assessment.EvaluationStore`.

    identity: everything the results depend on, as plain JSON.
    every: seconds between two saves, the most work that a kill can lose.
    Raises UsageError if the folder holds another evaluation or other files, or cannot be made.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], every: float = 30.0) -> None:
        self.path, self._every, self._last = path, every, time.monotonic()
        identity = as_plain(identity)
        if (path / IDENTITY).is_file():
            _check_same(path, read_json(path / IDENTITY), identity)
        elif path.exists() and not (path.is_dir() and is_vacant(path)):
            raise UsageError(
                f"out: expected a new or empty folder, or one of an evaluation; received {path}. Choose another"
            )
        else:
            try:
                path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UsageError(f"out: {path} cannot be made ({error.strerror}). Choose another") from error
            write_json(path / IDENTITY, identity)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Context in which no other process evaluates here; sweeps up what killed ones left.

        Raises UsageError if another one does.
        """
        with held(self.path, "evaluating"):
            sweep(self.path)
            yield

    def tidy(self) -> None:
        """Sweeps up what killed processes left, unless another process evaluates here."""
        with contextlib.suppress(UsageError), self.alone():
            pass

    @property
    def begun(self) -> bool:
        """Whether the folder holds a saved state."""
        return (self.path / STATE).is_file()

    @property
    def result(self) -> Mapping[str, Any] | None:
        """The result of a finished evaluation, or None."""
        return read_result(self.path) if (self.path / RESULT).is_file() else None

    def load(self) -> Mapping[str, Array] | None:
        return read_arrays(self.path / STATE) if self.begun else None

    def due(self) -> bool:
        return time.monotonic() - self._last >= self._every

    def save(self, state: Mapping[str, Array], examples: Mapping[str, Mapping[int, Array]]) -> None:
        # Examples first: if a kill leaves them beside an older state, the same rows are computed again, equal.
        for name, new in examples.items():
            if new:
                self._add(self.path / f"{name}-examples.npz", new)
        write_arrays(self.path / STATE, state)
        self._last = time.monotonic()

    def finish(self, records: Mapping[str, Array], result: Mapping[str, Any]) -> None:
        """Writes the records and the result, unless the same result is there already."""
        if self.result != as_plain(result) or not (self.path / RECORDS).is_file():
            write_arrays(self.path / RECORDS, records)
            write_json(self.path / RESULT, result)

    @staticmethod
    def _add(path: Path, new: Mapping[int, Array]) -> None:
        saved = read_arrays(path) if path.is_file() else {}
        rows = dict(zip(saved.get("rows", np.zeros(0, int)).tolist(), saved.get("examples", ()), strict=True))
        rows |= new
        order = sorted(rows)
        write_arrays(path, {"rows": np.array(order), "examples": np.stack([rows[row] for row in order])})


def _check_same(path: Path, saved: Mapping[str, Any], requested: Mapping[str, Any]) -> None:
    for name in sorted({*saved, *requested}):
        if saved.get(name) != requested.get(name):
            raise UsageError(
                f"out: {path} holds another evaluation: its {name} is {saved.get(name)!r}, here it is "
                f"{requested.get(name)!r}. Choose another folder"
            )


def read_identity(folder: Path) -> dict[str, Any]:
    """What the evaluation in a folder is of. Raises DataError if its file is damaged or of something else."""
    identity = read_json(folder / IDENTITY)
    if missing := {"weights", "data", "subset", "shard", "epsilon", "norm"} - identity.keys():
        raise DataError(f"{folder / IDENTITY} is damaged: it lacks {', '.join(sorted(missing))}. Evaluate again")
    return identity


def read_result(folder: Path) -> dict[str, Any]:
    """The result of a finished evaluation. Raises DataError if its file is damaged or of something else."""
    result = read_json(folder / RESULT)
    scores = result.get("accuracies")
    if not isinstance(scores, dict) or not all(
        isinstance(score, dict) and {"correct", "total"} <= score.keys() for score in scores.values()
    ):
        raise DataError(f"{folder / RESULT} is damaged: it lacks accuracies. Evaluate again")
    return result
