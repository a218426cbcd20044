"""The database: opening, transactions, and everything that depends on its dialect (SQLite).

Several processes share the file: write-ahead log, full fsync per commit, writers take the lock at
BEGIN, so a transaction that has begun cannot fail for want of it.
"""

from __future__ import annotations

import fcntl
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, OperationalError

from tunesmith.errors import TunesmithError, Unavailable

# The revision this code was written for: the newest file in migrations/versions.
HEAD = "0004"

BUSY_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class LeaseTime:
    """An instant on the lease clock: comparable only within one epoch."""

    epoch: str
    now_s: float


def boot_time() -> LeaseTime:
    """Seconds since this machine booted, which no change of the wall clock moves.

    A SQLite file is used from one machine only, so all its processes share this clock; after a
    reboot, or on another machine, the epoch differs and every lease counts as expired.
    """
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return LeaseTime(boot, time.monotonic())


class SchemaError(TunesmithError):
    """The database and the program are of different versions."""


class Database:
    """Transactions on one data directory; safe to share between threads."""

    def __init__(self, engine: sa.Engine, lease_clock: Callable[[], LeaseTime] = boot_time) -> None:
        self._engine = engine
        self._writer = engine.execution_options(tunesmith_write=True)
        self._write_lock = threading.Lock()
        self._watch_lock = threading.Lock()
        self._watch: sqlite3.Connection | None = None
        self._num_unknown = 0
        self.lease_clock = lease_clock

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """One consistent view; nothing is written."""
        with _translated(), self._engine.connect() as conn:
            yield conn

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """All or nothing, durable on return. Not nestable.

        The lock of this process keeps its threads in line; SQLite's own would make them poll.
        """
        with self._write_lock, _translated(), self._writer.begin() as conn:
            yield conn

    def version(self) -> int:
        """Another number than before if anybody, in any process, has committed meanwhile.

        Where that cannot be told, because the file is locked or failing, always another one.
        """
        with self._watch_lock:
            try:
                if self._watch is None:
                    self._watch = self._open_watch()
                return int(self._watch.execute("PRAGMA data_version").fetchone()[0])
            except sqlite3.Error:
                self._num_unknown += 1
                return -self._num_unknown

    def _open_watch(self) -> sqlite3.Connection:
        """A connection that never writes: what it wrote itself SQLite would not count."""
        path = str(self._engine.url.database)
        return sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)

    def close(self) -> None:
        with self._watch_lock:
            if self._watch is not None:
                self._watch.close()
                self._watch = None
        self._engine.dispose()


def open_database(data_dir: Path) -> Database:
    """Opens the database of a data directory; creates or upgrades it where needed.

    Raises SchemaError for one that a newer version has written.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    path = data_dir / "tunesmith.db"
    engine = _engine(path)
    try:
        if not path.exists() or _seen_revision(engine) != HEAD:
            with (data_dir / "migrate.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if _revision(engine) != HEAD:
                    _switch_to_wal(engine)
                    _upgrade(engine, data_dir)
    except BaseException:
        engine.dispose()
        raise
    return Database(engine)


def _engine(path: Path) -> sa.Engine:
    engine = sa.create_engine(
        f"sqlite:///{path}",
        # None hands BEGIN and COMMIT to us (see _begin).
        connect_args={"timeout": BUSY_TIMEOUT_S, "isolation_level": None},
        pool_size=8,
        max_overflow=56,
    )
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", _begin)
    return engine


def _configure(connection: sqlite3.Connection, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin(conn: sa.Connection) -> None:
    write = conn.get_execution_options().get("tunesmith_write", False)
    conn.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _revision(engine: sa.Engine) -> str | None:
    with engine.connect() as conn:
        try:
            return conn.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
        except OperationalError as error:
            if "no such table" in str(error):
                return None
            raise


def _seen_revision(engine: sa.Engine) -> str | None:
    """The revision, or None also where another process is just making the database."""
    try:
        return _revision(engine)
    except OperationalError as error:
        if "locked" in str(error):
            return None
        raise


def _switch_to_wal(engine: sa.Engine) -> None:
    """Once per file, which remembers it. Fails while anyone looks at it, so it is tried again."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        while True:
            try:
                conn.connection.cursor().execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)


def _upgrade(engine: sa.Engine, data_dir: Path) -> None:
    # Alembic takes as long to import as everything else together; a current database needs none.
    from tunesmith.store.upgrade import upgrade

    upgrade(engine.execution_options(tunesmith_write=True), data_dir)


@contextmanager
def _translated() -> Iterator[None]:
    """Passing trouble of the database as "try again", with the reason."""
    try:
        yield
    except DBAPIError as error:
        text = str(error.orig)
        if "locked" in text or "busy" in text:
            reason = "The database is busy."
        elif "disk is full" in text or "disk I/O error" in text:
            reason = "The disk that holds the data directory is full or failing."
        else:
            raise
        raise Unavailable(
            f"{reason} Nothing was changed; try again.", headers={"retry-after": "1"}
        ) from error
