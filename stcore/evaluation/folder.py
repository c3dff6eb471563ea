"""Folder of an evaluation: its identity, its state, and its results.

    evaluation.json       identity: what is evaluated and how; another evaluation is refused
    state.npz             the state so far; a killed evaluation resumes from it
    NAME-examples.part    with --save-examples, the adversarial examples so far of the attack of this name, with _
                          for a /; each
                          save appends, the state holds the file's length, and what a kill left beyond is not read
    NAME-examples.npz     in its place at the end: `examples` (n, H, W, C) and `rows` (n,), their indices among the
                          evaluated images; of a cascade those that fool the network
    records.npz           at the end: labels, predicted classes, and the attack that fooled each image; arrays as
                          in `stcore.evaluation.results.record_arrays`
    result.json           at the end: accuracies with intervals, stages with their costs, the audit

Every other file is written under a temporary name and then renamed, so none is ever half-written.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stcore.base.files import (
    as_plain,
    held,
    is_vacant,
    read_arrays,
    read_json,
    sweep,
    write_arrays,
    write_json,
    writing,
)
from stcore.base.snapshots import part
from stcore.errors import DataError, UsageError
from stcore.evaluation.results import STRICT
from stcore.protocols import Array

IDENTITY, STATE, RECORDS, RESULT = "evaluation.json", "state.npz", "records.npz", "result.json"
EVALUATIONS = "evaluations"  # the folder of these folders within a run's
PART, WHOLE = "-examples.part", "-examples.npz"
LENGTH = "length/"
"""Beginning of the state's entries for the lengths of the files NAME-examples.part, in bytes."""


class EvaluationFolder:
    """A `stcore.evaluation.assessment.EvaluationStore`.

    identity: everything the results depend on, as plain JSON.
    every: seconds between two saves, the most work that a kill can lose.
    Raises UsageError if the folder holds another evaluation or other files, or cannot be made.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], every: float = 30.0) -> None:
        self.path, self._every, self._last = path, every, time.monotonic()
        self._lengths: dict[str, int] = {}
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
        if not self.begun:
            return None
        state = read_arrays(self.path / STATE)
        self._lengths = {name: int(length) for name, length in part(state, LENGTH).items()}
        return {name: array for name, array in state.items() if not name.startswith(LENGTH)}

    def due(self) -> bool:
        return time.monotonic() - self._last >= self._every

    def save(self, state: Mapping[str, Array], examples: Mapping[str, Mapping[int, Array]]) -> None:
        # Examples first: beside the older state that a kill leaves, they are computed and appended again.
        for name, new in examples.items():
            if new:
                self._lengths[name] = _append(self.path / f"{stem(name)}{PART}", self._lengths.get(name, 0), new)
        lengths = {f"{LENGTH}{name}": np.array(length) for name, length in self._lengths.items()}
        write_arrays(self.path / STATE, {**state, **lengths})
        self._last = time.monotonic()

    def finish(self, records: Mapping[str, Array], result: Mapping[str, Any]) -> None:
        """Writes whole files of examples, the records and the result, unless the same result is there already."""
        parts = {name: self.path / f"{stem(name)}{PART}" for name in self._lengths}
        for name, path in parts.items():
            if path.is_file() or self.result is None:
                _join(path, self._lengths[name], self.path / f"{stem(name)}{WHOLE}")
        if self.result != as_plain(result) or not (self.path / RECORDS).is_file():
            write_arrays(self.path / RECORDS, records)
            write_json(self.path / RESULT, result)
        for path in parts.values():
            path.unlink(missing_ok=True)


def stem(name: str) -> str:
    """The beginning of the names of an attack's files; a radius such as 8/255 holds a /."""
    return name.replace("/", "_")


def _append(path: Path, length: int, new: Mapping[int, Array]) -> int:
    """Appends examples by row to the first `length` bytes of a file, and returns its new length."""
    _check_length(path, length)
    with writing(path), path.open("r+b" if length else "wb") as file:
        file.truncate(length)
        file.seek(length)
        np.save(file, np.array(list(new)))
        np.save(file, np.stack(list(new.values())))
        file.flush()
        os.fsync(file.fileno())
        return file.tell()


def _join(path: Path, length: int, whole: Path) -> None:
    """Writes the examples in the first `length` bytes of a file in the order of their rows.

    They join those that are there already, as an earlier version kept them during an evaluation. Of several of one
    row the last counts: a minimum-norm attack's nearest.
    """
    _check_length(path, length)
    saved = [read_arrays(whole)] if whole.is_file() else []
    rows, examples = ([one[key] for one in saved] for key in ("rows", "examples"))
    with path.open("rb") as file:
        while file.tell() < length:
            rows.append(np.load(file, allow_pickle=False))
            examples.append(np.load(file, allow_pickle=False))
    sorted_rows, order = np.unique(np.concatenate(rows)[::-1], return_index=True)
    write_arrays(whole, {"rows": sorted_rows, "examples": np.concatenate(examples)[::-1][order]})


def _check_length(path: Path, length: int) -> None:
    found = path.stat().st_size if path.is_file() else 0
    if found < length:
        raise DataError(
            f"{path}: expected the {length} bytes that the state beside it records, received {found}. Restore it, "
            "or evaluate again in another folder"
        )


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
    return {"precision": STRICT, **result}  # earlier versions had no other
