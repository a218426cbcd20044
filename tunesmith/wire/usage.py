"""Usage and costs of the organisation, in buckets of time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel


class Grouped(BaseModel):
    """None: not grouped by it, or none was noted."""

    project_id: str | None = None
    user_id: str | None = None
    api_key_id: str | None = None
    model: str | None = None


class CompletionsUsage(Grouped):
    object: Literal["organization.usage.completions.result"] = (
        "organization.usage.completions.result"
    )
    input_tokens: int
    """Cached ones included."""
    output_tokens: int
    num_model_requests: int
    input_cached_tokens: int
    input_audio_tokens: int = 0
    output_audio_tokens: int = 0
    batch: bool | None = None
    service_tier: str | None = None


class EmbeddingsUsage(Grouped):
    object: Literal["organization.usage.embeddings.result"] = "organization.usage.embeddings.result"
    input_tokens: int
    num_model_requests: int


class ModerationsUsage(Grouped):
    object: Literal["organization.usage.moderations.result"] = (
        "organization.usage.moderations.result"
    )
    input_tokens: int
    num_model_requests: int


class Amount(BaseModel):
    value: float
    currency: Literal["usd"] = "usd"


class Costs(BaseModel):
    object: Literal["organization.costs.result"] = "organization.costs.result"
    amount: Amount
    line_item: str | None = None
    """Such as "gpt-4o-mini, output"."""
    project_id: str | None = None
    api_key_id: str | None = None
    quantity: float | None = None
    quantity_unit: Literal["tokens", "duration_hours"] | None = None


Result = CompletionsUsage | EmbeddingsUsage | ModerationsUsage | Costs


class Bucket(BaseModel):
    object: Literal["bucket"] = "bucket"
    start_time: int
    end_time: int
    results: Sequence[Result]


class UsagePage(BaseModel):
    """Goes on with `page=<next_page>` while `has_more`."""

    object: Literal["page"] = "page"
    data: list[Bucket]
    has_more: bool
    next_page: str | None


class JobMoney(BaseModel):
    tokens: int
    usd: float


class ActualMoney(JobMoney):
    machine_seconds: int


class JobCost(BaseModel):
    """What a job was expected to cost when its files had been read, and what it cost so far."""

    object: Literal["tunesmith.job_cost"] = "tunesmith.job_cost"
    fine_tuning_job_id: str
    estimate: JobMoney | None
    actual: ActualMoney
