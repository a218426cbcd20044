"""Fine-tuning jobs, their events and their checkpoints as the public API shows them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from tunesmith.wire.lists import Listed
from tunesmith.wire.requests import RequestBody


class CreateJob(RequestBody):
    """The request. Ranges and the rest of the rules are `jobs/request.py`'s, for every caller.

    `hyperparameters` is the older place for what now stands in `method.supervised`.
    """

    model: str
    training_file: str
    validation_file: str | None = None
    hyperparameters: dict[str, Any] | None = None
    method: dict[str, Any] | None = None
    suffix: str | None = None
    seed: int | None = None
    integrations: list[Any] | None = None
    metadata: dict[str, str] | None = None


class JobFailure(BaseModel):
    code: str
    message: str
    param: str | None


class Job(Listed):
    """A job. The last four fields are undocumented, but the service always sends them."""

    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int
    finished_at: int | None
    model: str
    fine_tuned_model: str | None
    organization_id: str
    status: str
    training_file: str
    validation_file: str | None
    result_files: list[str]
    trained_tokens: int | None
    hyperparameters: dict[str, Any] | None
    method: dict[str, Any]
    seed: int
    error: JobFailure | None
    estimated_finish: int | None
    integrations: list[dict[str, Any]]
    metadata: dict[str, str] | None
    user_provided_suffix: str | None
    usage_metrics: None = None
    shared_with_openai: Literal[False] = False
    eval_id: None = None


class Event(Listed):
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    level: str
    message: str
    type: str
    data: dict[str, Any]


class Checkpoint(Listed):
    """A model kept from the course of a job; `metrics` holds only what was measured."""

    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuned_model_checkpoint: str
    fine_tuning_job_id: str
    metrics: dict[str, float]
    step_number: int
