"""The error body: one shape for every answer that is not a success."""

from __future__ import annotations

from pydantic import BaseModel


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(BaseModel):
    """All four keys are always there; clients build their exception from them."""

    error: ErrorDetail
