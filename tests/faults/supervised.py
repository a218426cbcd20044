"""A worker as its own process, with real trainers on a tiny base, for tests that kill them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.callers import OWNER
from tests.tiny_base import write_tiny_base
from tunesmith.access import DEFAULT_PROJECT
from tunesmith.bases import describe
from tunesmith.config import Settings
from tunesmith.ids import FILE, SystemClock, SystemRng, new_id
from tunesmith.jobdir.files import read_record
from tunesmith.jobdir.layout import PROCESS_FILE
from tunesmith.jobdir.process import Process, is_alive
from tunesmith.jobs.commands import create_job
from tunesmith.jobs.request import NewJob
from tunesmith.jobs.states import TERMINAL
from tunesmith.store.blobs import LocalBlobs
from tunesmith.store.db import open_database
from tunesmith.store.repo import bases, events, files, jobs
from tunesmith.store.repo.events import EventRow
from tunesmith.store.repo.files import FileRow
from tunesmith.store.repo.jobs import JobRow

ROWS = [
    {
        "messages": [
            {"role": "user", "content": f"say {word}"},
            {"role": "assistant", "content": word},
        ]
    }
    for word in "one two three four five six seven eight nine ten".split()
]


class Workplace:
    """A data directory with a base and ten rows, and at most one worker process on it."""

    def __init__(self, data_dir: Path) -> None:
        base = write_tiny_base(data_dir / "base")
        self.settings = Settings(data=data_dir, train_threads=1, save_every_s=0.2, lease_s=3)
        self.db = open_database(data_dir)
        self.rng = SystemRng()
        self.clock = SystemClock()
        with self.db.write() as conn:
            bases.insert(conn, describe(base, "tiny", self.clock))
        self.file_id = self._add_rows()
        self._log = (data_dir / "worker.log").open("ab")
        self.worker: subprocess.Popen[bytes] | None = None

    def _add_rows(self) -> str:
        file_id = new_id(FILE, self.rng)
        writer = LocalBlobs(self.settings.blobs_dir).writer(file_id)
        writer.write("".join(json.dumps(row) + "\n" for row in ROWS).encode())
        num_bytes, sha256 = writer.finish()
        with self.db.write() as conn:
            row = FileRow(file_id, DEFAULT_PROJECT, "rows.jsonl", num_bytes, "fine-tune", sha256, 1)
            files.insert(conn, row)
        return file_id

    def start_worker(self) -> None:
        settings = self.settings
        environment = os.environ | {
            "TUNESMITH_TRAIN_THREADS": str(settings.train_threads),
            "TUNESMITH_SAVE_EVERY_S": str(settings.save_every_s),
            "TUNESMITH_LEASE_S": str(settings.lease_s),
        }
        command = [sys.executable, "-m", "tunesmith.jobs", "--data", str(settings.data_dir)]
        self.worker = subprocess.Popen(command, env=environment, stderr=self._log)

    def kill_worker(self) -> None:
        assert self.worker is not None
        self.worker.kill()
        self.worker.wait()
        self.worker = None

    def stop_worker(self, timeout_s: float = 40) -> int:
        """SIGTERM, as a shutdown does; its exit status."""
        assert self.worker is not None
        self.worker.terminate()
        status = self.worker.wait(timeout_s)
        self.worker = None
        return status

    def create(self, **fields: Any) -> JobRow:
        request = NewJob(model="tiny", training_file=self.file_id, seed=1, **fields)
        return create_job(self.db, self.clock, self.rng, self.settings, OWNER, request)

    def job(self, job_id: str) -> JobRow:
        with self.db.read() as conn:
            job = jobs.get_any(conn, job_id)
        assert job is not None
        return job

    def events(self, job_id: str) -> list[EventRow]:
        with self.db.read() as conn:
            return events.after_seq(conn, job_id)

    def process(self, job_id: str, phase: str = "train") -> Process | None:
        """The live process of a job."""
        found = read_record(Process, self.settings.jobs_dir / job_id / PROCESS_FILE)
        if found is None or found.phase != phase or not is_alive(found):
            return None
        return found

    def wait_for(
        self, job_id: str, until: Callable[[JobRow], bool], timeout_s: float = 60
    ) -> JobRow:
        """Polls; a job that ended otherwise, or time that is up, fails the test readably."""
        deadline = time.monotonic() + timeout_s
        while True:
            job = self.job(job_id)
            if until(job):
                return job
            ended = job.status in TERMINAL
            if ended or time.monotonic() > deadline:
                log = (self.settings.data_dir / "worker.log").read_text()[-3000:]
                raise AssertionError(f"{job}\n{log}")
            time.sleep(0.02)

    def close(self) -> None:
        if self.worker is not None:
            self.kill_worker()
        for directory in self.settings.jobs_dir.glob("*"):
            for phase in ("validate", "train"):
                process = self.process(directory.name, phase)
                if process is not None:
                    os.kill(process.pid, signal.SIGKILL)
        self.db.close()
        self._log.close()
