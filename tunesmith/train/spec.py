"""The contract between the trainer and whoever runs it: files in the job's directory.

The launcher writes `spec.json` and, to interrupt, `control`. The process writes everything else
and never reads a database. Every file but the event log is replaced whole (temporary file, fsync,
rename, fsync of the directory), so a reader sees the old text or the new one.

    spec.json         in: what to do. A relaunch replaces it, with a higher fence
    control           in: "pause" or "cancel", looked at once a step; SIGTERM means "interrupt"
    process.json      who works on it now
    validation.json   what the validate phase found
    moderation.jsonl  the rows that its moderator flagged, one a line (see screening.py)
    plan.json         what the first start of the train phase decided; a resume obeys it
    reference-*.safetensors  what the start makes of preferences (see preference.py)
    rows.npy, samples.json   for people to look at (see insight.py)
    events.jsonl      one event a line, appended; keys make re-emission after a crash harmless
    checkpoints/      step-00000012/ with a manifest (see checkpoint.py)
    result.json       the end of the train phase
    trainer.log       standard output and error

This module imports no torch: the supervisor reads and writes the same files.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from tunesmith.data.estimate import Method
from tunesmith.train.records import RecordError, from_json, to_json

SCHEMA = 1

SPEC_FILE = "spec.json"
CONTROL_FILE = "control"
PROCESS_FILE = "process.json"
VALIDATION_FILE = "validation.json"
PLAN_FILE = "plan.json"
EVENTS_FILE = "events.jsonl"
CHECKPOINTS_DIR = "checkpoints"
RESULT_FILE = "result.json"
LOG_FILE = "trainer.log"

# How much of the event log one call of read_events returns at most, bytes.
EVENTS_CHUNK = 4 << 20
# Field 22 of /proc/<pid>/stat, counted from the third.
START_FIELD = 19

Phase = Literal["validate", "train"]
Control = Literal["pause", "cancel"]
Status = Literal["succeeded", "failed", "paused", "cancelled", "interrupted"]
Level = Literal["info", "warn", "error"]
EventType = Literal["message", "metrics"]


@dataclass(frozen=True)
class BaseRef:
    name: str
    """As written into the adapter's configuration."""
    path: Path


@dataclass(frozen=True)
class FileRef:
    id: str
    path: Path


@dataclass(frozen=True)
class Moderation:
    """Who judges the rows, as the settings say it; the key of an endpoint is not in any file."""

    kind: Literal["embedded", "chat", "guard"]
    fail_share: float
    """Of the rows of a file: with more flagged ones the job fails."""
    url: str | None = None
    model: str | None = None


@dataclass(frozen=True)
class Spec:
    job_id: str
    fence: int
    """Grows with every launch; a trainer that finds a higher one in the file stops writing."""
    base: BaseRef
    training_file: FileRef
    seed: int
    validation_file: FileRef | None = None
    start_adapter: Path | None = None
    """Continue this adapter (its shape stays) instead of starting a fresh one."""
    method: Method = "supervised"
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    """As requested: "auto" or numbers; see data/estimate.py."""
    keep_checkpoints: int = 3
    """How many of the last epochs stay servable."""
    save_every_s: float = 30.0
    threads: int = 0
    """CPU threads; 0 = all the process may use."""
    processes: int = 1
    """That train the job together, on this machine; torchrun's number goes before it."""
    max_tokens: int | None = None
    """Longest example; None = the context of the base."""
    max_line_bytes: int | None = None
    """Longest line of a data file; None = the default of data/formats.py."""
    device: str = "auto"
    """auto, cpu or cuda."""
    moderation: Moderation | None = None
    """None: nobody judges the rows."""
    schema: int = SCHEMA


@dataclass(frozen=True)
class Failure:
    """Why a phase did not succeed, as the job object shows it."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None


@dataclass(frozen=True)
class FlaggedRow:
    """A row that the moderator flagged: a line of moderation.jsonl."""

    file: Literal["training_file", "validation_file"]
    row: int
    line: int
    scores: dict[str, float]
    """Of the categories it is flagged for."""


@dataclass(frozen=True)
class Screened:
    """What the moderator found."""

    model: str
    num_rows: int
    num_flagged: int
    categories: dict[str, int]
    """Rows by category."""
    first: list[FlaggedRow] = field(default_factory=list)


@dataclass(frozen=True)
class Validation:
    """What the validate phase found; with an error the numbers are what was known by then."""

    fence: int
    ok: bool
    error: Failure | None = None
    num_examples: int = 0
    num_tokens: int = 0
    """Tokens of the training file, once over: what one epoch costs."""
    num_valid_examples: int = 0
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    """Resolved: no "auto" left."""
    total_steps: int = 0
    warnings: list[str] = field(default_factory=list)
    screened: Screened | None = None
    schema: int = SCHEMA


@dataclass(frozen=True)
class CheckpointEntry:
    """A servable checkpoint with its metrics: an adapter in the PEFT format, or a whole model."""

    step: int
    epoch: int | None
    """Counted from 1 where an epoch ends here; None for one made by a pause."""
    path: Path
    """Relative to the job's directory."""
    sha256: str
    """Of adapter_model.safetensors; of a whole model, of the list of its files (listing.py)."""
    metrics: dict[str, float] = field(default_factory=dict)
    form: Literal["adapter", "model"] = "adapter"


