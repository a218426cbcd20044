"""The e-mail at the end of a job: what became of it, and what to do next."""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.store.repo.jobs import JobRow


@dataclass(frozen=True)
class Letter:
    subject: str
    text: str


def letter(job: JobRow, event_type: str) -> Letter:
    status = event_type.rpartition(".")[2]
    # A suffix is any text; a header must not be ended by it.
    name = "".join(char for char in job.suffix or "" if char.isprintable()) or job.id
    body = {"succeeded": _succeeded, "failed": _failed, "cancelled": _cancelled}[status](job)
    return Letter(f"Fine-tuning {name}: {status}", "\n".join([*body, "", *_facts(job)]) + "\n")


def _succeeded(job: JobRow) -> list[str]:
    return [
        f"The fine-tuning job {job.id} has succeeded. Its model answers now:",
        "",
        f"    {job.fine_tuned_model}",
        "",
        "Try it:",
        "",
        f'    tunesmith chat "{job.fine_tuned_model}"',
    ]


def _failed(job: JobRow) -> list[str]:
    error = job.error or {}
    lines = [f"The fine-tuning job {job.id} has failed:", "", f"    {error.get('message', '')}"]
    if error.get("code"):
        lines.append(f"    ({error['code']})")
    return [*lines, "", "All that happened:", "", f"    tunesmith jobs show {job.id}"]


def _cancelled(job: JobRow) -> list[str]:
    return [
        f"The fine-tuning job {job.id} was cancelled after step {job.last_step}.",
        "Checkpoints that it made so far can be used:",
        "",
        f"    tunesmith jobs show {job.id}",
    ]


def _facts(job: JobRow) -> list[str]:
    facts: list[tuple[str, object]] = [
        ("Job", job.id),
        ("Project", job.project_id),
        ("Model", job.model),
        ("Training file", job.training_file),
        ("Steps", job.last_step),
        ("Trained tokens", job.trained_tokens or 0),
    ]
    if job.finished_at is not None:
        facts.append(("Minutes", round((job.finished_at - job.created_at) / 60, 1)))
    return [f"{name + ':':<16}{value}" for name, value in facts]
