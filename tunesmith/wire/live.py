"""Jobs as they go on: what the published job object has no place for. No part of that API."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from tunesmith.wire.fine_tuning import Event, Job


class JobNow(BaseModel):
    """A job with how far it is."""

    object: Literal["tunesmith.job"] = "tunesmith.job"
    id: str
    job: Job
    base: str
    """Name of the registered base that `job.model` stands for."""
    requested: dict[str, Any]
    """The hyperparameters as they were asked for."""
    control: str | None
    """"cancel" or "pause" where that was asked for and has not happened yet."""
    step: int
    total_steps: int | None
    num_ahead: int | None
    """How many jobs will be trained before this one; null where it does not wait."""


class LiveEvent(Event):
    """An event of a stream, which carries those of several jobs."""

    fine_tuning_job_id: str


class JobMetrics(BaseModel):
    """The figures of all steps, by name; a figure is null where the step was not measured."""

    object: Literal["tunesmith.job.metrics"] = "tunesmith.job.metrics"
    fine_tuning_job_id: str
    steps: list[int]
    created_at: list[int]
    figures: dict[str, list[float | None]]
