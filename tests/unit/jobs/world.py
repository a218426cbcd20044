"""A worker's surroundings for tests: the real store in a directory, and processes made of files."""

from __future__ import annotations

import hashlib
import itertools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.callers import OWNER
from tunesmith.access import DEFAULT_PROJECT
from tunesmith.bases import BaseInfo
from tunesmith.config import Settings
from tunesmith.ids import FILE, SystemRng, new_id
from tunesmith.jobdir.events import EventLine
from tunesmith.jobdir.files import write_record as write
from tunesmith.jobdir.layout import EVENTS_FILE, PROCESS_FILE, RESULT_FILE, VALIDATION_FILE
from tunesmith.jobdir.outcome import CheckpointEntry, Result, Status, Validation
from tunesmith.jobdir.process import Phase, Process
from tunesmith.jobdir.records import to_json
from tunesmith.jobdir.spec import read_spec
from tunesmith.jobs.commands import cancel_job, create_job
from tunesmith.jobs.context import Context
from tunesmith.jobs.executor import Handle
from tunesmith.jobs.request import NewJob
from tunesmith.jobs.supervisor import Supervisor
from tunesmith.model.adapter_files import CONFIG, WEIGHTS
from tunesmith.store.blobs import LocalBlobs
from tunesmith.store.db import Database, LeaseTime, open_database
from tunesmith.store.repo import bases, events, files, jobs
from tunesmith.store.repo.events import EventRow
from tunesmith.store.repo.files import FileRow
from tunesmith.store.repo.jobs import JobRow

BASE = "tiny"


class FakeClock:
    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.value = now

    def now(self) -> float:
        return self.value


@dataclass
class Ticking:
    """A lease clock that stands still until told otherwise."""

    now_s: float = 100.0
    epoch: str = "boot-1"

    def __call__(self) -> LeaseTime:
        return LeaseTime(self.epoch, self.now_s)


@dataclass
class FakeProcess:
    """What a trainer would have done so far; the test moves it along."""

    phase: Phase
    job_dir: Path
    fence: int
    alive: bool = True
    step: int = 0


@dataclass
class FakeExecutor:
    """Processes that survive it, as real ones do: share `processes` to replace a worker."""

    processes: dict[int, FakeProcess] = field(default_factory=dict)
    is_ready: bool = True
    pids: Any = field(default_factory=lambda: itertools.count(1))

    def ready(self) -> bool:
        return self.is_ready

    def launch(self, phase: Phase, job_dir: Path) -> Handle:
        handle = Handle(next(self.pids), 7)
        fence = read_spec(job_dir).fence
        self.processes[handle.pid] = FakeProcess(phase, job_dir, fence)
        write(Process(handle.pid, 7, fence, phase), job_dir / PROCESS_FILE)
        return handle

    def poll(self, handle: Handle) -> bool:
        return self.processes[handle.pid].alive

    def cancel(self, handle: Handle, *, force: bool) -> None:
        process = self.processes[handle.pid]
        if force:
            process.alive = False
        elif process.alive:
            end(process, "interrupted")

    def adopt(self, phase: Phase, job_dir: Path, min_fence: int) -> Handle | None:
        for pid, process in self.processes.items():
            if process.alive and process.job_dir == job_dir and process.phase == phase:
                return Handle(pid, 7) if process.fence >= min_fence else None
        return None

    def close(self) -> None:
        pass

    def live(self) -> list[FakeProcess]:
        return [process for process in self.processes.values() if process.alive]


def make_database(data_dir: Path, ticking: Ticking) -> Database:
    db = open_database(data_dir)
    db.lease_clock = ticking
    return db


