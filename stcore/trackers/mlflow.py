"""MLflow: settings as parameters, a metric per number and epoch, the final table as an artifact."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from stcore.base.files import write_file
from stcore.trackers import logged

LONGEST = 6000
"""Characters of a parameter's value that MLflow takes."""


class MLflow:
    """Logs to MLflow. Its own environment (MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME …) says where.

    A resumed run continues the same run there; the number of that is in the run's folder.
    """

    NUMBER = "mlflow.id"

    def __init__(self) -> None:
        self._package = logged.client("mlflow")

    def on_begin(self, run: Any) -> None:
        self._client = self._package.MlflowClient()
        number = logged.kept(run.path / self.NUMBER)
        if number is None:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", logged.PROJECT)
            known = self._client.get_experiment_by_name(name)
            place = self._client.create_experiment(name) if known is None else known.experiment_id
            number = self._client.create_run(place, run_name=run.path.name).info.run_id
            for setting, value in logged.settings(run).items():
                self._client.log_param(number, setting, str(value)[:LONGEST])
            write_file(run.path / self.NUMBER, f"{number}\n")
        self._number = number

    def on_epoch(self, row: Mapping[str, Any]) -> None:
        for name, value in logged.numbers(row).items():
            self._client.log_metric(self._number, name, value, step=row["epoch"])

    def on_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Logs nothing: a point an epoch, as metrics.jsonl has."""

    def on_end(self, result: Mapping[str, Any]) -> None:
        for name, value in logged.summary(result).items():
            self._client.log_metric(self._number, name, value)
        columns = zip(*logged.table(result), strict=True)
        rows = {name: list(values) for name, values in zip(logged.COLUMNS, columns, strict=True)}
        self._client.log_dict(self._number, rows, "accuracies.json")
        self._client.set_terminated(self._number)