@dataclass(frozen=True)
class Result:
    fence: int
    status: Status
    step: int
    total_steps: int
    trained_tokens: int
    """Tokens of the training examples seen by all steps of the final lineage."""
    checkpoints: list[CheckpointEntry] = field(default_factory=list)
    """By step; for a job that succeeded the last one is the final model."""
    error: Failure | None = None
    took: dict[str, float] = field(default_factory=dict)
    """Seconds and bytes of a job that succeeded, beside what was expected (forecast.py)."""
    schema: int = SCHEMA


@dataclass(frozen=True)
class EventLine:
    key: str
    """Unique within the job: "start", "plan", "step:12", "warn:dtype"."""
    message: str
    created_at: int
    """Seconds since 1970."""
    type: EventType = "message"
    level: Level = "info"
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Process:
    pid: int
    start_ticks: int
    """Field 22 of /proc/<pid>/stat: with the pid it names a process for good."""
    fence: int
    phase: Phase


Record = TypeVar("Record")


def read(kind: type[Record], path: Path) -> Record | None:
    """The record in a file, or None where there is no file. Raises RecordError."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    return from_json(kind, text)


def write(record: Any, path: Path) -> None:
    """Replaces a file by the record, atomically and durably."""
    write_atomic(path, to_json(record) + b"\n")


def read_spec(job_dir: Path) -> Spec:
    """Raises RecordError where it is missing, broken or of another version."""
    spec = read(Spec, job_dir / SPEC_FILE)
    if spec is None:
        raise RecordError(f"There is no {SPEC_FILE} in {job_dir}.")
    if spec.schema != SCHEMA:
        raise RecordError(f"{SPEC_FILE} has schema {spec.schema}; this trainer reads {SCHEMA}.")
    return spec


def read_control(job_dir: Path) -> Control | None:
    """What the launcher asks for; an unknown word counts as nothing."""
    try:
        word = (job_dir / CONTROL_FILE).read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        return None
    if word == "pause":
        return "pause"
    return "cancel" if word == "cancel" else None


def write_control(job_dir: Path, word: Control) -> None:
    write_atomic(job_dir / CONTROL_FILE, word.encode())


def read_events(path: Path, offset: int) -> tuple[list[EventLine], int]:
    """The complete lines from a byte offset on, and the offset to go on from.

    At most about EVENTS_CHUNK bytes a call: ask again until the offset stays. An offset that is no
    longer the start of a line (the log lost its tail to a power cut) starts over from 0; the keys
    make that harmless. Raises RecordError for a line that is no event.
    """
    try:
        log = path.open("rb")
    except FileNotFoundError:
        return [], 0
    with log:
        if offset > 0:
            log.seek(offset - 1)
            if log.read(1) != b"\n":
                offset = 0
        log.seek(offset)
        chunk = log.read(EVENTS_CHUNK)
        end = chunk.rfind(b"\n") + 1
        if end == 0 and len(chunk) == EVENTS_CHUNK:
            raise RecordError(f"{path.name}: a line is longer than {EVENTS_CHUNK} bytes.")
    lines = chunk[:end].split(b"\n")[:-1]
    return [from_json(EventLine, line) for line in lines], offset + end


def write_atomic(path: Path, content: bytes) -> None:
    """Either the old content or the new one, also after a power cut.

    One writer at a time: two writers of one file need different process ids.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    fsync_dir(path.parent)


def fsync_dir(directory: Path) -> None:
    """Makes renames and creations in a directory durable."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def stat_fields(pid: int) -> list[str] | None:
    """/proc/<pid>/stat from its third field (the state) on; None if there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field, in parentheses, may itself hold spaces and parentheses.
    return stat.rpartition(")")[2].split()


def start_ticks(pid: int) -> int | None:
    """When a live process started, in clock ticks since boot; None if it is gone or a zombie."""
    fields = stat_fields(pid)
    return None if fields is None or fields[0] in "ZX" else int(fields[START_FIELD])


def is_alive(process: Process) -> bool:
    """Whether that very process still runs: a reused pid does not count."""
    return start_ticks(process.pid) == process.start_ticks
