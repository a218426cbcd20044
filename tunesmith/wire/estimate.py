"""What a job would take, before it is created. No part of the published API."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from tunesmith.wire.fine_tuning import CreateJob


class EstimateJob(CreateJob):
    """The request that would create the job."""

    measure: bool = False
    """Train for some seconds to learn the speed where no job has told it."""


class Price(BaseModel):
    usd: str
    basis: str


class JobEstimate(BaseModel):
    object: Literal["tunesmith.job.estimate"] = "tunesmith.job.estimate"
    base: str
    kind: str
    num_examples: int
    num_tokens: int
    """Of one epoch."""
    num_supervised_tokens: int
    trained_tokens: int
    """Of all epochs."""
    num_steps: int
    hyperparameters: dict[str, Any]
    """As the job would have them: no "auto" is left."""
    learning_rate: float
    """At its peak."""
    longest: int
    max_tokens: int
    num_too_long: int
    seconds: float | None
    """Of training; null where the speed is not known."""
    tokens_per_s: float | None
    rate_source: str | None
    peak_bytes: int | None
    prices: list[Price]
    num_ahead: int
    """Jobs that would be trained before."""
    code: str | None
    problem: str | None
    """Why the job would fail at the file's validation."""
