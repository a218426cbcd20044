"""Whose key a request came with: read once, and kept for as long as nobody writes anything.

The database counts commits, those of other processes too. Any commit may be the one that revokes a
key, so after each all keys are read anew; in between a key costs one hash. Keys that end by the
clock are asked for their end every time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa
from anyio.to_thread import run_sync
from starlette.datastructures import Headers

from tunesmith.access import Caller, Scope
from tunesmith.api.login import Signer, session_key
from tunesmith.api.until_commit import UntilCommit
from tunesmith.errors import TunesmithError
from tunesmith.ids import Clock
from tunesmith.store import links
from tunesmith.store.db import Database
from tunesmith.store.repo import keys
from tunesmith.store.repo.keys import KeyRow

log = logging.getLogger("tunesmith.api")

Read = Callable[[sa.Connection, str, int], KeyRow | None]


class Keyring:
    """Belongs to the event loop's thread."""

    def __init__(
        self,
        db: Database,
        pepper: bytes,
        clock: Clock,
        run_dir: Path,
        metrics_token: str | None = None,
    ) -> None:
        self._db = db
        self._pepper = pepper
        self._clock = clock
        self._run_dir = run_dir
        self._signer = Signer(pepper)
        self._metrics_token = metrics_token
        self._kept: UntilCommit[str, tuple[KeyRow, Caller]] = UntilCommit(db)

    async def caller(self, secret: str) -> Caller | None:
        """Whose key it is at this moment; None: nobody's."""
        if self._metrics_token is not None and keys.equal(secret, self._metrics_token):
            return Caller("metrics_token", None, "reader", frozenset({Scope.METRICS_READ}))
        now = int(self._clock.now())
        if secret.startswith(links.PREFIX):
            key_id = links.redeem(self._run_dir, secret, now)
            return None if key_id is None else await self._find(key_id, now, keys.live)
        return await self._find(keys.digest_of(self._pepper, secret), now, keys.verify)

    async def session_caller(self, headers: Headers) -> Caller | None:
        """Whose key a browser's session stands for at this moment."""
        now = int(self._clock.now())
        key_id = session_key(self._signer, headers, now)
        return None if key_id is None else await self._find(key_id, now, keys.live)

    async def _find(self, name: str, now: int, read: Read) -> Caller | None:
        """Who has the key that `read` finds by its digest or its id, which no two keys share."""
        kept = self._kept.entries()
        if name not in kept:
            with self._db.read() as conn:
                found = read(conn, name, now)
            if found is None:
                return None
            kept[name] = (found, found.caller())
        row, caller = kept[name]
        if row.expires_at is not None and row.expires_at <= now:
            return None
        if keys.needs_touch(row, now):
            await run_sync(self._touch, row.id, now)
        return caller

    def _touch(self, key_id: str, now: int) -> None:
        try:
            with self._db.write() as conn:
                keys.touch(conn, key_id, now)
        except TunesmithError as error:
            # Worth no refusal: the next request notes it.
            log.warning("the last use of a key was not noted: %s", error.message)
