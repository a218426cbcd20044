"""/v1/organization: projects, people and service accounts."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from tunesmith.api.body import JsonRoute
from tunesmith.api.caller import CallerDep
from tunesmith.api.services import After, Svc
from tunesmith.organization import Organization
from tunesmith.roster import find_account, find_member, find_project, find_user
from tunesmith.store.repo import keys, projects, service_accounts, users
from tunesmith.store.repo.keys import KeyRow
from tunesmith.store.repo.projects import ProjectRow
from tunesmith.store.repo.service_accounts import ServiceAccountRow
from tunesmith.store.repo.users import MemberRow, UserRow
from tunesmith.wire import organization as wire
from tunesmith.wire.lists import Page

router = APIRouter(prefix="/v1/organization", route_class=JsonRoute)

PROJECT = "/projects/{project_id}"
USERS = f"{PROJECT}/users"
ACCOUNTS = f"{PROJECT}/service_accounts"
Limit = Annotated[int, Query(ge=1, le=100)]


async def _organization(svc: Svc, caller: CallerDep) -> Organization:
    pepper = keys.load_pepper(svc.settings.data_dir)
    return Organization(svc.db, svc.clock, svc.rng, pepper, caller)


Org = Annotated[Organization, Depends(_organization)]


def shape_project(row: ProjectRow) -> wire.Project:
    status = "active" if row.archived_at is None else "archived"
    return wire.Project.model_validate(vars(row) | {"status": status})


def shape_user(row: UserRow) -> wire.User:
    return wire.User(**vars(row))


def shape_member(row: MemberRow) -> wire.ProjectUser:
    return wire.ProjectUser(
        id=row.user_id, name=row.name, email=row.email, role=row.role, added_at=row.added_at
    )


def shape_account(row: ServiceAccountRow) -> wire.ServiceAccount:
    return wire.ServiceAccount(id=row.id, name=row.name, role=row.role, created_at=row.created_at)


def shape_account_key(row: KeyRow, secret: str) -> wire.ServiceAccountKey:
    return wire.ServiceAccountKey(id=row.id, value=secret, name=row.name, created_at=row.created_at)


@router.get("/projects")
def list_projects(
    svc: Svc, after: After = None, limit: Limit = 20, include_archived: bool = False
) -> Page[wire.Project]:
    """Oldest first."""
    with svc.db.read() as conn:
        page = projects.page(conn, after=after, limit=limit, include_archived=include_archived)
    return Page.of([shape_project(row) for row in page.rows], page.has_more)


@router.post("/projects")
def create_project(body: wire.CreateProject, org: Org) -> wire.Project:
    return shape_project(org.create_project(body.name))


@router.get(PROJECT)
def retrieve_project(project_id: str, svc: Svc) -> wire.Project:
    with svc.db.read() as conn:
        return shape_project(find_project(conn, project_id))


@router.post(PROJECT)
def update_project(project_id: str, body: wire.UpdateProject, svc: Svc, org: Org) -> wire.Project:
    if body.name is not None:
        return shape_project(org.rename_project(project_id, body.name))
    return retrieve_project(project_id, svc)


@router.post(f"{PROJECT}/archive")
def archive_project(project_id: str, org: Org) -> wire.Project:
    """Its keys open nothing from now on; what it has stays on disk."""
    return shape_project(org.archive_project(project_id))


@router.get("/users")
def list_users(
    svc: Svc,
    after: After = None,
    limit: Limit = 20,
    emails: Annotated[list[str] | None, Query(alias="emails[]")] = None,
) -> Page[wire.User]:
    """Oldest first."""
    with svc.db.read() as conn:
        page = users.page(conn, after=after, limit=limit, emails=emails)
    return Page.of([shape_user(row) for row in page.rows], page.has_more)


@router.get("/users/{user_id}")
def retrieve_user(user_id: str, svc: Svc) -> wire.User:
    with svc.db.read() as conn:
        return shape_user(find_user(conn, user_id))


@router.post("/users/{user_id}")
def update_user(user_id: str, body: wire.UpdateUser, svc: Svc, org: Org) -> wire.User:
    if body.role is not None:
        return shape_user(org.set_user_role(user_id, body.role))
    return retrieve_user(user_id, svc)


@router.delete("/users/{user_id}")
def delete_user(user_id: str, org: Org) -> wire.Deleted:
    """Ends the user's keys in all projects."""
    org.remove_user(user_id)
    return wire.Deleted(object="organization.user.deleted", id=user_id)


