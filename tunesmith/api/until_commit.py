"""What was read of the database, kept for as long as nobody writes anything.

The database counts commits, those of other processes too, so what was read since the last one is as
good as read again.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from tunesmith.store.db import Database

# Enough for every key and model in use on one server; beyond it keeping starts again.
MAX_KEPT = 10_000

Key = TypeVar("Key")
Value = TypeVar("Value")


class UntilCommit(Generic[Key, Value]):
    """May be used by several threads."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._kept: tuple[int, dict[Key, Value]] = -1, {}

    def entries(self) -> dict[Key, Value]:
        """What is kept at this moment, to add to. To be asked for before reading: what is written
        meanwhile makes other entries."""
        version = self._db.version()
        if self._kept[0] != version or len(self._kept[1]) >= MAX_KEPT:
            self._kept = version, {}
        return self._kept[1]
