"""Keys: of projects and of the organisation as published, and /v1/tunesmith/keys to make them."""

from __future__ import annotations

from typing import Any, Literal

import sqlalchemy as sa
from fastapi import APIRouter

from tunesmith.access import scopes_of
from tunesmith.api.body import JsonRoute
from tunesmith.api.caller import CallerDep
from tunesmith.api.organization import PROJECT, Limit, Org
from tunesmith.api.services import After, Svc
from tunesmith.roster import find_key, find_project
from tunesmith.store.repo import keys, service_accounts, users
from tunesmith.store.repo.keys import KeyRow
from tunesmith.wire import organization as wire
from tunesmith.wire.lists import Page

router = APIRouter(prefix="/v1", route_class=JsonRoute)

PROJECT_KEYS = f"/organization{PROJECT}/api_keys"
ADMIN_KEYS = "/organization/admin_api_keys"
OWN_KEYS = "/tunesmith/keys"


def shape_key(conn: sa.Connection, row: KeyRow) -> wire.ProjectKey:
    owner, active = _owner(conn, row)
    return wire.ProjectKey(**_key_fields(row, owner, active))


def _key_fields(row: KeyRow, owner: wire.KeyOwner, active: bool) -> dict[str, Any]:
    people = [each.role for each in (owner.user, owner.service_account) if each is not None]
    role = keys.lowest(row.role, *people)
    return {
        "id": row.id,
        "redacted_value": row.masked,
        "name": row.name,
        "created_at": row.created_at,
        "last_used_at": row.last_used_at,
        "expires_at": row.expires_at,
        "role": role,
        "scopes": sorted(scopes_of(role, row.project_id, row.scopes)),
        "owner_project_access": "active" if active else "inactive",
        "owner": owner,
    }


def _owner(conn: sa.Connection, row: KeyRow) -> tuple[wire.KeyOwner, bool]:
    """Whose a key is, and whether they are in the project still."""
    project = row.project_id or ""
    if row.user_id is not None:
        user = users.member(conn, project, row.user_id)
        if user is None:
            return wire.KeyOwner(type="user"), False
        named = wire.OwnerUser(
            id=user.user_id,
            email=user.email,
            name=user.name,
            created_at=user.added_at,
            role=user.role,
        )
        return wire.KeyOwner(type="user", user=named), True
    if row.service_account_id is not None:
        account = service_accounts.get(conn, project, row.service_account_id)
        if account is None:
            return wire.KeyOwner(type="service_account"), False
        shown = wire.OwnerServiceAccount(
            id=account.id, name=account.name, created_at=account.created_at, role=account.role
        )
        return wire.KeyOwner(type="service_account", service_account=shown), True
    return wire.KeyOwner(), True


def _page(svc: Svc, project_id: str, after: str | None, limit: int) -> Page[wire.ProjectKey]:
    with svc.db.read() as conn:
        find_project(conn, project_id)
        page = keys.page(conn, project_id, after=after, limit=limit)
        return Page.of([shape_key(conn, row) for row in page.rows], page.has_more)


@router.get(PROJECT_KEYS)
def list_project_keys(
    project_id: str, svc: Svc, after: After = None, limit: Limit = 20
) -> Page[wire.ProjectKey]:
    """Those in use, oldest first."""
    return _page(svc, project_id, after, limit)


@router.get(PROJECT_KEYS + "/{key_id}")
def retrieve_project_key(project_id: str, key_id: str, svc: Svc) -> wire.ProjectKey:
    with svc.db.read() as conn:
        return shape_key(conn, find_key(conn, project_id, key_id))


@router.delete(PROJECT_KEYS + "/{key_id}")
def delete_project_key(project_id: str, key_id: str, org: Org) -> wire.Deleted:
    """From the next request on it opens nothing."""
    org.revoke_key(project_id, key_id)
    return wire.Deleted(object="organization.project.api_key.deleted", id=key_id)


@router.get(OWN_KEYS)
def list_own_keys(
    svc: Svc, caller: CallerDep, after: After = None, limit: Limit = 20
) -> Page[wire.ProjectKey]:
    """The keys in use of the caller's project."""
    return _page(svc, caller.project, after, limit)


@router.post(OWN_KEYS)
def create_own_key(
    body: wire.CreateProjectKey, svc: Svc, caller: CallerDep, org: Org
) -> wire.NewProjectKey:
    """A key of the caller's project, with at most the caller's rights; shown this once."""
    row, secret = org.create_key(
        caller.project,
        body.name,
        body.role,
        scopes=body.scopes,
        user_id=body.user_id,
        expires_in_s=body.expires_in_seconds,
    )
    with svc.db.read() as conn:
        owner, active = _owner(conn, row)
    return wire.NewProjectKey(**_key_fields(row, owner, active), value=secret)


@router.delete(OWN_KEYS + "/{key_id}")
def delete_own_key(key_id: str, caller: CallerDep, org: Org) -> wire.Deleted:
    return delete_project_key(caller.project, key_id, org)


def shape_admin_key(conn: sa.Connection, row: KeyRow) -> wire.AdminKey:
    return wire.AdminKey(**_admin_fields(conn, row))


def _admin_fields(conn: sa.Connection, row: KeyRow) -> dict[str, Any]:
    user = users.get(conn, row.user_id) if row.user_id else None
    owner = wire.AdminOwner(
        type="user" if user else "service_account",
        object="organization.user" if user else "organization.service_account",
        id=user.id if user else row.id,
        name=user.name if user else row.name,
        created_at=user.added_at if user else row.created_at,
        role="owner",
    )
    return {
        "id": row.id,
        "name": row.name,
        "redacted_value": row.masked,
        "created_at": row.created_at,
        "expires_at": row.expires_at,
        "last_used_at": row.last_used_at,
        "owner": owner,
    }


@router.get(ADMIN_KEYS)
def list_admin_keys(
    svc: Svc, after: After = None, limit: Limit = 20, order: Literal["asc", "desc"] = "asc"
) -> Page[wire.AdminKey]:
    with svc.db.read() as conn:
        page = keys.page(conn, None, after=after, limit=limit, newest_first=order == "desc")
        return Page.of([shape_admin_key(conn, row) for row in page.rows], page.has_more)


@router.post(ADMIN_KEYS)
def create_admin_key(body: wire.CreateAdminKey, svc: Svc, org: Org) -> wire.NewAdminKey:
    """A key of the organisation; shown this once."""
    row, secret = org.create_admin_key(body.name, body.expires_in_seconds)
    with svc.db.read() as conn:
        return wire.NewAdminKey(**_admin_fields(conn, row), value=secret)


@router.get(ADMIN_KEYS + "/{key_id}")
def retrieve_admin_key(key_id: str, svc: Svc) -> wire.AdminKey:
    with svc.db.read() as conn:
        return shape_admin_key(conn, find_key(conn, None, key_id))


@router.delete(ADMIN_KEYS + "/{key_id}")
def delete_admin_key(key_id: str, org: Org) -> wire.Deleted:
    org.revoke_key(None, key_id)
    return wire.Deleted(object="organization.admin_api_key.deleted", id=key_id)
