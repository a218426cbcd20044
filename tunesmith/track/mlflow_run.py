"""MLflow through its client: one experiment for each project, one run for each job."""

from __future__ import annotations

import math
import os
from typing import Any

from tunesmith.track.protocol import Opening, Point, TrackError

# What one call may carry.
MAX_BATCH = 1000
MAX_PARAMETER_CHARS = 500
# Its client tries seven times with growing pauses by default; we have pauses of our own.
NUM_RETRIES, LIMIT_S = 2, 15
STATUSES = {"succeeded": "FINISHED", "failed": "FAILED", "cancelled": "KILLED"}


class MlflowRun:
    def __init__(self, opening: Opening) -> None:
        os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = str(NUM_RETRIES)
        os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(LIMIT_S)
        self._mlflow = _library()
        from mlflow.entities import Metric
        from mlflow.exceptions import MlflowException

        self._metric, self._error = Metric, MlflowException
        try:
            self._client: Any = self._mlflow.MlflowClient(tracking_uri=opening.url)
            self.run_id = opening.run_id or self._create(opening)
        except MlflowException as error:
            raise TrackError(f"MLflow cannot be used: {error}") from error
        self.url = f"{opening.url}/#/experiments/{self._experiment}/runs/{self.run_id}"

    @property
    def _experiment(self) -> str:
        return str(self._client.get_run(self.run_id).info.experiment_id)

    def _create(self, opening: Opening) -> str:
        name = f"tunesmith/{opening.project_id}"
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name)
        # A process that died after this call and before it was noted has made the run.
        same = self._client.search_runs(
            [experiment], f"tags.`tunesmith.job_id` = '{opening.job_id}'", max_results=1
        )
        if same:
            return str(same[0].info.run_id)
        tags = {"tunesmith.job_id": opening.job_id, "tunesmith.model": opening.model}
        run = self._client.create_run(experiment, run_name=opening.job_id, tags=tags)
        for key, value in opening.parameters.items():
            self._client.log_param(run.info.run_id, key, str(value)[:MAX_PARAMETER_CHARS])
        return str(run.info.run_id)

    def send(self, points: list[Point]) -> None:
        """The same point with the same time is one row there, however often it comes."""
        metrics = [
            self._metric(name, value, point.at * 1000, point.step)
            for point in points
            for name, value in point.figures.items()
            if math.isfinite(value)
        ]
        try:
            for start in range(0, len(metrics), MAX_BATCH):
                self._client.log_batch(self.run_id, metrics=metrics[start : start + MAX_BATCH])
        except self._error as error:
            raise TrackError(f"MLflow did not take the figures: {error}") from error

    def close(self, status: str | None) -> None:
        if status is None:
            return
        try:
            self._client.set_terminated(self.run_id, STATUSES[status])
        except self._error as error:
            raise TrackError(f"MLflow did not end the run: {error}") from error


def _library() -> Any:
    try:
        import mlflow
    except ImportError:
        raise TrackError(
            "the library of MLflow is not installed on this server; its operator can install it: "
            "pip install 'tunesmith[mlflow]'",
            final=True,
        ) from None
    return mlflow
