"""/v1/webhook_endpoints: where events are sent, and by which secrets they are signed."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from anyio.to_thread import run_sync
from fastapi import APIRouter

from tunesmith.access import Caller
from tunesmith.api.body import JsonRoute
from tunesmith.api.caller import CallerDep
from tunesmith.api.services import After, Limit, Services, Svc
from tunesmith.errors import BadRequest, NotFound
from tunesmith.ids import EVENT_SENT, JOB, WEBHOOK_ENDPOINT, new_id
from tunesmith.jobs import signing
from tunesmith.jobs.delivery import post_event
from tunesmith.jobs.outbox import EVENT_TYPES
from tunesmith.ops.outbound import Allowed, OutboundError, OutboundRefused, check_url
from tunesmith.store.repo import audit_log, keys
from tunesmith.store.repo import webhook_endpoints as repo
from tunesmith.store.repo.webhook_endpoints import MAX_PER_PROJECT, EndpointRow
from tunesmith.wire.lists import Page
from tunesmith.wire.webhooks import (
    CreateEndpoint,
    DeletedEndpoint,
    Endpoint,
    EndpointWithSecret,
    EventTypeList,
    RotateSecret,
    TestEndpoint,
    TestResult,
    UpdateEndpoint,
)

router = APIRouter(prefix="/v1", route_class=JsonRoute)


def secret_of(svc: Services, row: EndpointRow) -> str:
    pepper = keys.load_pepper(svc.settings.data_dir)
    return signing.secret_of(pepper, row.id, row.generation)


def shape(svc: Services, row: EndpointRow) -> Endpoint:
    return Endpoint(**_fields(svc, row))


def shape_with_secret(svc: Services, row: EndpointRow) -> EndpointWithSecret:
    return EndpointWithSecret(**_fields(svc, row), signing_secret=secret_of(svc, row))


def _fields(svc: Services, row: EndpointRow) -> dict[str, Any]:
    shared = ("id", "created_at", "updated_at", "name", "url", "event_types")
    hint = signing.hint_of(secret_of(svc, row))
    return {name: getattr(row, name) for name in shared} | {"signing_secret_hint": hint}


def get(conn: sa.Connection, project_id: str, endpoint_id: str) -> EndpointRow:
    """Raises NotFound."""
    row = repo.get(conn, project_id, endpoint_id)
    if row is None:
        raise NotFound(f"No such webhook endpoint: {endpoint_id}", param="webhook_endpoint_id")
    return row


@router.get("/webhook_event_types")
def list_event_types() -> EventTypeList:
    return EventTypeList(data=list(EVENT_TYPES))


@router.post("/webhook_endpoints")
def create_endpoint(body: CreateEndpoint, svc: Svc, caller: CallerDep) -> EndpointWithSecret:
    """The only answer, but for a rotation's, that holds the signing secret."""
    _check_url(svc, body.url)
    _check_types(body.event_types)
    now = int(svc.clock.now())
    row = EndpointRow(
        id=new_id(WEBHOOK_ENDPOINT, svc.rng),
        project_id=caller.project,
        name=body.name,
        url=body.url,
        event_types=list(dict.fromkeys(body.event_types)),
        created_at=now,
        updated_at=now,
    )
    with svc.db.write() as conn:
        if len(repo.of_project(conn, caller.project)) >= MAX_PER_PROJECT:
            raise BadRequest(
                f"A project can have {MAX_PER_PROJECT} webhook endpoints. Delete one first."
            )
        repo.insert(conn, row)
        detail = {"name": row.name, "event_types": row.event_types}
        _record(svc, conn, caller, "created", row.id, detail)
    return shape_with_secret(svc, row)


@router.get("/webhook_endpoints")
def list_endpoints(
    svc: Svc, caller: CallerDep, after: After = None, limit: Limit = 20
) -> Page[Endpoint]:
    """Newest first."""
    with svc.db.read() as conn:
        page = repo.page(conn, caller.project, after=after, limit=limit)
    return Page.of([shape(svc, row) for row in page.rows], page.has_more)


@router.get("/webhook_endpoints/{endpoint_id}")
def retrieve_endpoint(endpoint_id: str, svc: Svc, caller: CallerDep) -> Endpoint:
    with svc.db.read() as conn:
        return shape(svc, get(conn, caller.project, endpoint_id))


