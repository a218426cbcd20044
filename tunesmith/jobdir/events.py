"""What a job tells: one JSON line an event, read by offset."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tunesmith.jobdir.records import RecordError, from_json

# How much of the event log one call of read_events returns at most, bytes.
EVENTS_CHUNK = 4 << 20

Level = Literal["info", "warn", "error"]
EventType = Literal["message", "metrics"]


@dataclass(frozen=True)
class EventLine:
    key: str
    """Unique within the job: "start", "plan", "step:12", "warn:dtype"."""
    message: str
    created_at: int
    """Seconds since 1970."""
    type: EventType = "message"
    level: Level = "info"
    data: dict[str, Any] = field(default_factory=dict)


def read_events(path: Path, offset: int) -> tuple[list[EventLine], int]:
    """The complete lines from a byte offset on, and the offset to go on from.

    At most about EVENTS_CHUNK bytes a call: ask again until the offset stays. An offset that is no
    longer the start of a line (the log lost its tail to a power cut) starts over from 0; the keys
    make that harmless. Raises RecordError for a line that is no event.
    """
    try:
        log = path.open("rb")
    except FileNotFoundError:
        return [], 0
    with log:
        if offset > 0:
            log.seek(offset - 1)
            if log.read(1) != b"\n":
                offset = 0
        log.seek(offset)
        chunk = log.read(EVENTS_CHUNK)
        end = chunk.rfind(b"\n") + 1
        if end == 0 and len(chunk) == EVENTS_CHUNK:
            raise RecordError(f"{path.name}: a line is longer than {EVENTS_CHUNK} bytes.")
    lines = chunk[:end].split(b"\n")[:-1]
    return [from_json(EventLine, line) for line in lines], offset + end


def all_events(path: Path) -> Iterator[EventLine]:
    """Those that are in the log by now."""
    offset, end = -1, 0
    while end != offset:
        offset = end
        events, end = read_events(path, offset)
        yield from events
