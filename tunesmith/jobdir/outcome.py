"""How a phase ended: what the check found, what the training left."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tunesmith.errors import BaseModelError, DataError, JobError, TunesmithError
from tunesmith.jobdir.flags import FlaggedRow
from tunesmith.jobdir.layout import SCHEMA

Status = Literal["succeeded", "failed", "paused", "cancelled", "interrupted"]


@dataclass(frozen=True)
class Failure:
    """Why a phase did not succeed, as the job object shows it."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None

    @classmethod
    def of(cls, error: TunesmithError) -> Failure:
        """An error that no retry would change."""
        if isinstance(error, DataError):
            return cls(error.code, error.message, error.param, error.line)
        if isinstance(error, JobError):
            return cls(error.code, error.message, error.param)
        code = "invalid_base_model" if isinstance(error, BaseModelError) else "invalid_adapter"
        return cls(code, error.message, "model")


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
