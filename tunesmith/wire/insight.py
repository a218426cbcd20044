"""What a job shows of its rows and of its answers along the way. No part of the published API."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from tunesmith.wire.estimate import Price
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


class HeatToken(BaseModel):
    text: str
    trained: bool
    special: bool
    """A control token, not text that somebody wrote."""
    loss: float | None
    """-ln of its probability; null for the first, before which nothing stands."""
    choice: str | None
    """What the model found likelier than anything else there; null where that is this token."""


class HeatSequence(BaseModel):
    name: str
    """"preferred" and "rejected" of a pair; empty for a conversation."""
    loss: float | None
    """The mean over the trained tokens."""
    tokens: list[HeatToken]


class RowTokens(BaseModel):
    object: Literal["tunesmith.job.row_tokens"] = "tunesmith.job.row_tokens"
    fine_tuning_job_id: str
    row: int
    model: str
    """That scored the row."""
    sequences: list[HeatSequence]


class UsedFile(BaseModel):
    id: str
    filename: str
    bytes: int
    sha256: str
    deleted: bool


class Recipe(BaseModel):
    """Everything that decides what a job computes."""

    object: Literal["tunesmith.job.recipe"] = "tunesmith.job.recipe"
    fine_tuning_job_id: str
    request: dict[str, Any]
    """The body that creates the same job again, seed included."""
    base: str
    base_fingerprint: str | None
    """sha256 over its configuration, tokenizer and template; null where it is gone."""
    start_adapter_sha256: str | None
    training_file: UsedFile | None
    validation_file: UsedFile | None
    plan: dict[str, Any] | None
    """What the first start decided: device, type, threads, rate; null before that."""
    took: dict[str, float]
    """Seconds and bytes of a job that succeeded, beside what was expected."""
    prices: list[Price]
    """What the settings' prices make of its tokens and its time."""
    adapter_sha256: str | None
    version: str
    """Of this server."""
