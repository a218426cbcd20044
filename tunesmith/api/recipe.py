"""/v1/tunesmith/jobs/{job_id}/recipe: what it takes to do a job again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from fastapi import APIRouter

from tunesmith import __version__
from tunesmith.api.body import JsonRoute
from tunesmith.api.caller import CallerDep
from tunesmith.api.services import Svc
from tunesmith.jobdir.files import read_record as read
from tunesmith.jobdir.layout import PLAN_FILE, RESULT_FILE
from tunesmith.jobdir.outcome import Result
from tunesmith.jobdir.records import RecordError
from tunesmith.jobs import commands
from tunesmith.jobs.rate import local_costs
from tunesmith.store.repo import bases, files, models
from tunesmith.store.repo.jobs import JobRow
from tunesmith.store.repo.models import ModelRow
from tunesmith.wire.estimate import Price
from tunesmith.wire.insight import Recipe, UsedFile

router = APIRouter(prefix="/v1/tunesmith/jobs", route_class=JsonRoute)


@router.get("/{job_id}/recipe")
def show_recipe(job_id: str, svc: Svc, caller: CallerDep) -> Recipe:
    with svc.db.read() as conn:
        job = commands.get_job(conn, caller.project, job_id)
        base = bases.get(conn, job.base)
        tuned = _tuned(conn, job)
        training = _file(conn, job.training_file)
        validation = _file(conn, job.validation_file) if job.validation_file else None
    job_dir = svc.settings.jobs_dir / job_id
    took = _took(job_dir)
    costs = local_costs(svc.settings.prices, job.base, job.trained_tokens or 0, took.get("seconds"))
    return Recipe(
        fine_tuning_job_id=job_id,
        request=_request(job),
        base=job.base,
        base_fingerprint=base.fingerprint if base else None,
        start_adapter_sha256=job.start_adapter,
        training_file=training,
        validation_file=validation,
        plan=_plan(job_dir),
        took=took,
        prices=[Price(usd=str(dollars), basis=basis) for basis, dollars in costs],
        adapter_sha256=tuned.adapter_sha256 if tuned else None,
        version=__version__,
    )


def _tuned(conn: sa.Connection, job: JobRow) -> ModelRow | None:
    return models.get(conn, job.project_id, job.fine_tuned_model) if job.fine_tuned_model else None


def _request(job: JobRow) -> dict[str, Any]:
    hyperparameters = {"hyperparameters": job.requested} if job.requested else {}
    body = {
        "model": job.model,
        "training_file": job.training_file,
        "validation_file": job.validation_file,
        "method": {"type": job.method, job.method: hyperparameters},
        "suffix": job.suffix,
        "seed": job.seed,
        "integrations": job.integrations,
        "metadata": job.metadata,
    }
    return {name: value for name, value in body.items() if value is not None}


def _file(conn: sa.Connection, file_id: str) -> UsedFile | None:
    row = files.known(conn, file_id)
    if row is None:
        return None
    return UsedFile(
        id=row.id,
        filename=row.filename,
        bytes=row.num_bytes,
        sha256=row.sha256,
        deleted=files.get(conn, row.project_id, file_id) is None,
    )


def _plan(job_dir: Path) -> dict[str, Any] | None:
    # Read as it stands: the record itself lives where torch is.
    try:
        plan: dict[str, Any] = json.loads((job_dir / PLAN_FILE).read_bytes())
    except (OSError, ValueError):
        return None
    return plan


def _took(job_dir: Path) -> dict[str, float]:
    try:
        result = read(Result, job_dir / RESULT_FILE)
    except RecordError:
        return {}
    return {} if result is None else result.took
