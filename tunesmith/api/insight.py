"""/v1/tunesmith/jobs: how each row was learned, and answers at the checkpoints."""

from __future__ import annotations

import re
from dataclasses import asdict

from fastapi import APIRouter

from tunesmith.api.body import JsonRoute
from tunesmith.api.caller import CallerDep
from tunesmith.api.services import After, Limit, Svc
from tunesmith.errors import BadRequest
from tunesmith.jobdir.row_losses import By, page, read_rows
from tunesmith.jobdir.samples import read_samples
from tunesmith.jobs import commands
from tunesmith.wire.insight import RowLoss, Samples
from tunesmith.wire.lists import Page

router = APIRouter(prefix="/v1/tunesmith/jobs", route_class=JsonRoute)

ROW_ID = re.compile(r"row-([1-9][0-9]{0,9})")


@router.get("/{job_id}/rows")
def list_rows(
    job_id: str,
    svc: Svc,
    caller: CallerDep,
    order: By = "loss",
    after: After = None,
    limit: Limit = 20,
) -> Page[RowLoss]:
    """The rows of the training file, those learned worst first. Grows with each checkpoint."""
    with svc.db.read() as conn:
        commands.get_job(conn, caller.project, job_id)
    losses = read_rows(svc.settings.jobs_dir / job_id)
    if losses is None:
        return Page.of([], has_more=False)
    rows, has_more = page(losses, order, _row(after, len(losses)), limit)
    shown = [RowLoss(id=f"row-{each.row}", change=each.change, **asdict(each)) for each in rows]
    return Page.of(shown, has_more)


@router.get("/{job_id}/samples")
def show_samples(job_id: str, svc: Svc, caller: CallerDep) -> Samples:
    """The same prompts, answered by the model that was tuned and by each kept checkpoint."""
    with svc.db.read() as conn:
        commands.get_job(conn, caller.project, job_id)
    found = read_samples(svc.settings.jobs_dir / job_id)
    return Samples.model_validate({"fine_tuning_job_id": job_id, **asdict(found)})


def _row(after: str | None, num_rows: int) -> int | None:
    if after is None:
        return None
    found = ROW_ID.fullmatch(after)
    if found is None or int(found[1]) > num_rows:
        raise BadRequest(f"Invalid 'after': there is no row '{after:.40}'.", param="after")
    return int(found[1])
