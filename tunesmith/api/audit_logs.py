"""/v1/organization/audit_logs: who changed what."""

from __future__ import annotations

from typing import Annotated

import sqlalchemy as sa
from fastapi import APIRouter, Query

from tunesmith.api.body import JsonRoute
from tunesmith.api.organization import Limit
from tunesmith.api.services import After, Svc
from tunesmith.store.repo import audit_log, projects, users
from tunesmith.store.repo.audit_log import AuditRow, Filter
from tunesmith.wire.lists import Page
from tunesmith.wire.organization import AuditActor, AuditActorKey, AuditLog, AuditProject

router = APIRouter(prefix="/v1/organization", route_class=JsonRoute)


def shape(conn: sa.Connection, row: AuditRow) -> AuditLog:
    actor = None
    if row.key_id is not None:
        user = users.get(conn, row.user_id) if row.user_id else None
        named = {"id": user.id, "email": user.email} if user else None
        kind = "user" if row.user_id else "service_account"
        actor = AuditActor(
            api_key=AuditActorKey.model_validate({"id": row.key_id, "type": kind, "user": named})
        )
    project = projects.get(conn, row.project_id) if row.project_id else None
    return AuditLog.about(
        {"id": row.object_id, "data": row.detail},
        id=row.id,
        type=row.action,
        effective_at=row.effective_at,
        actor=actor,
        project=AuditProject(id=project.id, name=project.name) if project else None,
    )


Texts = list[str] | None


@router.get("/audit_logs")
def list_audit_logs(
    svc: Svc,
    after: After = None,
    limit: Limit = 20,
    event_types: Annotated[Texts, Query(alias="event_types[]")] = None,
    project_ids: Annotated[Texts, Query(alias="project_ids[]")] = None,
    actor_ids: Annotated[Texts, Query(alias="actor_ids[]")] = None,
    resource_ids: Annotated[Texts, Query(alias="resource_ids[]")] = None,
    since: Annotated[int | None, Query(alias="effective_at[gte]")] = None,
    until: Annotated[int | None, Query(alias="effective_at[lte]")] = None,
) -> Page[AuditLog]:
    """Newest first."""
    wanted = Filter(
        actions=event_types or (),
        projects=project_ids or (),
        actors=actor_ids or (),
        objects=resource_ids or (),
        since=since,
        until=until,
    )
    with svc.db.read() as conn:
        page = audit_log.page(conn, wanted, after=after, limit=limit)
        return Page.of([shape(conn, row) for row in page.rows], page.has_more)
