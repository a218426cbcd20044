"""Whether a worker is there: each holds a shared lock, which ends with its process."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FILE = "worker.lock"


@contextmanager
def at_work(run_dir: Path) -> Iterator[None]:
    """Lets others see this process as a worker."""
    run_dir.mkdir(exist_ok=True)
    with (run_dir / FILE).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield


def is_any(run_dir: Path) -> bool:
    """Whether some worker of this machine is at work."""
    try:
        with (run_dir / FILE).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
