"""Which model answers to a name: read once, and kept for as long as nobody writes anything.

Reading costs more than all else that is done for a short answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import sqlalchemy as sa

from tunesmith.api.until_commit import UntilCommit
from tunesmith.bases import BaseInfo
from tunesmith.errors import NotFound
from tunesmith.store.db import Database
from tunesmith.store.repo import base_grants, bases, models
from tunesmith.store.repo.models import ModelRow

Found = TypeVar("Found")


def unknown_model(name: str) -> NotFound:
    return NotFound(
        f"The model `{name}` does not exist or you do not have access to it.",
        code="model_not_found",
        param="model",
    )


class Names:
    """May be used by several threads."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._kept: UntilCommit[tuple[str, ...], Any] = UntilCommit(db)

    def find(self, project_id: str, name: str) -> tuple[BaseInfo, ModelRow | None]:
        """The base that answers to a name, and the tuned model it is if it is one. Or a 404."""

        def read(conn: sa.Connection) -> tuple[BaseInfo, ModelRow | None]:
            tuned = models.get(conn, project_id, name)
            if tuned is None:
                base = base_grants.resolve(conn, project_id, name)
            else:
                base = bases.get(conn, tuned.base)
            if base is None:
                raise unknown_model(name)
            return base, tuned

        return self._read_once((project_id, name), read)

    def root(self, base: BaseInfo) -> str:
        """The registered base whose limits and prices a model goes by."""
        if base.sha256 is None:
            return base.name
        return self._read_once((base.name,), lambda conn: bases.root_of(conn, base.name))

    def _read_once(self, key: tuple[str, ...], read: Callable[[sa.Connection], Found]) -> Found:
        kept = self._kept.entries()
        if key not in kept:
            with self._db.read() as conn:
                kept[key] = read(conn)
        found: Found = kept[key]
        return found
