"""`tunesmith jobs`: look at fine-tuning jobs and steer them, on any OpenAI-compatible endpoint."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from tunesmith.cli.options import DEFAULT_BASE_URL, ApiKey, BaseUrl, connect
from tunesmith.cli.screen import say, screen

if TYPE_CHECKING:
    from openai.types.fine_tuning import FineTuningJob
    from rich.table import Table

app = typer.Typer(help="Look at fine-tuning jobs and steer them.", no_args_is_help=True)
JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id, ftjob-...")]


@app.command(name="list")
def list_jobs(
    limit: Annotated[int, typer.Option(min=1, max=100, help="At most this many.")] = 20,
    base_url: BaseUrl = DEFAULT_BASE_URL,
    api_key: ApiKey = "",
) -> None:
    """The latest jobs, newest first."""
    from rich.table import Column, Table

    jobs = connect(base_url, api_key).fine_tuning.jobs.list(limit=limit).data
    console = screen()
    if not jobs:
        say(console, "No jobs yet. Start one: tunesmith tune FILE --model MODEL")
        return
    # Ids and names are there to be copied: a narrow terminal folds names and cuts nothing.
    table = Table(
        Column("job", no_wrap=True, min_width=max(len(job.id) for job in jobs)),
        Column("created", no_wrap=True),
        Column("status", no_wrap=True, min_width=max(len(job.status) for job in jobs)),
        Column("model", overflow="fold"),
        box=None,
        pad_edge=False,
    )
    for job in jobs:
        created = time.strftime("%m-%d %H:%M", time.localtime(job.created_at))
        table.add_row(job.id, created, job.status, job.fine_tuned_model or job.model)
    console.print(table)


@app.command()
def show(
    job_id: JobId,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the job until it ends.")] = False,
    base_url: BaseUrl = DEFAULT_BASE_URL,
    api_key: ApiKey = "",
) -> None:
    """One job: its state, its last events, its checkpoints."""
    client = connect(base_url, api_key)
    console = screen()
    if watch:
        from tunesmith.cli.tune import finish

        finish(client, job_id, console, base_url)
        return
    console.print(details(client.fine_tuning.jobs.retrieve(job_id)))
    events = client.fine_tuning.jobs.list_events(job_id, limit=10).data
    say(console, "\nLast events", "bold")
    for event in reversed(events):
        say(console, f"{when(event.created_at)}  {event.message}")
    checkpoints = client.fine_tuning.jobs.checkpoints.list(job_id).data
    if checkpoints:
        say(console, "\nCheckpoints", "bold")
    for point in checkpoints:
        say(console, f"step {point.step_number}  {point.fine_tuned_model_checkpoint}")


@app.command()
def cancel(job_id: JobId, base_url: BaseUrl = DEFAULT_BASE_URL, api_key: ApiKey = "") -> None:
    """End a job; its checkpoints so far are kept."""
    report(connect(base_url, api_key).fine_tuning.jobs.cancel(job_id))


@app.command()
def pause(job_id: JobId, base_url: BaseUrl = DEFAULT_BASE_URL, api_key: ApiKey = "") -> None:
    """Stop a job at its next step, with a checkpoint to go on from."""
    report(connect(base_url, api_key).fine_tuning.jobs.pause(job_id))


@app.command()
def resume(job_id: JobId, base_url: BaseUrl = DEFAULT_BASE_URL, api_key: ApiKey = "") -> None:
    """Go on with a paused job."""
    report(connect(base_url, api_key).fine_tuning.jobs.resume(job_id))


def report(job: FineTuningJob) -> None:
    print(f"{job.id}: {job.status}")


def details(job: FineTuningJob) -> Table:
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    rows = {
        "job": job.id,
        "status": job.status,
        "model": job.model,
        "tuned model": job.fine_tuned_model,
        "created": when(job.created_at),
        "finished": when(job.finished_at),
        "expected end": None if job.finished_at else when(job.estimated_finish),
        "training file": job.training_file,
        "validation file": job.validation_file,
        "method": job.method.type if job.method else None,
        "trained tokens": job.trained_tokens,
        "hyperparameters": hyperparameters(job),
        "seed": job.seed,
        "error": f"{job.error.code}: {job.error.message}" if job.error and job.error.code else None,
    }
    for name, value in rows.items():
        if value is not None:
            table.add_row(name, str(value))
    return table


def hyperparameters(job: FineTuningJob) -> str | None:
    if job.hyperparameters:
        given = job.hyperparameters.model_dump(exclude_none=True)
    else:
        # Those of other methods than the supervised one are only there.
        method = job.method.model_dump(exclude_none=True) if job.method else {}
        given = method.get(str(method.get("type")), {}).get("hyperparameters", {})
    return ", ".join(f"{name} {value}" for name, value in given.items()) or None


def when(seconds: int | None) -> str | None:
    if seconds is None:
        return None
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
