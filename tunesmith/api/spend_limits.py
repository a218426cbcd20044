"""/v1/tunesmith/projects/{project_id}/spend_limits: what a project and its keys may spend in a
month."""

from __future__ import annotations

from decimal import Decimal

import sqlalchemy as sa
from fastapi import APIRouter

from tunesmith.api.body import JsonRoute
from tunesmith.api.organization import Limit, Org
from tunesmith.api.services import After, Services, Svc
from tunesmith.limits.budgets import Budgets
from tunesmith.roster import find_key, find_project
from tunesmith.store.repo import job_costs, keys, limits, usage
from tunesmith.store.repo.keys import KeyRow
from tunesmith.store.repo.projects import ProjectRow
from tunesmith.tariff import to_dollars, to_nanos
from tunesmith.wire.limits import SpendLimit, UpdateSpendLimit
from tunesmith.wire.lists import Page

router = APIRouter(prefix="/v1/tunesmith/projects/{project_id}/spend_limits", route_class=JsonRoute)


@router.get("")
def list_spend_limits(
    project_id: str, svc: Svc, after: After = None, limit: Limit = 20
) -> Page[SpendLimit]:
    """The project's, then those of its keys in use, oldest first."""
    svc.meter.flush()
    with svc.db.read() as conn:
        owners: list[ProjectRow | KeyRow] = [find_project(conn, project_id)]
        if after is not None:
            owners = []
        page = keys.page(
            conn,
            project_id,
            after=None if after == project_id else after,
            limit=limit - len(owners),
        )
        return Page.of(shape(svc, conn, [*owners, *page.rows]), page.has_more)


@router.post("/{owner_id}")
def update_spend_limit(
    project_id: str, owner_id: str, body: UpdateSpendLimit, svc: Svc, org: Org
) -> SpendLimit:
    """Goes for the next request here, and within a second in other processes."""
    usd = body.usd_per_month
    nanos = None if usd is None else to_nanos(Decimal(str(usd)))
    org.limit_spending(project_id, owner_id, nanos)
    svc.meter.flush()
    with svc.db.read() as conn:
        project = find_project(conn, project_id)
        owner = project if owner_id == project_id else find_key(conn, project_id, owner_id)
        return shape(svc, conn, [owner])[0]


def shape(
    svc: Services, conn: sa.Connection, owners: list[ProjectRow | KeyRow]
) -> list[SpendLimit]:
    month = usage.month_of(int(svc.clock.now()))
    budgets = Budgets.of(svc.settings.spend_per_month, limits.all_budgets(conn))
    spent, reserved = usage.spent_in(conn, month), job_costs.reserved(conn)

    def one(owner: ProjectRow | KeyRow) -> SpendLimit:
        is_project = isinstance(owner, ProjectRow)
        nanos = budgets.project(owner.id) if is_project else budgets.key(owner.id)
        return SpendLimit(
            id=owner.id,
            owner="project" if is_project else "api_key",
            name=owner.name,
            usd_per_month=None if nanos is None else float(to_dollars(nanos)),
            is_default=owner.id not in budgets.own,
            month=month,
            usd_spent=float(to_dollars(spent.get(owner.id, 0))),
            usd_reserved=float(to_dollars(reserved.get(owner.id, 0))),
        )

    return [one(owner) for owner in owners]
