"""What a job shows of its rows and of its answers along the way. No part of the published API."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from tunesmith.wire.lists import Listed


class RowLoss(Listed):
    """A row of the training file; a figure is null where there is none (yet)."""

    object: Literal["tunesmith.job.row"] = "tunesmith.job.row"
    row: int
    """Counted from 1, as in the messages about a file."""
    first_loss: float | None
    last_loss: float | None
    change: float | None


class Prompt(BaseModel):
    file: str
    row: int
    text: str
    expected: str


class Answer(BaseModel):
    text: str
    num_tokens: int
    stops: bool


class Sample(BaseModel):
    step: int
    epoch: int
    answers: list[Answer]


class Samples(BaseModel):
    object: Literal["tunesmith.job.samples"] = "tunesmith.job.samples"
    fine_tuning_job_id: str
    prompts: list[Prompt]
    samples: list[Sample]
    skipped: bool
