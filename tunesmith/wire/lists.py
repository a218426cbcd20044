"""Lists: a page of objects and how to ask for the next one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, Literal, Self, TypeVar

from pydantic import BaseModel


class Listed(BaseModel):
    """An object that comes in pages."""

    id: str


T = TypeVar("T", bound=Listed)


class Page(BaseModel, Generic[T]):
    """Clients ask on with `after=<last_id>` until `has_more` is false, so it is never left out."""

    object: Literal["list"] = "list"
    data: Sequence[T]
    has_more: bool
    first_id: str | None
    last_id: str | None

    @classmethod
    def of(cls, items: Sequence[T], has_more: bool) -> Self:
        first_id = items[0].id if items else None
        last_id = items[-1].id if items else None
        return cls(data=items, has_more=has_more, first_id=first_id, last_id=last_id)


class Listing(BaseModel, Generic[T]):
    """A list that comes whole, as `/v1/models` does."""

    object: Literal["list"] = "list"
    data: Sequence[T]
