"""What a job tells: one JSON line an event, read by offset."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

from tunesmith.jobdir.records import RecordError, from_json, to_json

# How much of the event log one call of read_events returns at most, bytes.
EVENTS_CHUNK = 4 << 20
# How every line begins.
START = b'{"key": '
# Steps and seconds beyond it are rubbish.
MAX_COUNT = 1 << 53
# What keys of warnings about the log itself start with.
DAMAGE = "warn:events:"
# The offset in a log that is a directory.
NOWHERE = -1

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


NO_LOG = EventLine(
    f"{DAMAGE}directory",
    "There is a directory in place of the job's event log: events may be missing here. The job "
    "itself goes on.",
    0,
    level="warn",
)


def read_events(path: Path, offset: int) -> tuple[list[EventLine], int]:
    """The complete lines from a byte offset on, and the offset to go on from.

    At most about EVENTS_CHUNK bytes a call: ask again until the offset stays. An offset that is no
    longer the start of a line (the log lost its tail to a power cut) starts over from 0; the keys
    make that harmless. What is no event is left out, and a warning stands in its place, always
    under the same key.
    """
    try:
        log = path.open("rb")
    except FileNotFoundError:
        return [], 0
    except IsADirectoryError:
        return ([] if offset == NOWHERE else [NO_LOG]), NOWHERE
    with log:
        offset = offset if _is_line_start(log, offset) else 0
        log.seek(offset)
        chunk = log.read(EVENTS_CHUNK)
        end = chunk.rfind(b"\n") + 1
        if end == 0 and len(chunk) == EVENTS_CHUNK:
            return _skip_line(log, offset)
    return [*_told(chunk[:end], offset)], offset + end


def _is_line_start(log: BinaryIO, offset: int) -> bool:
    if offset > 0:
        log.seek(offset - 1)
    return offset == 0 or (offset > 0 and log.read(1) == b"\n")


def _skip_line(log: BinaryIO, offset: int) -> tuple[list[EventLine], int]:
    """Over the rest of a line that is longer than any event, once it is complete."""
    while chunk := log.read(EVENTS_CHUNK):
        if (newline := chunk.find(b"\n")) >= 0:
            end = log.tell() - len(chunk) + newline + 1
            return [_damage(offset, end - offset)], end
    return [], offset


def _told(lines: bytes, offset: int) -> Iterator[EventLine]:
    """The events that can be read, and a warning in each place where others may have been."""
    end = 0
    for start, stop, event in _sound(lines):
        if start > end:
            yield _damage(offset + end, start - end)
        yield event
        end = stop
    if len(lines) > end:
        yield _damage(offset + end, len(lines) - end)


def _sound(lines: bytes) -> Iterator[tuple[int, int, EventLine]]:
    """Where each event that can be read starts and ends, and the event."""
    end = 0
    for line in lines.split(b"\n")[:-1]:
        end += len(line) + 1
        # A whole line may follow on what is left of another.
        for text in (line, line[line.rfind(START) :] if START in line else b""):
            event = _event(text)
            if event is not None:
                yield end - len(text) - 1, end, event
                break


def _event(line: bytes) -> EventLine | None:
    """None where no journal can have written it."""
    try:
        event = from_json(EventLine, line)
        f"{event.key}{event.message}".encode()
        if not 0 <= event.created_at < MAX_COUNT:
            return None
        if event.type == "metrics":
            return event if _has_figures(event.data) else None
        # Raises for numbers and texts that JSON can spell and nobody can keep.
        to_json(event)
        return event
    except (RecordError, ValueError, OverflowError, RecursionError):
        return None


def _has_figures(data: dict[str, Any]) -> bool:
    counts = (data.get("step"), data.get("total_steps"))
    return all(type(count) is int and 0 <= count < MAX_COUNT for count in counts) and all(
        type(figure) in (int, float) and math.isfinite(figure) for figure in data.values()
    )


def _damage(start: int, num_bytes: int) -> EventLine:
    """Without a time of its own: whoever keeps events in order gives it that of the one before."""
    text = (
        f"Part of the job's event log cannot be read ({num_bytes:,} bytes from byte {start:,} on): "
        "events may be missing here. The job itself goes on."
    )
    return EventLine(f"{DAMAGE}{start}", text, 0, level="warn")


def untold_damage(path: Path) -> list[EventLine]:
    """The warnings about the log that are not in it themselves."""
    found = [event for event in all_events(path) if event.key.startswith(DAMAGE)]
    told = {event.key for event in found if event.created_at > 0}
    return [event for event in found if event.key not in told]


def all_events(path: Path) -> Iterator[EventLine]:
    """Those that are in the log by now."""
    offset, end = -1, 0
    while end != offset:
        offset = end
        events, end = read_events(path, offset)
        yield from events
