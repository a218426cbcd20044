"""Answers to the same prompts by a job's start and by its checkpoints, for people to look at."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tunesmith.jobdir.files import read_record, write_record
from tunesmith.jobdir.layout import SAMPLES_FILE
from tunesmith.jobdir.records import RecordError
from tunesmith.jobdir.spec import Param


@dataclass(frozen=True)
class Prompt:
    """A prompt that every checkpoint answers."""

    file: Param
    row: int
    text: str
    """As the model reads it, control tokens included."""
    expected: str
    """The answer in the file."""


@dataclass(frozen=True)
class Answer:
    text: str
    num_tokens: int
    stops: bool
    """False: it was cut off."""


@dataclass(frozen=True)
class Sample:
    """The answers to all prompts at one step; step 0 is the model that the job started from."""

    step: int
    epoch: int
    """That ends there, or is under way."""
    answers: list[Answer]


@dataclass(frozen=True)
class Samples:
    prompts: list[Prompt] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    skipped: bool = False
    """Whether some checkpoints go without, because answering would take too long."""
    first_epoch: int | None = None
    """Checkpoints from its end on answer; None until that is decided."""

    def at(self, step: int) -> bool:
        return any(sample.step == step for sample in self.samples)


def read_samples(job_dir: Path) -> Samples:
    """Empty where none were taken, or none that can be read."""
    try:
        return read_record(Samples, job_dir / SAMPLES_FILE) or Samples()
    except RecordError:
        return Samples()


def write_samples(job_dir: Path, samples: Samples) -> None:
    write_record(samples, job_dir / SAMPLES_FILE)
