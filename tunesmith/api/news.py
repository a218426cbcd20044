"""What happens to jobs, as frames of server-sent events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tunesmith.api import fine_tuning, progress
from tunesmith.api.feed import News, Place
from tunesmith.jobs import commands
from tunesmith.jobs.states import OPEN
from tunesmith.store.db import Database
from tunesmith.store.repo import events, jobs
from tunesmith.store.repo.events import EventRow
from tunesmith.store.repo.jobs import JobRow
from tunesmith.wire.live import LiveEvent

# Read at once, so that nobody's memory depends on how much has happened.
CHUNK = 2000


def event_frame(row: EventRow) -> bytes:
    event = fine_tuning.shape_event(row)
    shown = LiveEvent(**vars(event), fine_tuning_job_id=row.job_id)
    return f"id: {row.id}\nevent: {event.object}\ndata: {shown.model_dump_json()}\n\n".encode()


def job_frames(rows: Iterable[JobRow], ahead: Mapping[str, int]) -> list[tuple[str, bytes]]:
    """The present state of each job, with its id; `ahead` as progress.queue() finds it."""
    frames = []
    for row in rows:
        job = progress.shape(row, ahead.get(row.id))
        frame = f"event: {job.object}\ndata: {job.model_dump_json()}\n\n".encode()
        frames.append((row.id, frame))
    return frames


def read(db: Database, place: Place | None) -> News:
    """The news since a place; without one, none, and where the end is."""
    with db.read() as conn:
        if place is None:
            return News(Place(*events.last_place(conn)))
        found = events.between(conn, place.number, None, project_id=None, job_id=None, limit=CHUNK)
        if not found:
            return News(place)
        ahead = progress.queue(conn)
        # A job that begins or ends moves all that wait.
        moves = any(row.type == "message" for _, row in found)
        changed = {row.job_id for _, row in found}.union(ahead if moves else ())
        touched = jobs.many(conn, list(changed))
        states = job_frames(touched.values(), ahead)
    # Events in their order, and then where their jobs stand.
    frames = [(row.job_id, event_frame(row)) for _, row in found] + states
    by_topic: dict[str, list[bytes]] = {}
    for job_id, frame in frames:
        by_topic.setdefault(job_id, []).append(frame)
        by_topic.setdefault(touched[job_id].project_id, []).append(frame)
    number, last = found[-1]
    return News(
        Place(number, last.id),
        {topic: b"".join(parts) for topic, parts in by_topic.items()},
        is_more=len(found) == CHUNK,
    )


def missed(
    db: Database, project_id: str, job_id: str | None, after: int, until: int
) -> tuple[int, bytes] | None:
    """The next events of a project's jobs, or of one, up to a number: the last one's number, and
    them."""
    with db.read() as conn:
        found = events.between(
            conn, after, until, project_id=project_id, job_id=job_id, limit=CHUNK
        )
    if not found:
        return None
    return found[-1][0], b"".join(event_frame(row) for _, row in found)


def states(db: Database, project_id: str, job_id: str | None, place: Place) -> bytes:
    """Where the job stands, or all of the project that have not ended; and the id of the place to
    go on from."""
    with db.read() as conn:
        if job_id is None:
            shown = jobs.among(conn, OPEN, project_id=project_id)
        else:
            shown = [commands.get_job(conn, project_id, job_id)]
        frames = job_frames(shown, progress.queue(conn))
    opening = f"id: {place.event_id}\nevent: open\ndata: {{}}\n\n".encode()
    return opening + b"".join(frame for _, frame in frames)
