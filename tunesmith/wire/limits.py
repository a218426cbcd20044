"""Rate limits of a project, by base, and spend limits of it and of its keys."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from tunesmith.wire.lists import Listed
from tunesmith.wire.requests import RequestBody

Limit = Annotated[int, Field(ge=0)]


class ProjectRateLimit(Listed):
    """2147483647 stands for "no limit"."""

    object: Literal["project.rate_limit"] = "project.rate_limit"
    model: str
    max_requests_per_1_minute: int
    max_tokens_per_1_minute: int
    max_requests_per_1_day: int
    max_fine_tuning_jobs_per_1_day: int
    """Not in the published object."""


class UpdateRateLimit(RequestBody):
    """What is not named stays."""

    max_requests_per_1_minute: Limit | None = None
    max_tokens_per_1_minute: Limit | None = None
    max_requests_per_1_day: Limit | None = None
    max_fine_tuning_jobs_per_1_day: Limit | None = None
    max_images_per_1_minute: Limit | None = None
    max_audio_megabytes_per_1_minute: Limit | None = None
    batch_1_day_max_input_tokens: Limit | None = None


class SpendLimit(Listed):
    """Has the id of the project or key that it is of."""

    object: Literal["project.spend_limit"] = "project.spend_limit"
    owner: Literal["project", "api_key"]
    name: str
    usd_per_month: float | None
    """That holds; None: no limit."""
    is_default: bool
    """None of its own was set, so the server's settings say it."""
    month: str
    """The present one, as "2026-11"; it begins at midnight UTC."""
    usd_spent: float
    usd_reserved: float
    """That unfinished jobs are still expected to cost."""


class UpdateSpendLimit(RequestBody):
    """None: as the server's settings say."""

    usd_per_month: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] | None


class OwnLimits(BaseModel):
    object: Literal["tunesmith.limits"] = "tunesmith.limits"
    project_id: str
    rate_limits: list[ProjectRateLimit]
    spend_limits: list[SpendLimit]
    """The project's, and the caller's key's."""
