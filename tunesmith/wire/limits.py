"""Rate limits of a project, by base."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

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
