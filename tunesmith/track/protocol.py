"""What passes between a worker and the process that feeds a tracker: JSON lines, both ways.

In: one `{"open": {...}}`, then `{"events": [...]}` in order, at last `{"close": status}`, with null
for a job that paused; where the worker died, just the end. Out: `{"opened": {"run_id", "url"}}`,
`{"sent": seq}` for what the tracker has taken, `{"closed": true}`, or
`{"failed": text, "final": bool}`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tunesmith.errors import TunesmithError


@dataclass(frozen=True)
class Opening:
    """Which run to feed. Secrets come this way, too: an environment can be read by others."""

    kind: str
    job_id: str
    project_id: str
    model: str
    directory: Path
    """The tracker's own, within the job's."""
    parameters: dict[str, Any]
    """Hyperparameters and what else tells one run from another."""
    config: dict[str, Any] = field(default_factory=dict)
    """As the job's `integrations` gave it."""
    run_id: str | None = None
    """Of the run to go on with."""
    url: str | None = None
    """Of the tracker's server; None: its files only, or its public service."""
    secret: str | None = None
    offline: bool = False


@dataclass(frozen=True)
class Point:
    """One step's figures."""

    step: int
    at: int
    """Seconds since 1970."""
    figures: dict[str, float]


class TrackError(TunesmithError):
    """A tracker cannot be used. `final`: trying again would not help."""

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


class Tracker(Protocol):
    """A run of one tracker, opened. Sending a point twice leaves it there once."""

    @property
    def run_id(self) -> str: ...

    @property
    def url(self) -> str | None: ...

    def send(self, points: list[Point]) -> None: ...

    def close(self, status: str | None) -> None:
        """Ends the run as a job ended; None: it will be gone on with."""
        ...
