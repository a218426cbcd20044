"""What a user may do to jobs. Each is one transaction, durable when it returns."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import sqlalchemy as sa

from tunesmith.access import Caller
from tunesmith.bases import linears
from tunesmith.config import Settings
from tunesmith.data.estimate import AUTO, Method
from tunesmith.errors import BadRequest, BaseModelError, Forbidden, JobError, NotFound
from tunesmith.ids import JOB, Clock, Rng, SystemRng, new_id
from tunesmith.jobs import costs, messages, outbox, tracking
from tunesmith.jobs.ledger import move
from tunesmith.jobs.request import MAX_SEED, PUBLIC_HYPERPARAMETERS, NewJob, check, method_of
from tunesmith.jobs.states import Event, Refused, Status
from tunesmith.model.adapter_files import CONFIG, continued, targeted
from tunesmith.store.db import Database
from tunesmith.store.repo import (
    audit_log,
    base_grants,
    bases,
    events,
    files,
    idempotency,
    job_costs,
    jobs,
    models,
    trackers,
)
from tunesmith.store.repo.events import NewEvent
from tunesmith.store.repo.job_costs import JobCost
from tunesmith.store.repo.jobs import JobRow

MAX_IDEMPOTENCY_KEY = 255


def create_job(
    db: Database,
    clock: Clock,
    rng: Rng,
    settings: Settings,
    caller: Caller,
    request: NewJob,
    idempotency_key: str | None = None,
    num_trained: int | None = None,
) -> JobRow:
    """A new job in validating_files, or the one that the same key and body made before.

    `num_trained`: tokens that it would train, where they were counted. Raises BadRequest for all
    that can be known at once, and TooMany for a job beyond the limits; wrong file contents fail
    the job instead.
    """
    hyperparameters = check(request)
    outbox.check_job_emails(settings, request.metadata)
    body_sha256 = _fingerprint(request, idempotency_key)
    now = int(clock.now())
    with db.write() as conn:
        if idempotency_key is not None:
            earlier = _earlier(conn, caller.project, idempotency_key, body_sha256)
            if earlier is not None:
                return earlier
        job = _new_row(conn, rng, settings, caller, request, hyperparameters, now)
        cost = JobCost(job.id)
        if num_trained is not None:
            cost = costs.expected(conn, settings, job, num_trained)
        costs.admit(conn, settings, caller, job, cost, now)
        jobs.insert(conn, job)
        job_costs.put(conn, cost)
        if idempotency_key is not None:
            idempotency.insert(conn, caller.project, idempotency_key, body_sha256, job.id, now)
        first = messages.created(job.id, now)
        second = messages.validating(job.training_file, job.validation_file, now)
        notes = [first, second]
        for tracker in tracking.of_new_job(settings, job):
            trackers.insert(conn, tracker)
        if outbox.job_emails(job.metadata) and settings.smtp_url is None:
            notes.append(messages.no_mail_server(now))
        events.append(conn, rng, job.id, notes)
        detail = {"model": job.model, "training_file": job.training_file}
        audit_log.record(conn, rng, now, caller, "job.created", job.id, detail)
    return job


def draft_job(
    db: Database, clock: Clock, settings: Settings, caller: Caller, request: NewJob
) -> JobRow:
    """The job that `create_job` would make of the same request, and refuses as it does."""
    hyperparameters = check(request)
    with db.read() as conn:
        now = int(clock.now())
        return _new_row(conn, SystemRng(), settings, caller, request, hyperparameters, now)


def cancel_job(db: Database, clock: Clock, caller: Caller, job_id: str) -> JobRow:
    """Ends a job; one that a worker holds ends within a training step.

    Raises NotFound, and BadRequest for a job that has ended.
    """
    return _request(db, clock, caller, job_id, Event.CANCEL_REQUESTED, "cancelled")


def pause_job(db: Database, clock: Clock, caller: Caller, job_id: str) -> JobRow:
    """Stops a job so that it can go on later; a running one writes a checkpoint first.

    Raises NotFound, and BadRequest for a job that is neither queued nor running.
    """
    return _request(db, clock, caller, job_id, Event.PAUSE_REQUESTED, "paused")


def resume_job(db: Database, clock: Clock, caller: Caller, job_id: str) -> JobRow:
    """Queues a paused job again; it goes on from its checkpoint.

    Raises NotFound, and BadRequest for a job that is not paused.
    """
    return _request(db, clock, caller, job_id, Event.RESUME_REQUESTED, "resumed")


def get_job(conn: sa.Connection, project_id: str, job_id: str) -> JobRow:
    """Raises NotFound."""
    job = jobs.get(conn, project_id, job_id)
    if job is None:
        raise NotFound(
            f"Could not find fine tune: {job_id}",
            param="fine_tune_id",
            code="fine_tune_not_found",
        )
    return job


def _request(
    db: Database, clock: Clock, caller: Caller, job_id: str, event: Event, done: str
) -> JobRow:
    now = int(clock.now())
    rng = SystemRng()
    with db.write() as conn:
        job = get_job(conn, caller.project, job_id)
        try:
            after = move(conn, job, event, now)
        except Refused as reason:
            raise BadRequest(f"Job {job_id} cannot be {done}: {reason}.") from reason
        if after.status != job.status:
            events.append(conn, rng, job_id, [_note(after.status, rng, now)])
        audit_log.record(conn, rng, now, caller, f"job.{done}", job_id)
        return get_job(conn, caller.project, job_id)


def _note(status: Status, rng: Rng, now: int) -> NewEvent:
    if status is Status.CANCELLED:
        return messages.cancelled(now)
    if status is Status.PAUSED:
        return messages.paused(rng.token(8), now)
    return messages.resumed(rng.token(8), now)


def _new_row(
    conn: sa.Connection,
    rng: Rng,
    settings: Settings,
    caller: Caller,
    request: NewJob,
    hyperparameters: dict[str, Any],
    now: int,
) -> JobRow:
    base, label, start_adapter = _resolve_model(conn, caller.project, request.model)
    _check_file(conn, caller.project, request.training_file, "training_file")
    if request.validation_file is not None:
        _check_file(conn, caller.project, request.validation_file, "validation_file")
    if start_adapter is None:
        _check_targets(conn, base, hyperparameters)
    else:
        _check_shape(settings, start_adapter, hyperparameters)
    method: Method = method_of(request.method)
    shown = dict.fromkeys(PUBLIC_HYPERPARAMETERS[method], AUTO)
    return JobRow(
        id=new_id(JOB, rng),
        project_id=caller.project,
        key_id=caller.key_id,
        created_at=now,
        status=Status.VALIDATING.value,
        organization_id=f"org-{settings.organization}",
        model=request.model,
        model_label=label,
        base=base,
        start_adapter=start_adapter,
        training_file=request.training_file,
        validation_file=request.validation_file,
        seed=rng.below(MAX_SEED + 1) if request.seed is None else request.seed,
        requested=hyperparameters,
        hyperparameters=shown | hyperparameters,
        method=method,
        suffix=request.suffix,
        metadata=request.metadata,
        integrations=request.integrations,
    )


def _resolve_model(conn: sa.Connection, project_id: str, name: str) -> tuple[str, str, str | None]:
    """(registered base, label in the new model's name, adapter to continue)."""
    tuned = models.get(conn, project_id, name)
    if tuned is not None:
        _refuse_reserved(conn, project_id, name, bases.root_of(conn, tuned.base))
        return tuned.base, tuned.label, tuned.adapter_sha256
    base = bases.resolve(conn, name)
    if base is None:
        raise BadRequest(
            f"Model {name} is not available for fine-tuning or does not exist. "
            "`tunesmith base list` shows the models of this server; "
            f"`tunesmith base alias {name} BASE` makes this name stand for one of them.",
            code="model_not_available",
            param="model",
        )
    _refuse_reserved(conn, project_id, name, base.name)
    return base.name, name, None


def _refuse_reserved(conn: sa.Connection, project_id: str, name: str, base: str) -> None:
    if not base_grants.is_open(conn, project_id, base):
        raise Forbidden(
            f"Fine-tuning of {name} is not available to this project: its base is reserved to "
            "others. `tunesmith base grant` on the server gives it to a project.",
            code="training_not_available",
            param="model",
        )


def _check_shape(settings: Settings, sha256: str, hyperparameters: dict[str, Any]) -> None:
    """An adapter that is continued stays one adapter, so its shape cannot change."""
    directory = settings.adapters_dir / sha256
    if not (directory / CONFIG).exists():
        return
    try:
        continued(hyperparameters, directory)
    except JobError as error:
        raise BadRequest(error.message, code=error.code, param=error.param) from None


def _check_targets(conn: sa.Connection, base: str, hyperparameters: dict[str, Any]) -> None:
    """A list of linears names those of the base, where its config tells which they are.

    The job's start looks again, and says what is wrong with a base that cannot be read.
    """
    wanted, info = hyperparameters.get("lora_targets"), bases.get(conn, base)
    if not isinstance(wanted, list) or info is None:
        return
    try:
        there = linears(info.path)
        if there is not None:
            targeted(there, wanted)
    except JobError as error:
        raise BadRequest(error.message, code=error.code, param=error.param) from None
    except (BaseModelError, OSError):
        return


def _check_file(conn: sa.Connection, project_id: str, file_id: str, param: str) -> None:
    found = files.get(conn, project_id, file_id)
    if found is None:
        raise BadRequest(f"invalid {param}: {file_id}", param=param)
    if found.purpose != files.FINE_TUNE:
        raise BadRequest(
            f"invalid {param}: {file_id} was uploaded with the purpose '{found.purpose}', but "
            f"fine-tuning needs '{files.FINE_TUNE}'. Upload it again with that purpose.",
            param=param,
        )


def _fingerprint(request: NewJob, idempotency_key: str | None) -> str:
    if idempotency_key is not None and not 1 <= len(idempotency_key) <= MAX_IDEMPOTENCY_KEY:
        raise BadRequest(
            f"The Idempotency-Key header must hold 1 to {MAX_IDEMPOTENCY_KEY} characters.",
            param="Idempotency-Key",
        )
    body = json.dumps(vars(request), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(body.encode()).hexdigest()


def _earlier(conn: sa.Connection, project_id: str, key: str, body_sha256: str) -> JobRow | None:
    found = idempotency.find(conn, project_id, key)
    if found is None:
        return None
    if found[0] != body_sha256:
        raise BadRequest(
            "This Idempotency-Key was used before with a different request body. "
            "Use a new key for a new request.",
            code="idempotency_key_reused",
            param="Idempotency-Key",
        )
    return get_job(conn, project_id, found[1])
