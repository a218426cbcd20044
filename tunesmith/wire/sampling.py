"""The fields of a request that say how tokens are chosen, the same for chats and completions."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunesmith.wire.requests import RequestBody

Unit = Annotated[float, Field(ge=0, le=1)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
MAX_CHOICES = 16
ServiceTier = Literal["auto", "default", "flex", "scale", "priority"]
# Those that differ here: which of the waiting requests begins first.
UsedTier = Literal["default", "flex", "priority"]


class StreamOptions(RequestBody):
    include_usage: bool | None = None


class Sampling(RequestBody):
    model: str
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Unit | None = None
    # These two are not of the public API: what other servers of open models take.
    top_k: Annotated[int, Field(ge=-1)] | None = None
    min_p: Unit | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    stop: str | list[str] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    service_tier: ServiceTier | None = None
    user: str | None = None
