"""The texts of a job's events, word for word as the published service writes them where it has
one (scripts search for them).

The key makes an event happen once per job, however often it is written; what may happen several
times to a job takes a `tag` to tell the times apart. All start with "job:", which keeps them apart
from those of the trainer.
"""

from __future__ import annotations

from dataclasses import asdict

from tunesmith.jobdir.outcome import Screened
from tunesmith.store.repo.events import NewEvent
from tunesmith.store.repo.trackers import TrackerRow

TRACKERS = {"wandb": "Weights & Biases", "mlflow": "MLflow", "tensorboard": "TensorBoard"}


def created(job_id: str, now: int) -> NewEvent:
    return NewEvent("job:created", f"Created fine-tuning job: {job_id}", now)


def validating(training_file: str, validation_file: str | None, now: int) -> NewEvent:
    text = f"Validating training file: {training_file}"
    if validation_file is not None:
        text += f" and validation file: {validation_file}"
    return NewEvent("job:validating", text, now)


def no_mail_server(now: int) -> NewEvent:
    text = (
        "No e-mail will be sent at the end of this job: this server has no mail server to send "
        "with (its operator can name one, TUNESMITH_SMTP_URL)"
    )
    return NewEvent("job:email", text, now, level="warn")


def tracked(tracker: TrackerRow, url: str, now: int) -> NewEvent:
    text = f"The metrics of this job are passed on to {TRACKERS[tracker.kind]}: {url}"
    return NewEvent(f"job:tracker:{tracker.number}:opened", text, now)


def not_tracked(tracker: TrackerRow, cause: str, given_up: bool, now: int) -> NewEvent:
    """The job itself is not touched by it."""
    name = TRACKERS[tracker.kind]
    end = "It is not tried again" if given_up else "It is tried again"
    text = f"The metrics of this job were not passed on to {name}: {cause.rstrip('.')}. {end}"
    key = f"job:tracker:{tracker.number}:{'failed' if given_up else 'trouble'}"
    return NewEvent(key, text, now, level="warn")


def validated(now: int) -> NewEvent:
    return NewEvent("job:validated", "Files validated, moving job to queued state", now)


def validation_warning(number: int, text: str, now: int) -> NewEvent:
    return NewEvent(f"job:warning:{number}", text, now, level="warn")


def moderated(job_id: str, found: Screened, now: int) -> NewEvent:
    categories = ", ".join(f"{name} {num}" for name, num in found.categories.items())
    text = (
        f"Moderation flagged {found.num_flagged} of {found.num_rows} examples ({categories}); "
        f"/v1/tunesmith/jobs/{job_id}/moderation lists them"
    )
    return NewEvent("job:moderated", text, now, level="warn", data={"moderation": asdict(found)})


def started(now: int) -> NewEvent:
    return NewEvent("job:started", "Fine-tuning job started", now)


def checkpoint(step: int, model_name: str, now: int) -> NewEvent:
    text = f"Checkpoint created at step {step} with Snapshot ID: {model_name}"
    return NewEvent(f"job:checkpoint:{step}", text, now)


def model_created(model_name: str, now: int) -> NewEvent:
    return NewEvent("job:model", f"New fine-tuned model created: {model_name}", now)


def succeeded(now: int) -> NewEvent:
    return NewEvent("job:succeeded", "The job has successfully completed", now)


def failed(message: str, now: int) -> NewEvent:
    return NewEvent("job:failed", message, now, level="error")


def cancelled(now: int) -> NewEvent:
    return NewEvent("job:cancelled", "The job has been cancelled", now)


def paused(tag: str, now: int) -> NewEvent:
    return NewEvent(f"job:paused:{tag}", "The job has been paused", now)


def resumed(tag: str, now: int) -> NewEvent:
    return NewEvent(f"job:resumed:{tag}", "The job has been resumed", now)


def interrupted(tag: str, now: int) -> NewEvent:
    text = "Training was interrupted by a shutdown; it continues from its checkpoint"
    return NewEvent(f"job:interrupted:{tag}", text, now)


def crashed(fence: int, cause: str, attempt: int, max_attempts: int, now: int) -> NewEvent:
    text = (
        f"The process working on the job ended unexpectedly ({cause}). Starting it again from "
        f"the newest checkpoint (failure {attempt} of at most {max_attempts} without progress)"
    )
    return NewEvent(f"job:crashed:{fence}", text, now, level="warn")


def stalled(step: int, silent_s: float, now: int) -> NewEvent:
    text = f"No step has been completed for {silent_s / 60:.0f} minutes; the process is alive"
    return NewEvent(f"job:stalled:{step}", text, now, level="warn")
