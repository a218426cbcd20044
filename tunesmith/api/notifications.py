"""/v1/tunesmith: whom a project wants told, and what became of each delivery."""

from __future__ import annotations

from typing import Annotated, Literal

import sqlalchemy as sa
from fastapi import APIRouter, Query

from tunesmith.api.body import JsonRoute
from tunesmith.api.caller import CallerDep
from tunesmith.api.services import After, Limit, Services, Svc
from tunesmith.errors import BadRequest, NotFound
from tunesmith.jobs.outbox import check_emails
from tunesmith.jobs.tracking import wandb_purpose
from tunesmith.store.repo import audit_log, keys, notices, outbox
from tunesmith.store.repo.notices import NoticeRow
from tunesmith.store.repo.outbox import AttemptRow, DeliveryRow
from tunesmith.store.seal import SealBroken, seal, unseal
from tunesmith.wire.lists import Page
from tunesmith.wire.webhooks import Attempt, Delivery, Notifications, UpdateNotifications

router = APIRouter(prefix="/v1/tunesmith", route_class=JsonRoute)


def shape(svc: Services, row: NoticeRow) -> Notifications:
    return Notifications(emails=row.emails, wandb_api_key_hint=_hint(svc, row))


def _hint(svc: Services, row: NoticeRow) -> str | None:
    if row.wandb_key is None:
        return None
    pepper = keys.load_pepper(svc.settings.data_dir)
    try:
        key = unseal(pepper, wandb_purpose(row.project_id), row.wandb_key)
    except SealBroken as error:
        return error.message
    return f"...{key[-4:]}" if len(key) >= 16 else "***"


def shape_delivery(row: DeliveryRow, attempts: list[AttemptRow]) -> Delivery:
    shared = ("id", "channel", "state", "event_id", "event_type", "job_id", "target")
    return Delivery(
        **{name: getattr(row, name) for name in shared},
        created_at=row.created_at,
        next_attempt_at=int(row.due_at) if row.state == "waiting" else None,
        finished_at=row.finished_at,
        attempts=[
            Attempt(**{name: getattr(one, name) for name in Attempt.model_fields})
            for one in attempts
        ],
    )


@router.get("/notifications")
def retrieve_notifications(svc: Svc, caller: CallerDep) -> Notifications:
    with svc.db.read() as conn:
        return shape(svc, notices.get(conn, caller.project))


@router.post("/notifications")
def update_notifications(body: UpdateNotifications, svc: Svc, caller: CallerDep) -> Notifications:
    """Whoever is named gets an e-mail at the end of every job of the project."""
    if body.emails:
        if svc.settings.smtp_url is None:
            raise BadRequest(
                "This server has no mail server to send with. Its operator can name one "
                "(TUNESMITH_SMTP_URL).",
                param="emails",
            )
        check_emails(svc.settings, body.emails, "emails")
    now = int(svc.clock.now())
    with svc.db.write() as conn:
        before = notices.get(conn, caller.project)
        sealed = before.wandb_key
        if body.wandb_api_key is not None:
            pepper = keys.load_pepper(svc.settings.data_dir)
            purpose = wandb_purpose(caller.project)
            sealed = seal(pepper, purpose, body.wandb_api_key) if body.wandb_api_key else None
        emails = before.emails if body.emails is None else list(dict.fromkeys(body.emails))
        row = NoticeRow(caller.project, emails, sealed)
        notices.put(conn, row)
        changed = sorted(name for name, value in vars(body).items() if value is not None)
        detail = {"changed": changed}
        audit_log.record(
            conn, svc.rng, now, caller, "notifications.updated", caller.project, detail
        )
    return shape(svc, row)


@router.get("/webhook_deliveries")
def list_deliveries(
    svc: Svc,
    caller: CallerDep,
    after: After = None,
    limit: Limit = 20,
    state: Annotated[Literal["waiting", "delivered", "dead"] | None, Query()] = None,
    channel: Annotated[Literal["webhook", "email"] | None, Query()] = None,
    target: Annotated[str | None, Query()] = None,
    job_id: Annotated[str | None, Query()] = None,
) -> Page[Delivery]:
    """Newest first, with all attempts; those of e-mails too."""
    with svc.db.read() as conn:
        page = outbox.page(
            conn,
            caller.project,
            after=after,
            limit=limit,
            state=state,
            channel=channel,
            target=target,
            job_id=job_id,
        )
        attempts = outbox.attempts_of(conn, [row.id for row in page.rows])
    return Page.of([shape_delivery(row, attempts[row.id]) for row in page.rows], page.has_more)


@router.post("/webhook_deliveries/{delivery_id}/redeliver")
def redeliver(delivery_id: str, svc: Svc, caller: CallerDep) -> Delivery:
    """Due at once, with the same event id, whatever became of it before."""
    now = int(svc.clock.now())
    with svc.db.write() as conn:
        _get(conn, caller.project, delivery_id)
        outbox.send_again(conn, delivery_id, now)
        audit_log.record(
            conn, svc.rng, now, caller, "webhook_delivery.redelivered", delivery_id, {}
        )
        row = _get(conn, caller.project, delivery_id)
        return shape_delivery(row, outbox.attempts_of(conn, [row.id])[row.id])


def _get(conn: sa.Connection, project_id: str, delivery_id: str) -> DeliveryRow:
    row = outbox.get(conn, project_id, delivery_id)
    if row is None:
        raise NotFound(f"No such delivery: {delivery_id}", param="delivery_id")
    return row
