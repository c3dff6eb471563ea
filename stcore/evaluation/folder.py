"""The folder of an evaluation: what was asked, how far it is, what was found.

    evaluation.json       what is evaluated and how; another evaluation is refused
    state.npz             all that is known so far; a killed evaluation goes on from it
    NAME-examples.npz     with --save-examples, `examples` (n, H, W, C) under the attack of this name, and `rows`
                          (n,), their places among the images evaluated; of a cascade those that fool the network
    records.npz           at the end: labels, predicted classes, and what each image fell to, array by array in
                          `stcore.evaluation.results.records_of`
    result.json           at the end: accuracies with intervals, stages with their costs, the audit

Every file is written beside its place and then moved there, so none is ever half-written.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stcore.base.files import read_arrays, read_json, write_arrays, write_json
from stcore.errors import UsageError
from stcore.protocols import Array

IDENTITY, STATE, RECORDS, RESULT = "evaluation.json", "state.npz", "records.npz", "result.json"
EVALUATIONS = "evaluations"  # the folder of these folders within a run's


class EvaluationFolder:
    """A `stcore.evaluation.assessment.EvaluationStore`.

    identity: what the numbers depend on, as plain JSON. A folder that holds another evaluation is refused.
    every: seconds between two saves; what a kill can cost.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], every: float = 30.0) -> None:
        self.path, self._every, self._last = path, every, time.monotonic()
        identity = json.loads(json.dumps(identity))
        if (path / IDENTITY).is_file():
            _check_same(path, read_json(path / IDENTITY), identity)
        elif path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UsageError(
                f"out: expected a new or empty folder, or one of an evaluation; received {path}. Choose another"
            )
        else:
            try:
                path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UsageError(f"out: {path} cannot be made ({error.strerror}). Choose another") from error
            write_json(path / IDENTITY, identity)

    @property
    def begun(self) -> bool:
        """Whether something was kept here before."""
        return (self.path / STATE).is_file()

    @property
    def result(self) -> Mapping[str, Any] | None:
        """What was found, if it is finished."""
        return read_json(self.path / RESULT) if (self.path / RESULT).is_file() else None

    def load(self) -> Mapping[str, Array] | None:
        return read_arrays(self.path / STATE) if self.begun else None

    def due(self) -> bool:
        return time.monotonic() - self._last >= self._every

    def save(self, state: Mapping[str, Array], examples: Mapping[str, Mapping[int, Array]]) -> None:
        # Examples first: those that a kill leaves beside an older state are found again, equal, in the same rows.
        for name, found in examples.items():
            if found:
                self._add(self.path / f"{name}-examples.npz", found)
        write_arrays(self.path / STATE, state)
        self._last = time.monotonic()

    def finish(self, records: Mapping[str, Array], result: Mapping[str, Any]) -> None:
        """Writes what was found."""
        write_arrays(self.path / RECORDS, records)
        write_json(self.path / RESULT, result)

    @staticmethod
    def _add(path: Path, found: Mapping[int, Array]) -> None:
        known = read_arrays(path) if path.is_file() else {}
        rows = {**dict(zip(known.get("rows", np.zeros(0, int)).tolist(), known.get("examples", ()), strict=True))}
        rows |= found
        order = sorted(rows)
        write_arrays(path, {"rows": np.array(order), "examples": np.stack([rows[row] for row in order])})


def _check_same(path: Path, there: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    for name in sorted({*there, *asked}):
        if there.get(name) != asked.get(name):
            raise UsageError(
                f"out: {path} holds another evaluation: its {name} is {there.get(name)!r}, here it is "
                f"{asked.get(name)!r}. Choose another folder"
            )
