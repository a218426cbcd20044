"""What happens to jobs, as frames of server-sent events."""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa

from tunesmith.api import fine_tuning, progress
from tunesmith.api.feed import News, Place
from tunesmith.store.db import Database
from tunesmith.store.repo import events, jobs
from tunesmith.store.repo.events import EventRow
from tunesmith.wire.live import LiveEvent

# Read at once, so that nobody's memory depends on how much has happened.
CHUNK = 2000


def event_frame(row: EventRow) -> bytes:
    event = fine_tuning.shape_event(row)
    shown = LiveEvent(**vars(event), fine_tuning_job_id=row.job_id)
    return f"id: {row.id}\nevent: {event.object}\ndata: {shown.model_dump_json()}\n\n".encode()


def job_frames(conn: sa.Connection, job_ids: Iterable[str]) -> dict[str, bytes]:
    """The present state of each job, by id; an unknown one is left out."""
    ahead = progress.queue(conn)
    wanted = list(job_ids)
    found = jobs.many(conn, wanted)
    frames = {}
    for job_id in filter(found.__contains__, wanted):
        job = progress.shape(found[job_id], ahead.get(job_id))
        frames[job_id] = f"event: {job.object}\ndata: {job.model_dump_json()}\n\n".encode()
    return frames


def read(db: Database, place: Place | None) -> News:
    """The news since a place; without one, none, and where the end is."""
    with db.read() as conn:
        if place is None:
            return News(Place(*events.last_place(conn)))
        found = events.between(conn, place.number, None, job_id=None, limit=CHUNK)
        if not found:
            return News(place)
        # A job that begins or ends moves all that wait.
        moves = any(row.type == "message" for _, row in found)
        waiting = progress.queue(conn) if moves else ()
        states = job_frames(conn, {row.job_id for _, row in found}.union(waiting))
    return _news(found, states)


def _news(found: list[tuple[int, EventRow]], states: dict[str, bytes]) -> News:
    """Events in their order, and then where their jobs stand."""
    frames = [(row.job_id, event_frame(row)) for _, row in found] + list(states.items())
    by_job: dict[str, list[bytes]] = {}
    for job_id, frame in frames:
        by_job.setdefault(job_id, []).append(frame)
    number, last = found[-1]
    return News(
        Place(number, last.id),
        b"".join(frame for _, frame in frames),
        {job_id: b"".join(parts) for job_id, parts in by_job.items()},
        is_more=len(found) == CHUNK,
    )


def missed(db: Database, job_id: str | None, after: int, until: int) -> tuple[int, bytes] | None:
    """The next events of all jobs, or of one, up to a number: the last one's number, and them."""
    with db.read() as conn:
        found = events.between(conn, after, until, job_id=job_id, limit=CHUNK)
    if not found:
        return None
    return found[-1][0], b"".join(event_frame(row) for _, row in found)


def states(db: Database, job_id: str | None, place: Place) -> bytes:
    """Where the job stands, or all that have not ended; and the id of the place to go on from."""
    with db.read() as conn:
        is_open = jobs.among(conn, progress.OPEN) if job_id is None else []
        found = job_frames(conn, [row.id for row in is_open] if job_id is None else [job_id])
    return f"id: {place.event_id}\nevent: open\ndata: {{}}\n\n".encode() + b"".join(found.values())
