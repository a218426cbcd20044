"""Finds projects, people, keys and bases, or says in words for users why not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import get_args

import sqlalchemy as sa

from tunesmith.access import ROLE_SCOPES, Role, Scope
from tunesmith.errors import BadRequest, NotFound
from tunesmith.store.repo import bases, keys, projects, service_accounts
from tunesmith.store.repo import users as people
from tunesmith.store.repo.keys import KeyRow
from tunesmith.store.repo.projects import ProjectRow
from tunesmith.store.repo.service_accounts import ServiceAccountRow
from tunesmith.store.repo.users import MemberRow, UserRow

EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s]{1,190}")
MAX_NAME = 256


def checked_name(name: str) -> str:
    if not 1 <= len(name.strip()) <= MAX_NAME:
        raise BadRequest(f"A name has 1 to {MAX_NAME} characters.", param="name")
    return name.strip()


def checked_email(email: str) -> str:
    if EMAIL.fullmatch(email) is None:
        raise BadRequest(f"{email:.80} is no e-mail address.", param="email")
    return email


def checked_role(role: str, known: Sequence[str] = get_args(Role)) -> Role:
    if role not in known:
        raise BadRequest(f"'{role:.40}' is not one of {list(known)} - 'role'", param="role")
    return next(each for each in get_args(Role) if each == role)


def checked_scopes(scopes: Sequence[str] | None) -> list[str] | None:
    """The scopes to narrow a key to; None: all that its role has."""
    if scopes is None:
        return None
    known = {str(scope) for scope in ROLE_SCOPES["owner"] | {Scope.METRICS_READ}}
    unknown = sorted(set(scopes) - known)
    if unknown or not scopes:
        named = f"'{unknown[0]:.60}' is no scope" if unknown else "No scope is named"
        raise BadRequest(f"{named}. There are: {', '.join(sorted(known))}.", param="scopes")
    return sorted(set(scopes))


def find_project(conn: sa.Connection, project_id: str, *, active: bool = False) -> ProjectRow:
    row = projects.get(conn, project_id)
    if row is None:
        raise NotFound(f"No such project: {project_id:.80}", param="project_id")
    if active and row.archived_at is not None:
        raise BadRequest(f"The project {project_id} is archived.", param="project_id")
    return row


def find_user(conn: sa.Connection, user_id: str) -> UserRow:
    row = people.get(conn, user_id)
    if row is None:
        raise NotFound(
            f"No such user: {user_id:.80}. `tunesmith users add EMAIL` on the server adds one.",
            param="user_id",
        )
    return row


def find_member(conn: sa.Connection, project_id: str, user_id: str) -> MemberRow:
    find_project(conn, project_id)
    row = people.member(conn, project_id, user_id)
    if row is None:
        raise NotFound(f"No such user in {project_id}: {user_id:.80}", param="user_id")
    return row


def find_account(conn: sa.Connection, project_id: str, account_id: str) -> ServiceAccountRow:
    row = service_accounts.get(conn, project_id, account_id)
    if row is None:
        raise NotFound(f"No such service account: {account_id:.80}", param="service_account_id")
    return row


def find_key(conn: sa.Connection, project_id: str | None, key_id: str) -> KeyRow:
    row = keys.get(conn, project_id, key_id)
    if row is None:
        raise NotFound(f"No such API key: {key_id:.80}", param="key_id")
    return row


def find_base(conn: sa.Connection, name: str) -> str:
    info = bases.resolve(conn, name)
    if info is None:
        raise NotFound(f"No base {name:.80}. `tunesmith base list` shows all.", param="base")
    return info.name
