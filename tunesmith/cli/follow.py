"""A job, live: its messages as they come, and a bar with loss, token accuracy and the time left."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING, Any

from tunesmith.cli.problem import CommandFailed
from tunesmith.cli.screen import say
from tunesmith.cli.wakeups import Wait, wakeups

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent
    from rich.console import Console
    from rich.progress import Progress

POLL_S = 0.5
OUTAGE_S = 60.0  # a restarting server is waited for this long
PLAIN_EVERY_S = 5.0  # without a terminal: one line of metrics in this time
ENDED = frozenset({"succeeded", "failed", "cancelled", "paused"})


@dataclass
class Feed:
    """A job's events, each given once, oldest first."""

    client: OpenAI
    job_id: str
    seen: set[str] = field(default_factory=set)

    def new_events(self) -> list[FineTuningJobEvent]:
        fresh = []
        for event in self.client.fine_tuning.jobs.list_events(self.job_id, limit=100):
            if event.id in self.seen:
                break
            fresh.append(event)
        self.seen.update(event.id for event in fresh)
        return fresh[::-1]

    def look(self) -> tuple[FineTuningJob, list[FineTuningJobEvent]]:
        """The job, and what happened since the last look; a job that has ended has all events."""
        job = self.client.fine_tuning.jobs.retrieve(self.job_id)
        return job, self.new_events()


def follow(client: OpenAI, job_id: str, console: Console) -> FineTuningJob:
    """Shows a job until it ends or pauses, and returns it as it then is."""
    feed = Feed(client, job_id)
    with interruptible_waits() as wait, job_progress(console) as progress:
        show = Shower(progress)
        while True:
            job, events = look_patiently(feed, wait)
            show.update(job, events)
            if job.status in ENDED:
                return job
            wait(POLL_S)


@contextmanager
def interruptible_waits() -> Iterator[Wait]:
    """Gives `wait(seconds)`, where alone a first Ctrl-C raises KeyboardInterrupt.

    Raised anywhere, it can leave the bar's or the connection pool's lock taken for ever.
    """
    interrupted = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        if interrupted:
            raise KeyboardInterrupt
        interrupted = True

    with wakeups(note, (signal.SIGINT,)) as sleep:

        def wait(seconds: float) -> None:
            sleep(seconds)
            if interrupted:
                raise KeyboardInterrupt

        yield wait


def look_patiently(feed: Feed, wait: Wait) -> tuple[FineTuningJob, list[FineTuningJobEvent]]:
    import openai

    give_up = time.monotonic() + OUTAGE_S
    while True:
        try:
            return feed.look()
        except (openai.APIConnectionError, openai.InternalServerError):
            if time.monotonic() > give_up:
                raise
            wait(2.0)


def job_progress(console: Console) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[metrics]}"),
        Remaining(compact=True, elapsed_when_finished=True),
        console=console,
        disable=not console.is_terminal,
    )


class Shower:
    """Puts a job on the screen; without a terminal, as plain lines now and then."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.task = progress.add_task("waiting", total=None, metrics="")
        self.metrics: dict[str, Any] = {}
        self.last_plain_s = float("-inf")

    def update(self, job: FineTuningJob, events: list[FineTuningJobEvent]) -> None:
        """Shows what is new. The bar moves once a look, so that its speed means something."""
        is_first = not self.metrics
        for event in events:
            if getattr(event, "type", None) == "metrics" and isinstance(event.data, dict):
                self.metrics |= event.data
                self.plain()
            else:
                self.message(event)
        self.progress.update(self.task, description=job.status.replace("_", " "))
        if self.metrics:
            step, total = self.metrics.get("step", 0), self.metrics.get("total_steps")
            if is_first:  # what was done before we looked tells nothing of the speed
                self.progress.reset(self.task, completed=step, total=total)
            text = metrics_text(self.metrics)
            self.progress.update(self.task, completed=step, total=total, metrics=text)

    def plain(self) -> None:
        now = time.monotonic()
        step, total = self.metrics.get("step"), self.metrics.get("total_steps")
        overdue = now - self.last_plain_s >= PLAIN_EVERY_S or step == total
        if not self.progress.console.is_terminal and overdue:
            self.last_plain_s = now
            text = f"          step {step}/{total}  {metrics_text(self.metrics)}"
            say(self.progress.console, text)

    def message(self, event: FineTuningJobEvent) -> None:
        clock = time.strftime("%H:%M:%S", time.localtime(event.created_at))
        style = {"error": "red", "warn": "yellow"}.get(event.level, "")
        say(self.progress.console, f"{clock}  {event.message}", style)


def metrics_text(data: dict[str, Any]) -> str:
    parts = []
    for label, key, form in (
        ("loss", "train_loss", "{:.3f}"),
        ("token accuracy", "train_mean_token_accuracy", "{:.1%}"),
        ("prefers", "train_reward_accuracy", "{:.0%}"),
        ("validation loss", "full_valid_loss", "{:.3f}"),
        ("prefers in validation", "full_valid_reward_accuracy", "{:.1%}"),
    ):
        value = data.get(key)
        if isinstance(value, int | float):
            parts.append(f"{label} {form.format(value)}")
    return "  ".join(parts)


def require_success(job: FineTuningJob) -> str:
    """The tuned model's name; a job that ended otherwise raises with its reason."""
    if job.status == "succeeded" and job.fine_tuned_model:
        return job.fine_tuned_model
    if job.status == "failed" and job.error:
        raise CommandFailed(f"The job failed ({job.error.code}): {job.error.message}")
    if str(job.status) == "paused":
        raise CommandFailed(f"The job is paused. Go on with `tunesmith jobs resume {job.id}`.")
    raise CommandFailed(f"The job ended as {job.status}.")
