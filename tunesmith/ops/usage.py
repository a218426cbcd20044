"""Sums up in memory what was used, and writes it down twice a second.

A request adds to a sum and goes on. Each write is one transaction; what could not be written stays
in memory and is tried again, so only a process that is killed loses what is younger than its last
write.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from tunesmith.store.repo.usage import Counts, UsageKey

log = logging.getLogger("tunesmith.usage")

# Half of what may be lost: the other half is for the write itself.
WRITE_EVERY_S = 0.5

Rows = Sequence[tuple[UsageKey, Counts]]
Held = dict[str, int]
"""Of budgets: money that limits hold until it is written, nano-dollars."""


class Recorder:
    def __init__(self, write: Callable[[Rows, Held], None]) -> None:
        """`write` stores all or nothing, and raises in the second case only; it is also called,
        with nothing, to keep pace."""
        self._write = write
        self._sums: dict[UsageKey, Counts] = {}
        self._held: Held = {}
        self._adding = threading.Lock()
        self._writing = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="usage", daemon=True)
        self._thread.start()

    def add(self, key: UsageKey, counts: Counts, held: Held) -> None:
        """Microseconds; from any thread."""
        with self._adding:
            self._add(key, counts)
            self._hold(held)

    def flush(self) -> None:
        """Writes what there is now. Raises what `write` raises; nothing is lost by that."""
        with self._writing:
            with self._adding:
                sums, self._sums = self._sums, {}
                held, self._held = self._held, {}
            try:
                self._write(list(sums.items()), held)
            except BaseException:
                with self._adding:
                    for key, counts in sums.items():
                        self._add(key, counts)
                    self._hold(held)
                raise

    def _add(self, key: UsageKey, counts: Counts) -> None:
        known = self._sums.get(key)
        if known is None:
            self._sums[key] = counts
        else:
            known.add(counts)

    def _hold(self, held: Held) -> None:
        for budget, nanos in held.items():
            self._held[budget] = self._held.get(budget, 0) + nanos

    def close(self) -> None:
        """Writes the rest and ends."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._try_to_flush()

    def _run(self) -> None:
        while not self._stop.wait(WRITE_EVERY_S):
            self._try_to_flush()

    def _try_to_flush(self) -> None:
        try:
            self.flush()
        except Exception as error:
            # Nothing may end this thread: the next round tries again.
            log.warning("usage was not written and is kept in memory: %s", error)
