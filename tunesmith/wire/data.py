"""The request for a report on data files; the answer is the report's own JSON."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunesmith.wire.requests import RequestBody


class ReportRequest(RequestBody):
    file: str
    validation_file: str | None = None
    base: str | None = None
    """A model's name: rows are counted with its tokenizer and held against its context."""
    method: Literal["supervised", "dpo", "reinforcement", "evals"] | None = None
    """None: what the rows are made for."""
    after: Annotated[int, Field(ge=0)] = 0
    limit: Annotated[int, Field(ge=0, le=100)] = 20
