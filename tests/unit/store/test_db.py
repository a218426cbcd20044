"""Opening, migrating, transactions between processes, and what a full or busy disk looks like."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from tunesmith.access import DEFAULT_PROJECT
from tunesmith.errors import Unavailable
from tunesmith.ids import SystemRng
from tunesmith.store import db as db_module
from tunesmith.store.db import HEAD, SchemaError, boot_time, open_database
from tunesmith.store.repo import checkpoints, idempotency, jobs, keys, models, usage
from tunesmith.store.tables import metadata


def test_head_is_the_newest_migration_and_leads_to_the_tables(tmp_path: Path) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    from tunesmith.store.upgrade import scripts

    assert scripts().get_current_head() == HEAD
    db = open_database(tmp_path)
    with db.read() as conn:
        context = MigrationContext.configure(conn, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    db.close()


def test_the_settings_that_keep_promises(tmp_path: Path) -> None:
    db = open_database(tmp_path)
    with db.read() as conn:
        values = {
            name: conn.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert values == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 10_000,
    }
    db.close()


def test_opening_a_current_database_needs_no_alembic(tmp_path: Path) -> None:
    open_database(tmp_path).close()
    program = (
        "import sys; from pathlib import Path; from tunesmith.store.db import open_database;"
        f"open_database(Path({str(tmp_path)!r})); assert 'alembic' not in sys.modules;"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_newer_database_is_refused_readably(tmp_path: Path) -> None:
    open_database(tmp_path).close()
    with sqlite3.connect(tmp_path / "tunesmith.db") as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(SchemaError, match="schema 9999"):
        open_database(tmp_path)


def test_an_older_database_is_copied_before_it_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = open_database(tmp_path)
    with db.write() as conn:
        keys.create(conn, b"pepper", SystemRng(), name="kept", now=1)
    db.close()
    # As if the code had moved on: the steps from this revision to itself are none.
    monkeypatch.setattr(db_module, "HEAD", "9000")
    with pytest.raises(Exception, match="9000"):
        _upgrade_to_unknown(tmp_path)
    with sqlite3.connect(tmp_path / f"tunesmith.db.{HEAD}") as copy:
        assert copy.execute("SELECT name FROM keys").fetchall() == [("kept",)]


def _upgrade_to_unknown(tmp_path: Path) -> None:
    from tunesmith.store import upgrade

    upgrade.HEAD = "9000"
    try:
        open_database(tmp_path)
    finally:
        upgrade.HEAD = HEAD


def _open_at_once(directory: Path, barrier: multiprocessing.synchronize.Barrier) -> None:
    barrier.wait()
    open_database(directory).close()


def test_processes_that_start_together_make_one_database(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(3)
    children = [context.Process(target=_open_at_once, args=(tmp_path, barrier)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0, 0]


def test_a_failed_transaction_leaves_nothing(tmp_path: Path) -> None:
    db = open_database(tmp_path)
    with pytest.raises(ZeroDivisionError), db.write() as conn:
        keys.create(conn, b"pepper", SystemRng(), name="gone", now=1)
        _ = 1 / 0
    with db.read() as conn:
        assert keys.list_all(conn) == []
    db.close()


def test_a_reader_sees_one_moment(tmp_path: Path) -> None:
    db = open_database(tmp_path)
    with db.read() as reader:
        assert keys.list_all(reader) == []
        with db.write() as conn:
            keys.create(conn, b"pepper", SystemRng(), name="new", now=1)
        assert keys.list_all(reader) == []
    with db.read() as reader:
        assert len(keys.list_all(reader)) == 1
    db.close()


def test_a_busy_database_asks_to_try_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db_module, "BUSY_TIMEOUT_S", 0.05)
    db = open_database(tmp_path)
    other = sqlite3.connect(tmp_path / "tunesmith.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable) as caught, db.write():
        pass
    assert caught.value.headers == {"retry-after": "1"}
    other.execute("ROLLBACK")
    with db.write() as conn:
        conn.execute(sa.text("SELECT 1"))
    other.close()
    db.close()


def test_a_full_disk_is_said_and_harms_nothing(tmp_path: Path) -> None:
    db = open_database(tmp_path)
    with db.write() as conn:
        pages = conn.exec_driver_sql("PRAGMA page_count").scalar()
        conn.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(Unavailable, match="full"), db.write() as conn:
        for number in range(1000):
            keys.create(
                conn, b"pepper", SystemRng(), name="n" * 500, now=1, secret=f"{number:030d}"
            )
    with db.read() as conn:
        assert keys.list_all(conn) == []
        assert conn.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
    db.close()


WRITER = """
import sys
from pathlib import Path
from tunesmith.ids import SystemRng
from tunesmith.store.db import open_database
from tunesmith.store.repo import checkpoints, keys, models
db = open_database(Path(sys.argv[1]))
for number in range(100_000):
    with db.write() as conn:
        keys.create(conn, b"pepper", SystemRng(), name=str(number), now=1)
    print(number, flush=True)
