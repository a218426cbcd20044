"""python -m tunesmith.jobs [--data DIR]: a worker. SIGTERM or Ctrl-C drains it."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from tunesmith.config import Settings, load_settings, secrets_of
from tunesmith.errors import TunesmithError
from tunesmith.ids import SystemClock, SystemRng
from tunesmith.jobs import herald
from tunesmith.jobs.context import Context
from tunesmith.jobs.local import LocalExecutor
from tunesmith.jobs.presence import at_work
from tunesmith.jobs.supervisor import Supervisor
from tunesmith.ops.telemetry import configure_logging
from tunesmith.ops.tracing import open_tracing
from tunesmith.store.blobs import LocalBlobs
from tunesmith.store.db import open_database


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tunesmith.jobs", description=__doc__)
    parser.add_argument("--data", type=Path, help="data directory")
    settings = load_settings(data=parser.parse_args().data)
    configure_logging("worker", settings.log_level, secrets_of(settings))
    # A list, not an Event: setting that from a handler can wait for a lock of this very thread.
    signals: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: signals.append(number))
    try:
        work(settings, lambda: bool(signals))
    except TunesmithError as error:
        print(error.message, file=sys.stderr)
        return 1
    return 0


def work(settings: Settings, stopping: Callable[[], bool]) -> None:
    """Runs a worker on the data directory of these settings until asked to stop."""
    db = open_database(settings.data_dir)
    try:
        blobs = LocalBlobs(settings.blobs_dir)
        tracing = open_tracing("worker", settings.otel_url)
        context = Context(db, blobs, settings, SystemClock(), SystemRng(), tracing)
        logging.getLogger(__name__).info("working on %s", settings.data_dir)
        # The herald goes on while jobs are handed back: an end is told by who sees it.
        done = threading.Event()
        telling = herald.start(context, done.is_set)
        try:
            with at_work(settings.run_dir):
                Supervisor(context, LocalExecutor()).run(stopping)
        finally:
            done.set()
            telling.join()
            tracing.close()
    finally:
        db.close()


if __name__ == "__main__":
    sys.exit(main())
