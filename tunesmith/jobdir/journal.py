"""The event log of a job: one JSON line an event, appended by one unbuffered write each.

A killed trainer therefore loses no event it has emitted, and leaves at most one torn line, which
the next start cuts off. Durability against a power cut comes with `sync`, at checkpoints only. Of
whatever else became of the log, the next start tells.
"""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

from tunesmith.ids import Clock
from tunesmith.jobdir.events import NO_LOG, EventLine, EventType, Level, untold_damage
from tunesmith.jobdir.records import to_json

TAIL = 1 << 16


class Journal:
    def __init__(self, path: Path, clock: Clock) -> None:
        self._clock = clock
        was_directory = path.is_dir()
        if was_directory:
            move_aside(path)
        self._file = path.open("ab", buffering=0)
        cut_torn_line(path)
        for damage in [NO_LOG] if was_directory else untold_damage(path):
            self.message(damage.key, damage.message, damage.level)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def message(
        self, key: str, text: str, level: Level = "info", data: dict[str, Any] | None = None
    ) -> None:
        """Something the user should read; the same key again is the same event."""
        self._append(key, text, "message", level, data or {})

    def metrics(self, step: int, total_steps: int, values: dict[str, float]) -> None:
        """The figures of a finished step, in the contract's words and field names."""
        data: dict[str, Any] = {"step": step, "total_steps": total_steps, **values}
        self._append(f"step:{step}", step_text(step, total_steps, values), "metrics", "info", data)

    def sync(self) -> None:
        """Makes every event so far survive a power cut."""
        os.fsync(self._file.fileno())

    def _append(
        self, key: str, text: str, type: EventType, level: Level, data: dict[str, Any]
    ) -> None:
        now = int(self._clock.now())
        line = EventLine(key=key, message=text, created_at=now, type=type, level=level, data=data)
        content = to_json(line) + b"\n"
        if self._file.write(content) != len(content):
            raise OSError(errno.ENOSPC, "The event log could not be written whole")


def step_text(step: int, total_steps: int, values: dict[str, float]) -> str:
    """For example "Step 10/30: training loss=0.52, validation loss=0.61"."""
    text = f"Step {step}/{total_steps}: training loss={values['train_loss']:.2f}"
    if "valid_loss" in values:
        text += f", validation loss={values['valid_loss']:.2f}"
    if "full_valid_loss" in values:
        text += f", full validation loss={values['full_valid_loss']:.2f}"
    return text


def move_aside(directory: Path) -> None:
    """Makes its name free."""
    directory.rename(tempfile.mkdtemp(prefix=f"{directory.name}.", dir=directory.parent))


def cut_torn_line(path: Path) -> None:
    """Drops what follows the last newline: a line whose write was cut short."""
    with path.open("r+b") as log:
        size = end = log.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - TAIL)
            log.seek(start)
            newline = log.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            log.truncate(end)
