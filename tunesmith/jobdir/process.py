"""Who works on a job: a process that is known by its pid and when it started."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tunesmith.jobdir.layout import PROCESS_FILE

# Field 22 of /proc/<pid>/stat, counted from the third.
START_FIELD = 19

Phase = Literal["validate", "train"]


@dataclass(frozen=True)
class Process:
    pid: int
    start_ticks: int
    """Field 22 of /proc/<pid>/stat: with the pid it names a process for good."""
    fence: int
    phase: Phase


def stat_fields(pid: int) -> list[str] | None:
    """/proc/<pid>/stat from its third field (the state) on; None if there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field, in parentheses, may itself hold spaces and parentheses.
    return stat.rpartition(")")[2].split()


def start_ticks(pid: int) -> int | None:
    """When a live process started, in clock ticks since boot; None if it is gone or a zombie."""
    fields = stat_fields(pid)
    return None if fields is None or fields[0] in "ZX" else int(fields[START_FIELD])


def started_at(job_dir: Path) -> float:
    """When the process of this round wrote itself down, seconds since 1970."""
    return (job_dir / PROCESS_FILE).stat().st_mtime


def is_alive(process: Process) -> bool:
    """Whether that very process still runs: a reused pid does not count."""
    return start_ticks(process.pid) == process.start_ticks
