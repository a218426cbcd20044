"""Waiting that a signal cuts short, without work inside a signal handler."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

Wait = Callable[[float], None]


@contextmanager
def wakeups(
    on_signal: Callable[[int, FrameType | None], None],
    handled: Iterable[signal.Signals] = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD),
) -> Iterator[Wait]:
    """Calls `on_signal` for the `handled` signals; gives `wait(seconds)`, which ends early when one
    of them comes, also if it came just before the wait."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    before = {number: signal.signal(number, on_signal) for number in handled}
    wakeup_before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def wait(seconds: float) -> None:
        if select.select([reader], [], [], seconds)[0]:
            os.read(reader, 4096)

    try:
        yield wait
    finally:
        signal.set_wakeup_fd(wakeup_before)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reader)
        os.close(writer)