class World:
    """A data directory with a base and a training file, and workers on it."""

    def __init__(self, data_dir: Path, **settings: Any) -> None:
        self.settings = Settings(data=data_dir, **settings)
        self.clock = FakeClock()
        self.ticking = Ticking()
        self.rng = SystemRng()
        self.db = make_database(data_dir, self.ticking)
        self.blobs = LocalBlobs(self.settings.blobs_dir)
        self.executor = FakeExecutor()
        self.context = Context(self.db, self.blobs, self.settings, self.clock, self.rng)
        with self.db.write() as conn:
            bases.insert(conn, base_info(BASE))
        self.file_id = self.add_file()

    def supervisor(self) -> Supervisor:
        return Supervisor(self.context, self.executor)

    def add_file(self, purpose: str = files.FINE_TUNE, content: bytes = b"{}\n") -> str:
        file_id = new_id(FILE, self.rng)
        writer = self.blobs.writer(file_id)
        writer.write(content)
        num_bytes, sha256 = writer.finish()
        with self.db.write() as conn:
            row = FileRow(file_id, DEFAULT_PROJECT, "rows.jsonl", num_bytes, purpose, sha256, 1)
            files.insert(conn, row)
        return file_id

    def create(self, idempotency_key: str | None = None, **fields: Any) -> JobRow:
        request = NewJob(**{"model": BASE, "training_file": self.file_id, **fields})
        return create_job(
            self.db, self.clock, self.rng, self.settings, OWNER, request, idempotency_key
        )

    def cancel(self, job_id: str) -> JobRow:
        return cancel_job(self.db, self.clock, OWNER, job_id)

    def job(self, job_id: str) -> JobRow:
        with self.db.read() as conn:
            found = jobs.get_any(conn, job_id)
        assert found is not None
        return found

    def events(self, job_id: str) -> list[EventRow]:
        with self.db.read() as conn:
            return events.after_seq(conn, job_id)

    def messages(self, job_id: str) -> list[str]:
        return [event.message for event in self.events(job_id)]

    def only_process(self) -> FakeProcess:
        (process,) = self.executor.live()
        return process


def base_info(name: str, path: Path = Path("/nowhere")) -> BaseInfo:
    return BaseInfo(
        name=name,
        path=path,
        family="llama",
        slow=False,
        context_length=512,
        hidden_size=64,
        num_parameters=1000,
        vocab_size=512,
        fingerprint="f" * 64,
        preserves_history=True,
        has_tools=True,
        created_at=1,
    )


def validate(process: FakeProcess, total_steps: int = 5, **fields: Any) -> None:
    """The validator finds good files."""
    found = Validation(
        fence=process.fence,
        ok=fields.get("error") is None,
        num_examples=total_steps,
        num_tokens=100,
        hyperparameters={
            "n_epochs": 1,
            "batch_size": 1,
            "learning_rate_multiplier": 1.0,
            "lora_rank": 16,
        },
        total_steps=total_steps,
        **fields,
    )
    write(found, process.job_dir / VALIDATION_FILE)
    process.alive = False


def steps(process: FakeProcess, num_steps: int, total_steps: int = 5) -> None:
    """The trainer does some more steps and writes their events."""
    with (process.job_dir / EVENTS_FILE).open("ab") as log:
        for _ in range(num_steps):
            process.step += 1
            data = {"step": process.step, "total_steps": total_steps, "train_loss": 0.5}
            line = EventLine(
                f"step:{process.step}", "Step", 1_800_000_000, type="metrics", data=data
            )
            log.write(to_json(line) + b"\n")


def checkpoint(process: FakeProcess, epoch: int | None = None) -> CheckpointEntry:
    """The trainer writes a checkpoint of its present step."""
    name = f"checkpoints/step-{process.step:08d}"
    directory = process.job_dir / name
    directory.mkdir(parents=True, exist_ok=True)
    (directory / CONFIG).write_text(
        json.dumps({"peft_type": "LORA", "target_modules": [], "r": 4, "lora_alpha": 8})
    )
    (directory / WEIGHTS).write_bytes(f"weights of {directory}".encode())
    sha256 = hashlib.sha256((directory / WEIGHTS).read_bytes()).hexdigest()
    metrics = {"train_loss": 0.5}
    return CheckpointEntry(process.step, epoch, Path(name), sha256, metrics)


def end(process: FakeProcess, status: Status, total_steps: int = 5, **fields: Any) -> None:
    """The trainer writes its result and exits."""
    if "checkpoints" not in fields:
        fields["checkpoints"] = [checkpoint(process)] if process.step else []
    result = Result(
        fence=process.fence,
        status=status,
        step=process.step,
        total_steps=total_steps,
        trained_tokens=100 * process.step,
        **fields,
    )
    write(result, process.job_dir / RESULT_FILE)
    process.alive = False
