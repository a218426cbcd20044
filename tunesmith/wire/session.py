"""A browser's session: which key it stands for."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel


class Session(BaseModel):
    object: Literal["tunesmith.session"] = "tunesmith.session"
    key_id: str
    key_name: str
    key: str
    """The key as it may be shown."""
    expires_at: int | None
    """Of a session that has just begun."""


class SessionEnded(BaseModel):
    object: Literal["tunesmith.session.deleted"] = "tunesmith.session.deleted"
    deleted: Literal[True] = True
