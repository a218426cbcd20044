"""Every invariant, broken by hand: the doctor must see it and name a cure."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.unit.cli.conftest import Run
from tunesmith.access import DEFAULT_PROJECT
from tunesmith.ids import SystemRng
from tunesmith.jobdir.files import write_record
from tunesmith.jobdir.layout import PROCESS_FILE
from tunesmith.jobdir.process import Process, start_ticks
from tunesmith.model import adapter_files
from tunesmith.store.blobs import LocalBlobs
from tunesmith.store.db import Database, open_database
from tunesmith.store.repo import checkpoints, events, files, jobs, keys, models
from tunesmith.store.repo.checkpoints import CheckpointRow
from tunesmith.store.repo.events import NewEvent
from tunesmith.store.repo.files import FileRow
from tunesmith.store.repo.jobs import JobRow
from tunesmith.store.repo.models import ModelRow
from tunesmith.store.tables import events as events_table

JOB, FILE, NAME = "ftjob-000000000000000000000001", "file-000000000000000000000001", "ft:b:o::x"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory with one file and one job that has succeeded."""
    db = open_database(tmp_path)
    keys.load_pepper(tmp_path)
    writer = LocalBlobs(tmp_path / "blobs").writer(FILE)
    writer.write(b"{}\n")
    num_bytes, sha256 = writer.finish()
    adapter = tmp_path / "adapters" / "new"
    adapter.mkdir(parents=True)
    for name in adapter_files.FILES:
        (adapter / name).write_bytes(name.encode())
    digest = adapter_files.content_hash(adapter)
    adapter.rename(adapter.with_name(digest))
    with db.write() as conn:
        files.insert(
            conn, FileRow(FILE, DEFAULT_PROJECT, "train.jsonl", num_bytes, "fine-tune", sha256, 1)
        )
        jobs.insert(conn, JobRow(
            JOB, DEFAULT_PROJECT, 1, "succeeded", "o", "b", "b", "b", FILE, 1, {}, {},
            finished_at=2, trained_tokens=3, fine_tuned_model=NAME, fence=2,
            last_step=2, total_steps=2,
        ))  # fmt: skip
        steps = [NewEvent(f"step:{n}", "", 1, type="metrics", data={"step": n}) for n in (1, 2)]
        events.append(conn, SystemRng(), JOB, [NewEvent("start", "", 1), *steps])
        checkpoints.insert(conn, CheckpointRow("ftckpt_1", JOB, 2, NAME, {}, 2))
        models.insert(conn, ModelRow(NAME, DEFAULT_PROJECT, "tuned", "b", "b", digest, JOB, 2, "o"))
    db.close()
    return tmp_path


def test_nothing_is_wrong_with_a_sound_directory(run: Run, data: Path) -> None:
    result = run("doctor", "--data", data)
    assert result.exit_code == 0, result.output
    assert "Nothing is broken." in result.output and "error" not in result.output


def test_a_directory_that_is_not_there_yet(run: Run, tmp_path: Path) -> None:
    result = run("doctor", "--data", tmp_path / "none")
    assert result.exit_code == 0 and "not there yet" in result.output


def adapter_of(data: Path) -> Path:
    return next((data / "adapters").iterdir())


def sql(statement: str) -> Callable[[Path], None]:
    def run_statement(data: Path) -> None:
        db: Database = open_database(data)
        with db.write() as conn:
            conn.execute(sa.text(statement))
        db.close()

    return run_statement


def live_trainer_of_an_old_fence(data: Path) -> None:
    job_dir = data / "jobs" / JOB
    job_dir.mkdir(parents=True)
    ticks = start_ticks(os.getpid())
    assert ticks is not None
    write_record(Process(os.getpid(), ticks, 1, "train"), job_dir / PROCESS_FILE)


def old_orphan(data: Path) -> None:
    writer = LocalBlobs(data / "blobs").writer("file-000000000000000000000002")
    writer.finish()
    os.utime(LocalBlobs(data / "blobs").path("file-000000000000000000000002"), (1, 1))


def old_part(data: Path) -> None:
    part = LocalBlobs(data / "blobs").path(FILE).with_name("file-x.part")
    part.touch()
    os.utime(part, (1, 1))


def garbled_database(data: Path) -> None:
    for name in ("tunesmith.db-wal", "tunesmith.db-shm"):
        (data / name).unlink(missing_ok=True)
    (data / "tunesmith.db").write_bytes(b"no database" * 1000)


ERRORS: dict[str, tuple[Callable[[Path], None], str]] = {
    "I2 lease": (sql("UPDATE jobs SET lease_owner = 'w'"), "has ended but is still held"),
    "I2 end": (sql("UPDATE jobs SET status = 'running'"), "but has not ended"),
    "I3 model": (sql("UPDATE jobs SET fine_tuned_model = NULL"), "lacks its model"),
    "I3 state": (sql("UPDATE jobs SET status = 'failed'"), "its job has not succeeded"),
    "I3 missing": (lambda data: (adapter_of(data) / adapter_files.WEIGHTS).unlink(), "are missing"),
    "I3 bytes": (
        lambda data: (adapter_of(data) / adapter_files.WEIGHTS).write_bytes(b"x"),
        "not those that were trained",
    ),
    "I4 missing": (lambda data: LocalBlobs(data / "blobs").path(FILE).unlink(), "is missing"),
    "I4 bytes": (
        lambda data: LocalBlobs(data / "blobs").path(FILE).write_bytes(b"[]\n") and None,
        "not what was uploaded",
    ),
    "I5 gap": (sql("DELETE FROM events WHERE seq = 2"), "have gaps"),
    "I5 double": (
        sql(f"UPDATE {events_table.name} SET data = '{{\"step\": 1}}' WHERE seq = 3"),
        "reported twice",
    ),
    "pepper": (lambda data: (data / "pepper").chmod(0o644), "can be read by others"),
    "database": (garbled_database, "database file"),
}
WARNINGS = {
    "I1": (live_trainer_of_an_old_fence, "still runs"),
    "I7 blob": (old_orphan, "1 blobs belong to no file"),
    "I7 part": (old_part, "1 uploads were broken off"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_a_broken_invariant_is_an_error(name: str, run: Run, data: Path) -> None:
    breaks, says = ERRORS[name]
    breaks(data)
    result = run("doctor", "--data", data)
    assert result.exit_code == 1 and says in result.output and "to mend." in result.output


@pytest.mark.parametrize("name", WARNINGS)
def test_left_overs_are_warnings(name: str, run: Run, data: Path) -> None:
    breaks, says = WARNINGS[name]
    breaks(data)
    result = run("doctor", "--data", data)
    assert result.exit_code == 0 and says in result.output and "warning" in result.output
