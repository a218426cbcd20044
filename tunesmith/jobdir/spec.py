"""What a job is to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tunesmith.data.estimate import Method
from tunesmith.jobdir.files import read_record
from tunesmith.jobdir.layout import SCHEMA, SPEC_FILE
from tunesmith.jobdir.records import RecordError

Param = Literal["training_file", "validation_file"]


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


def read_spec(job_dir: Path) -> Spec:
    """Raises RecordError where it is missing, broken or of another version."""
    spec = read_record(Spec, job_dir / SPEC_FILE)
    if spec is None:
        raise RecordError(f"There is no {SPEC_FILE} in {job_dir}.")
    if spec.schema != SCHEMA:
        raise RecordError(f"{SPEC_FILE} has schema {spec.schema}; this trainer reads {SCHEMA}.")
    return spec
