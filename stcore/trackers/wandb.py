"""Weights & Biases, and trackio, whose calls have the same shape."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from stcore.base.files import write_file
from stcore.trackers import logged


class Wandb:
    """Logs to Weights & Biases. Its own environment (WANDB_PROJECT, WANDB_MODE, WANDB_DIR …) says where.

    A resumed run continues the same run there; the number of that is in the run's folder. Its points
    are drawn over the epochs.
    """

    NUMBER = "wandb.id"

    def __init__(self) -> None:
        self._client = logged.client("wandb")

    def on_begin(self, run: Any) -> None:
        number = logged.kept(run.path / self.NUMBER) or uuid4().hex
        project = os.environ.get("WANDB_PROJECT", logged.PROJECT)
        self._run = self._client.init(
            project=project, name=run.path.name, id=number, config=logged.settings(run), resume="allow"
        )
        self._run.define_metric("*", step_metric="epoch")
        write_file(run.path / self.NUMBER, f"{number}\n")

    def on_epoch(self, row: Mapping[str, Any]) -> None:
        self._run.log(logged.numbers(row))

    def on_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Logs nothing: a point an epoch, as metrics.jsonl has."""

    def on_end(self, result: Mapping[str, Any]) -> None:
        rows = [list(row) for row in logged.table(result)]
        self._run.log({"accuracies": self._client.Table(columns=list(logged.COLUMNS), data=rows)})
        self._run.summary.update(logged.summary(result))
        self._run.finish()


class Trackio:
    """Logs to trackio. Its own environment (TRACKIO_DIR …) says where. A resumed run continues the same there."""

    def __init__(self) -> None:
        self._client = logged.client("trackio")

    def on_begin(self, run: Any) -> None:
        project = os.environ.get("TRACKIO_PROJECT", logged.PROJECT)
        self._run = self._client.init(
            project=project, name=run.path.name, config=logged.settings(run), resume="allow", embed=False
        )

    def on_epoch(self, row: Mapping[str, Any]) -> None:
        self._run.log(logged.numbers(row), step=row["epoch"])

    def on_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Logs nothing: a point an epoch, as metrics.jsonl has."""

    def on_end(self, result: Mapping[str, Any]) -> None:
        rows = [list(row) for row in logged.table(result)]
        accuracies = self._client.Table(columns=list(logged.COLUMNS), data=rows)
        self._run.log({"accuracies": accuracies, **logged.summary(result)})
        self._run.finish()
