"""What may stop a trainer between two steps: a request, a signal, or a successor."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Literal

from tunesmith.group.world import ALONE, World
from tunesmith.jobdir.control import read_control
from tunesmith.jobdir.layout import SPEC_FILE
from tunesmith.jobdir.spec import read_spec

SIGNALS = (signal.SIGTERM, signal.SIGINT)

Request = Literal["pause", "cancel", "interrupt"]
# What processes of one job tell each other by number; the last one is a higher fence.
REQUESTS: tuple[Request | None, ...] = (None, "pause", "cancel", "interrupt")
OVERTAKEN = len(REQUESTS)


class Fenced(Exception):
    """The job was handed to another trainer; this one must not write any more."""


class Watch:
    """Looks out while the block runs; SIGTERM and Ctrl-C become "interrupt".

    Of several processes the first one looks, and all act on what it saw.
    """

    def __init__(self, job_dir: Path, fence: int, world: World = ALONE) -> None:
        self._world = world
        self._job_dir = job_dir
        self._fence = fence
        self._seen: tuple[int, int] | None = None
        self._terminated = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Watch:
        self._previous = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def request(self) -> Request | None:
        """What is asked of the trainer now: all processes have to ask. Raises Fenced."""
        try:
            number = REQUESTS.index(self._asked()) if self._world.is_first else 0
        except Fenced:
            self._world.agree(OVERTAKEN)
            raise
        number = self._world.agree(number)
        if number == OVERTAKEN:
            raise Fenced(f"Fence {self._fence} was overtaken.")
        return REQUESTS[number]

    def _asked(self) -> Request | None:
        self.check_fence()
        asked = read_control(self._job_dir)
        if asked is None and self._terminated:
            return "interrupt"
        return asked

    def check_fence(self) -> None:
        """Raises Fenced where the spec carries a higher fence; the first process alone looks.

        The spec is replaced by a rename, so an unchanged inode and time spare the reading.
        """
        if not self._world.is_first:
            return
        status = os.stat(self._job_dir / SPEC_FILE)  # noqa: PTH116 (called every step)
        seen = (status.st_ino, status.st_mtime_ns)
        if seen == self._seen:
            return
        fence = read_spec(self._job_dir).fence
        if fence > self._fence:
            raise Fenced(f"Fence {self._fence} was overtaken by {fence}.")
        self._seen = seen

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._terminated = True