"""


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    open_database(tmp_path).close()
    for _ in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE
        )
        assert writer.stdout is not None
        lines = [writer.stdout.readline() for _ in range(5)]
        time.sleep(0.02)
        os.kill(writer.pid, signal.SIGKILL)
        lines += writer.stdout.readlines()
        writer.wait()
        db = open_database(tmp_path)
        with db.write() as conn:
            stored = {row.name for row in keys.list_all(conn)}
            assert {line.decode().strip() for line in lines if line.endswith(b"\n")} <= stored
            conn.execute(sa.delete(metadata.tables["keys"]))
        db.close()


def test_the_lease_clock_is_shared_and_does_not_jump() -> None:
    one, two = boot_time(), boot_time()
    assert one.epoch == two.epoch
    assert 0 <= two.now_s - one.now_s < 5


@contextmanager
def database_of(revision: str, directory: Path) -> Iterator[sa.Connection]:
    """A database as an older version made it, to be filled."""
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext

    from tunesmith.store.upgrade import scripts

    engine = sa.create_engine(f"sqlite:///{directory / 'tunesmith.db'}")
    with engine.begin() as conn:
        options = {
            "fn": lambda found, _: scripts()._upgrade_revs(revision, found),
            "target_metadata": metadata,
        }
        context = MigrationContext.configure(conn, opts=options)
        with Operations.context(context):
            context.run_migrations()
        yield conn
    engine.dispose()


def test_usage_of_before_service_tiers_is_of_the_default_one(tmp_path: Path) -> None:
    with database_of("0003", tmp_path) as conn:
        conn.exec_driver_sql(
            "INSERT INTO usage VALUES (60, 'p', 'k', '', 'm', 'b', 'completions', 1, 2, 3, 4, 5, "
            "6, 7, 8, 9)"
        )
    db = open_database(tmp_path)
    priority = usage.UsageKey(60, "p", "k", "", "m", "b", "completions", "priority")
    with db.write() as conn:
        usage.add(conn, [(priority, usage.Counts(num_requests=10))])
    with db.read() as conn:
        found = usage.totals(
            conn, kinds=["completions"], start=0, end=99, width=60, group_by=["service_tier"]
        )
    assert [(each.group["service_tier"], each.counts) for each in found] == [
        ("default", usage.Counts(1, 2, 3, 4, 5, 6, 7, 8, 9)),
        ("priority", usage.Counts(num_requests=10)),
    ]
    db.close()


def test_what_the_first_schema_held_is_kept_and_belongs_to_the_default_project(
    tmp_path: Path,
) -> None:
    with database_of("0001", tmp_path) as conn:
        conn.exec_driver_sql(
            "INSERT INTO jobs (id, created_at, status, organization_id, model, model_label, base, "
            "training_file, method, requested, hyperparameters, seed, fence, launch_fence, "
            "attempts, crash_step, events_offset, last_step) VALUES ('j', 1, 'succeeded', 'o', 'b',"
            " 'b', 'b', 'f', 'supervised', '{}', '{}', 1, 1, 1, 0, 0, 0, 0)"
        )
        conn.exec_driver_sql(
            "INSERT INTO models (name, kind, label, base, adapter_sha256, job_id, created_at, "
            "owned_by) VALUES ('ft:b', 'tuned', 'b', 'b', 'abc', 'j', 1, 'o')"
        )
        conn.exec_driver_sql(
            "INSERT INTO checkpoints (id, job_id, step, model_name, adapter_sha256, metrics, "
            "created_at) VALUES ('c', 'j', 1, 'ft:b', 'abc', '{}', 1)"
        )
        conn.exec_driver_sql(
            "INSERT INTO keys (id, name, digest, prefix, last4, created_at) "
            "VALUES ('k', 'first', 'd', 'sk-', 'wxyz', 1)"
        )
        conn.exec_driver_sql("INSERT INTO idempotency VALUES ('once', 'body', 'j', 1)")
    db = open_database(tmp_path)
    with db.read() as conn:
        (row,) = models.of_project(conn, DEFAULT_PROJECT)
        assert (row.name, row.adapter_sha256) == ("ft:b", "abc")
        assert jobs.get(conn, DEFAULT_PROJECT, "j") is not None
        assert idempotency.find(conn, DEFAULT_PROJECT, "once") == ("body", "j")
        (key,) = keys.list_all(conn)
        assert (key.project_id, key.role) == (DEFAULT_PROJECT, "owner")
        assert conn.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
        assert [each.step for each in checkpoints.page(conn, "j").rows] == [1]
    db.close()


def test_the_version_counts_what_anybody_has_committed(tmp_path: Path) -> None:
    db, other = open_database(tmp_path), open_database(tmp_path)
    seen = [db.version(), db.version()]
    for each in (db, other):
        with each.write() as conn:
            keys.create(conn, b"pepper", SystemRng(), name="new", now=1)
        seen += [db.version(), db.version()]
        with each.read() as conn:
            keys.list_all(conn)
        seen.append(db.version())
    assert [seen.count(each) for each in dict.fromkeys(seen)] == [2, 3, 3]
    db.close()
    other.close()


def test_a_version_that_cannot_be_told_is_never_an_old_one(tmp_path: Path) -> None:
    db = open_database(tmp_path)
    assert db.version() == db.version()
    locked = sqlite3.connect(tmp_path / "tunesmith.db", isolation_level=None)
    db.close()
    locked.execute("PRAGMA journal_mode=DELETE")
    locked.execute("BEGIN EXCLUSIVE")
    assert db.version() != db.version()
    locked.execute("ROLLBACK")
    locked.close()
    db.close()