@router.post("/webhook_endpoints/{endpoint_id}")
def update_endpoint(
    endpoint_id: str, body: UpdateEndpoint, svc: Svc, caller: CallerDep
) -> Endpoint:
    if body.url is not None:
        _check_url(svc, body.url)
    if body.event_types is not None:
        _check_types(body.event_types)
    given = {name: value for name, value in vars(body).items() if value is not None}
    with svc.db.write() as conn:
        row = get(conn, caller.project, endpoint_id)
        changes = {name: value for name, value in given.items() if getattr(row, name) != value}
        if changes:
            repo.update(conn, row.id, **changes, updated_at=int(svc.clock.now()))
            detail = {"changed": sorted(changes)}
            _record(svc, conn, caller, "updated", row.id, detail)
        return shape(svc, get(conn, caller.project, endpoint_id))


@router.delete("/webhook_endpoints/{endpoint_id}")
def delete_endpoint(endpoint_id: str, svc: Svc, caller: CallerDep) -> DeletedEndpoint:
    """What waits for it is not sent any more; its deliveries stay in the log."""
    with svc.db.write() as conn:
        row = get(conn, caller.project, endpoint_id)
        repo.delete(conn, row.id)
        _record(svc, conn, caller, "deleted", row.id, {"name": row.name})
    return DeletedEndpoint(id=endpoint_id)


@router.post("/webhook_endpoints/{endpoint_id}/rotate_secret")
def rotate_secret(
    endpoint_id: str, svc: Svc, caller: CallerDep, body: RotateSecret | None = None
) -> EndpointWithSecret:
    """A new signing secret; the one before signs as well for a day, if that is asked for."""
    now = int(svc.clock.now())
    overlap = body is not None and body.keep_old_secret_active_for_24_hours
    with svc.db.write() as conn:
        row = get(conn, caller.project, endpoint_id)
        repo.update(
            conn,
            row.id,
            generation=row.generation + 1,
            old_until=now + signing.OVERLAP_S if overlap else None,
            updated_at=now,
        )
        detail = {"old_secret_kept": overlap}
        _record(svc, conn, caller, "secret_rotated", row.id, detail)
        return shape_with_secret(svc, get(conn, caller.project, endpoint_id))


@router.post("/webhook_endpoints/{endpoint_id}/test")
async def test_endpoint(
    endpoint_id: str, body: TestEndpoint, svc: Svc, caller: CallerDep
) -> TestResult:
    """Sends a sample at once, and tells what the endpoint answered with."""
    _check_types([body.event_type], "event_type")
    row = await run_sync(_read, svc, caller.project, endpoint_id)
    now = int(svc.clock.now())
    event_id, job_id = new_id(EVENT_SENT, svc.rng), new_id(JOB, svc.rng)
    sample = signing.event_body(event_id, body.event_type, job_id, now)
    pepper = keys.load_pepper(svc.settings.data_dir)
    try:
        status = await post_event(svc.settings, pepper, row, event_id, sample, now)
    except OutboundError as error:
        raise BadRequest(f"The test did not reach the endpoint. {error.message}") from error
    return TestResult(webhook_endpoint_id=row.id, event_type=body.event_type, status_code=status)


def _record(
    svc: Services,
    conn: sa.Connection,
    caller: Caller,
    action: str,
    object_id: str,
    detail: dict[str, Any],
) -> None:
    now = int(svc.clock.now())
    audit_log.record(conn, svc.rng, now, caller, f"webhook_endpoint.{action}", object_id, detail)


def _read(svc: Services, project_id: str, endpoint_id: str) -> EndpointRow:
    with svc.db.read() as conn:
        return get(conn, project_id, endpoint_id)


def _check_url(svc: Services, url: str) -> None:
    try:
        check_url(url, Allowed(svc.settings.outbound_allow))
    except OutboundRefused as error:
        raise BadRequest(f"Invalid 'url': {error.message}", param="url") from error


def _check_types(event_types: list[str], param: str = "event_types") -> None:
    unknown = [name for name in event_types if name not in EVENT_TYPES]
    if unknown:
        raise BadRequest(
            f"'{unknown[0]:.64}' is not an event of this server. There are: "
            f"{', '.join(EVENT_TYPES)}.",
            param=param,
        )
