"""Models as the public API shows them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from tunesmith.wire.lists import Listed


class Model(Listed):
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class ModelDeleted(BaseModel):
    id: str
    object: Literal["model"] = "model"
    deleted: Literal[True] = True
