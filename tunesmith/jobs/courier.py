"""Delivers what the outbox holds: part of each worker.

A delivery is leased before it is tried, so two workers do not both send it; the lease of a process
that died is taken away at once. Killed between the answer and the note of it, it is sent once more:
at least once, with the same id.
"""

from __future__ import annotations

import asyncio
import logging

from tunesmith.errors import Unavailable
from tunesmith.jobs import lease
from tunesmith.jobs.context import Context
from tunesmith.jobs.delivery import Outcome, attempt
from tunesmith.jobs.outbox import KEEP_S, pause_s
from tunesmith.store.repo import keys, outbox
from tunesmith.store.repo.outbox import AttemptRow, DeliveryRow, State

log = logging.getLogger(__name__)

# At the same time, so that one slow receiver does not keep the others waiting.
NUM_AT_ONCE = 16
# Longer than any attempt can take.
LEASE_S = 120.0
REAP_EVERY_S = 1.0
PRUNE_EVERY_S = 3600.0


class Courier:
    poll_s = 0.25

    def __init__(self, context: Context) -> None:
        self._context = context
        self._pepper = keys.load_pepper(context.settings.data_dir)
        self._owner = lease.owner_name(context.rng)
        self.tasks: set[asyncio.Task[None]] = set()
        self._reap_at_s = 0.0
        self._prune_at_s = context.ticking_s() + PRUNE_EVERY_S

    def tick(self) -> None:
        now_s = self._context.ticking_s()
        if now_s >= self._reap_at_s:
            self._reap_at_s = now_s + REAP_EVERY_S
            self._reap()
        if now_s >= self._prune_at_s:
            self._prune_at_s = now_s + PRUNE_EVERY_S
            with self._context.db.write() as conn:
                outbox.prune(conn, self._context.now() - KEEP_S)
        free = NUM_AT_ONCE - len(self.tasks)
        if free > 0:
            for row in self._claim(free):
                task = asyncio.get_running_loop().create_task(self._deliver(row))
                self.tasks.add(task)
                task.add_done_callback(self.tasks.discard)

    def _claim(self, limit: int) -> list[DeliveryRow]:
        db, now = self._context.db, self._context.clock.now()
        time = db.lease_clock()
        with db.read() as conn:
            if not outbox.is_due(conn, time, now):
                return []
        with db.write() as conn:
            return outbox.claim(conn, self._owner, time, now, lease_s=LEASE_S, limit=limit)

    def _reap(self) -> None:
        db = self._context.db
        with db.read() as conn:
            held = outbox.holders(conn)
        for owner in lease.dead_owners(held, db.lease_clock().epoch):
            with db.write() as conn:
                outbox.release(conn, owner)

    async def _deliver(self, row: DeliveryRow) -> None:
        context = self._context
        try:
            outcome = await attempt(context.db, context.settings, self._pepper, row, context.now())
            self._settle(row, outcome)
        except Unavailable as error:
            # Its lease runs out, and it is tried again.
            log.warning("%s: %s", row.id, error.message)
        except Exception:
            log.exception("%s: an attempt to deliver ended unexpectedly", row.id)
            self._settle(row, Outcome(0, error="The server met an unexpected error; see its log."))

    def _settle(self, row: DeliveryRow, outcome: Outcome) -> None:
        context = self._context
        now = context.now()
        number = row.num_attempts + 1
        due_at = context.clock.now() + pause_s(
            number, context.settings.delivery_retry_s, context.rng
        )
        state: State = "waiting"
        if outcome.error is None:
            state = "delivered"
        elif outcome.final or due_at > row.since + context.settings.delivery_give_up_s:
            state = "dead"
        noted = AttemptRow(
            row.id, number, now, outcome.duration_ms, outcome.status_code, outcome.error
        )
        with context.db.write() as conn:
            outbox.settle(
                conn,
                self._owner,
                noted,
                state=state,
                due_at=due_at,
                finished_at=None if state == "waiting" else now,
            )
        level = logging.INFO if state == "delivered" else logging.WARNING
        fields = {"delivery": row.id, "event": row.event_type, "attempt": number, "state": state}
        log.log(level, "%s", outcome.error or "delivered", extra={"fields": fields})
