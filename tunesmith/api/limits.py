"""/v1/organization/projects/{project_id}/rate_limits: how fast a project may ask, by base; and
/v1/tunesmith/limits: what holds for the caller."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from tunesmith.api import spend_limits
from tunesmith.api.body import JsonRoute
from tunesmith.api.caller import CallerDep
from tunesmith.api.services import After, Svc
from tunesmith.errors import BadRequest, NotFound
from tunesmith.roster import find_key, find_project
from tunesmith.store.repo import audit_log, base_grants, bases, limits
from tunesmith.store.repo.limits import NO_LIMIT, RateLimit
from tunesmith.wire.limits import OwnLimits, ProjectRateLimit, UpdateRateLimit
from tunesmith.wire.lists import Page

router = APIRouter(prefix="/v1", route_class=JsonRoute)

RATE_LIMITS = "/organization/projects/{project_id}/rate_limits"

# Before the name of a base, which may hold "/".
ID = "rl-"
# Public name -> ours.
NAMES = {
    "max_requests_per_1_minute": "requests_per_minute",
    "max_requests_per_1_day": "requests_per_day",
    "max_tokens_per_1_minute": "tokens_per_minute",
    "max_fine_tuning_jobs_per_1_day": "jobs_per_day",
}
NOT_HERE = (
    "max_images_per_1_minute",
    "max_audio_megabytes_per_1_minute",
    "batch_1_day_max_input_tokens",
)


@router.get(RATE_LIMITS)
def list_rate_limits(
    project_id: str,
    svc: Svc,
    after: After = None,
    before: Annotated[str | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Page[ProjectRateLimit]:
    """Of the bases that the project may use, by name."""
    shown = _all(svc, project_id)
    ids = [each.id for each in shown]
    start = _place(ids, after, "after") + 1 if after is not None else 0
    end = _place(ids, before, "before") if before is not None else len(ids)
    if before is not None and after is None:
        # The page that ends there.
        start = max(0, end - limit)
    page = shown[start:end]
    return Page.of(page[:limit], has_more=len(page) > limit)


@router.post(RATE_LIMITS + "/{rate_limit_id:path}")
def update_rate_limit(
    project_id: str, rate_limit_id: str, body: UpdateRateLimit, svc: Svc, caller: CallerDep
) -> ProjectRateLimit:
    """Goes for the next request here, and within a second in other processes."""
    for param in NOT_HERE:
        if getattr(body, param) is not None:
            raise BadRequest(
                f"'{param}' is not a limit of any model of this server.",
                param=param,
                code="unsupported_value",
            )
    changes = {
        ours: min(value, NO_LIMIT)
        for public, ours in NAMES.items()
        if (value := getattr(body, public)) is not None
    }
    with svc.db.write() as conn:
        find_project(conn, project_id)
        base = rate_limit_id.removeprefix(ID)
        if bases.resolve(conn, base) is None or not rate_limit_id.startswith(ID):
            raise NotFound(f"No rate limit {rate_limit_id:.200}.", param="rate_limit_id")
        known = limits.get_rates(conn, project_id, base)
        limits.set_rates(conn, project_id, base, RateLimit(**vars(known) | changes))
        audit_log.record(
            conn,
            svc.rng,
            int(svc.clock.now()),
            caller,
            "rate_limit.updated",
            rate_limit_id,
            {"changes_requested": changes},
            project_id=project_id,
        )
    svc.meter.flush()
    return next(each for each in _all(svc, project_id) if each.id == ID + base)


@router.get("/tunesmith/limits")
def own_limits(svc: Svc, caller: CallerDep) -> OwnLimits:
    """Of the caller's project, and of its own key."""
    rates = _all(svc, caller.project)
    with svc.db.read() as conn:
        project = find_project(conn, caller.project)
        key = find_key(conn, caller.project, caller.key_id)
        spending = spend_limits.shape(svc, conn, [project, key])
    return OwnLimits(project_id=project.id, rate_limits=rates, spend_limits=spending)


def _all(svc: Svc, project_id: str) -> list[ProjectRateLimit]:
    books = svc.meter.books
    with svc.db.read() as conn:
        find_project(conn, project_id)
        closed = base_grants.closed(conn, project_id)
        names = [base.name for base in bases.list_all(conn) if base.name not in closed]

    def shape(base: str) -> ProjectRateLimit:
        found = {public: books.limit(project_id, base, ours) for public, ours in NAMES.items()}
        numbers: dict[str, Any] = {
            name: NO_LIMIT if size is None else size for name, size in found.items()
        }
        return ProjectRateLimit(id=ID + base, model=base, **numbers)

    return [shape(name) for name in sorted(names)]


def _place(ids: list[str], wanted: str, param: str) -> int:
    if wanted not in ids:
        raise BadRequest(f"No such object to continue {param}: {wanted:.200}", param=param)
    return ids.index(wanted)
