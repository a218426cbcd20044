"""How a job's process is run. The contract with the process itself is files: jobdir/."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tunesmith.errors import TunesmithError
from tunesmith.jobdir.process import Phase


class LaunchError(TunesmithError):
    """No process was started; trying again may help."""


@dataclass(frozen=True)
class Handle:
    """Names a process for good: pids are reused, start times with them are not."""

    pid: int
    start_ticks: int


class Executor(Protocol):
    def ready(self) -> bool:
        """Whether launch() would be quick now; asked again and again, it gets itself ready."""
        ...

    def launch(self, phase: Phase, job_dir: Path) -> Handle:
        """Starts the process that works on a job directory. Raises LaunchError."""
        ...

    def poll(self, handle: Handle) -> bool:
        """Whether it still runs. What it wrote before it ended is then complete."""
        ...

    def cancel(self, handle: Handle, *, force: bool) -> None:
        """Asks it to stop at the next step with its work saved, or ends it by force."""
        ...

    def adopt(self, phase: Phase, job_dir: Path, min_fence: int) -> Handle | None:
        """The live process in a job directory, launched with that fence or a higher one."""
        ...

    def close(self) -> None:
        """Frees what launching needs; launched processes go on."""
        ...