@router.get(USERS)
def list_project_users(
    project_id: str, svc: Svc, after: After = None, limit: Limit = 20
) -> Page[wire.ProjectUser]:
    with svc.db.read() as conn:
        find_project(conn, project_id)
        page = users.members(conn, project_id, after=after, limit=limit)
    return Page.of([shape_member(row) for row in page.rows], page.has_more)


@router.post(USERS)
def create_project_user(
    project_id: str, body: wire.CreateProjectUser, org: Org
) -> wire.ProjectUser:
    """Adds a user of the organisation to a project."""
    return shape_member(org.join(project_id, body.user_id, body.email, body.role))


@router.get(USERS + "/{user_id}")
def retrieve_project_user(project_id: str, user_id: str, svc: Svc) -> wire.ProjectUser:
    with svc.db.read() as conn:
        return shape_member(find_member(conn, project_id, user_id))


@router.post(USERS + "/{user_id}")
def update_project_user(
    project_id: str, user_id: str, body: wire.UpdateProjectUser, svc: Svc, org: Org
) -> wire.ProjectUser:
    if body.role is not None:
        return shape_member(org.set_member_role(project_id, user_id, body.role))
    return retrieve_project_user(project_id, user_id, svc)


@router.delete(USERS + "/{user_id}")
def delete_project_user(project_id: str, user_id: str, org: Org) -> wire.Deleted:
    """Ends the keys that the user has in the project."""
    org.leave(project_id, user_id)
    return wire.Deleted(object="organization.project.user.deleted", id=user_id)


@router.get(ACCOUNTS)
def list_service_accounts(
    project_id: str, svc: Svc, after: After = None, limit: Limit = 20
) -> Page[wire.ServiceAccount]:
    with svc.db.read() as conn:
        find_project(conn, project_id)
        page = service_accounts.page(conn, project_id, after=after, limit=limit)
    return Page.of([shape_account(row) for row in page.rows], page.has_more)


@router.post(ACCOUNTS)
def create_service_account(
    project_id: str, body: wire.CreateServiceAccount, org: Org
) -> wire.NewServiceAccount:
    """With a key, which is shown this once, unless none is wanted."""
    with_key = not body.create_service_account_only
    row, made = org.create_service_account(project_id, body.name, with_key=with_key)
    key = None if made is None else shape_account_key(*made)
    return wire.NewServiceAccount(**vars(shape_account(row)), api_key=key)


@router.get(ACCOUNTS + "/{account_id}")
def retrieve_service_account(project_id: str, account_id: str, svc: Svc) -> wire.ServiceAccount:
    with svc.db.read() as conn:
        find_project(conn, project_id)
        return shape_account(find_account(conn, project_id, account_id))


@router.post(ACCOUNTS + "/{account_id}")
def update_service_account(
    project_id: str, account_id: str, body: wire.UpdateServiceAccount, org: Org
) -> wire.ServiceAccount:
    row = org.update_service_account(project_id, account_id, body.name, body.role)
    return shape_account(row)


@router.delete(ACCOUNTS + "/{account_id}")
def delete_service_account(project_id: str, account_id: str, org: Org) -> wire.Deleted:
    """Ends its keys with it."""
    org.delete_service_account(project_id, account_id)
    return wire.Deleted(object="organization.project.service_account.deleted", id=account_id)


@router.post(ACCOUNTS + "/{account_id}/api_keys")
def create_service_account_key(
    project_id: str, account_id: str, body: wire.CreateServiceAccountKey, org: Org
) -> wire.ServiceAccountKey:
    """A further key, shown this once."""
    name = body.name or "Secret Key"
    made = org.create_account_key(project_id, account_id, name, body.scopes)
    return shape_account_key(*made)
