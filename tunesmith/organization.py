"""What owners do to projects, people and keys. Each is one transaction, with its audit row.

The API and the command line both come here. `by` is who does it; None is the command line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, get_args

import sqlalchemy as sa

from tunesmith.access import DEFAULT_PROJECT, Caller, Role, scopes_of
from tunesmith.errors import BadRequest, Forbidden, NotFound
from tunesmith.ids import PROJECT, SERVICE_ACCOUNT, USER, Clock, Rng, new_id
from tunesmith.roster import (
    checked_email,
    checked_name,
    checked_role,
    checked_scopes,
    find_account,
    find_base,
    find_key,
    find_member,
    find_project,
    find_user,
)
from tunesmith.store.db import Database
from tunesmith.store.repo import (
    audit_log,
    base_grants,
    keys,
    limits,
    projects,
    service_accounts,
)
from tunesmith.store.repo import users as people
from tunesmith.store.repo.keys import KeyRow
from tunesmith.store.repo.projects import ProjectRow
from tunesmith.store.repo.service_accounts import ServiceAccountRow
from tunesmith.store.repo.users import MemberRow, OrganizationRole, UserRow
from tunesmith.tariff import to_dollars


@dataclass(frozen=True)
class Organization:
    """The organisation in one database, changed by one person or program."""

    db: Database
    clock: Clock
    rng: Rng
    pepper: bytes
    by: Caller | None = None

    @property
    def now(self) -> int:
        return int(self.clock.now())

    @contextmanager
    def _changing(self) -> Iterator[_Change]:
        with self.db.write() as conn:
            yield _Change(self, conn, self.now)

    # Projects

    def create_project(self, name: str) -> ProjectRow:
        row = ProjectRow(new_id(PROJECT, self.rng), checked_name(name), self.now)
        with self._changing() as change:
            projects.insert(change.conn, row)
            change.note("project.created", row.id, {"name": row.name}, row.id)
        return row

    def rename_project(self, project_id: str, name: str) -> ProjectRow:
        with self._changing() as change:
            find_project(change.conn, project_id)
            projects.rename(change.conn, project_id, checked_name(name))
            change.note("project.updated", project_id, {"name": name}, project_id)
            return find_project(change.conn, project_id)

    def archive_project(self, project_id: str) -> ProjectRow:
        """Its keys open nothing from now on; its files, jobs and models stay where they are."""
        if project_id == DEFAULT_PROJECT:
            raise BadRequest("The default project cannot be archived.", param="project_id")
        with self._changing() as change:
            found = find_project(change.conn, project_id)
            if found.archived_at is None:
                projects.archive(change.conn, project_id, change.now)
                change.note("project.archived", project_id, {}, project_id)
            return find_project(change.conn, project_id)

    # People

    def add_user(self, email: str, name: str, role: OrganizationRole) -> UserRow:
        checked_role(role, get_args(OrganizationRole))
        row = UserRow(
            new_id(USER, self.rng),
            checked_email(email),
            checked_name(name or email),
            role,
            self.now,
        )
        with self._changing() as change:
            if people.by_email(change.conn, email) is not None:
                raise BadRequest(f"{email} is a user already.", param="email")
            people.insert(change.conn, row)
            added = people.by_email(change.conn, email)
            assert added is not None
            change.note("user.added", added.id, {"role": role})
        return added

    def set_user_role(self, user_id: str, role: str) -> UserRow:
        checked_role(role, get_args(OrganizationRole))
        with self._changing() as change:
            find_user(change.conn, user_id)
            people.set_role(change.conn, user_id, "owner" if role == "owner" else "reader")
            change.note("user.updated", user_id, {"role": role})
            return find_user(change.conn, user_id)

    def remove_user(self, user_id: str) -> None:
        """Takes a person out of the organisation and all projects, and ends all their keys."""
        with self._changing() as change:
            find_user(change.conn, user_id)
            num_keys = keys.revoke_of(change.conn, change.now, user_id=user_id)
            people.remove(change.conn, user_id, change.now)
            change.note("user.deleted", user_id, {"revoked_keys": num_keys})

    def join(self, project_id: str, user_id: str | None, email: str | None, role: str) -> MemberRow:
        """Adds a user, named by id or e-mail, to a project, or changes the role there."""
        given = checked_role(role)
        with self._changing() as change:
            find_project(change.conn, project_id, active=True)
            user = people.by_email(change.conn, email) if email and not user_id else None
            found = user or find_user(change.conn, user_id or email or "")
            people.join(change.conn, project_id, found.id, given, change.now)
            detail = {"role": given, "user_id": found.id}
            change.note("role.assignment.created", found.id, detail, project_id)
            return find_member(change.conn, project_id, found.id)

    def set_member_role(self, project_id: str, user_id: str, role: str) -> MemberRow:
        with self.db.read() as conn:
            find_member(conn, project_id, user_id)
        return self.join(project_id, user_id, None, role)

    def leave(self, project_id: str, user_id: str) -> None:
        """Takes a user out of a project, and ends the keys that the user has there."""
        with self._changing() as change:
            find_member(change.conn, project_id, user_id)
            people.leave(change.conn, project_id, user_id)
            num = keys.revoke_of(change.conn, change.now, user_id=user_id, project_id=project_id)
            change.note("role.assignment.deleted", user_id, {"revoked_keys": num}, project_id)

    # Service accounts

    def create_service_account(
        self, project_id: str, name: str, *, with_key: bool
    ) -> tuple[ServiceAccountRow, tuple[KeyRow, str] | None]:
        """The account and, where one is wanted, its first key with its secret."""
        account_id = new_id(SERVICE_ACCOUNT, self.rng)
        row = ServiceAccountRow(account_id, project_id, checked_name(name), "member", self.now)
        with self._changing() as change:
            find_project(change.conn, project_id, active=True)
            service_accounts.insert(change.conn, row)
            change.note("service_account.created", row.id, {"role": row.role}, project_id)
            key = change.make_key("Secret Key", row.project_id, account=row) if with_key else None
        return row, key

    def update_service_account(
        self, project_id: str, account_id: str, name: str | None, role: str | None
    ) -> ServiceAccountRow:
        changes: dict[str, Any] = {}
        if name is not None:
            changes["name"] = checked_name(name)
        if role is not None:
            changes["role"] = checked_role(role, ("owner", "member"))
        with self._changing() as change:
            find_account(change.conn, project_id, account_id)
            if changes:
                service_accounts.update(change.conn, project_id, account_id, **changes)
                change.note("service_account.updated", account_id, changes, project_id)
            return find_account(change.conn, project_id, account_id)

    def delete_service_account(self, project_id: str, account_id: str) -> None:
        """Ends its keys with it."""
        with self._changing() as change:
            find_account(change.conn, project_id, account_id)
            service_accounts.update(change.conn, project_id, account_id, deleted_at=change.now)
            num = keys.revoke_of(change.conn, change.now, service_account_id=account_id)
            change.note("service_account.deleted", account_id, {"revoked_keys": num}, project_id)

    def create_account_key(
        self, project_id: str, account_id: str, name: str, scopes: Sequence[str] | None
    ) -> tuple[KeyRow, str]:
        with self._changing() as change:
            account = find_account(change.conn, project_id, account_id)
            return change.make_key(name, project_id, account=account, scopes=scopes)

    # Keys

    def create_key(
        self,
        project_id: str,
        name: str,
        role: str,
        *,
        scopes: Sequence[str] | None = None,
        user_id: str | None = None,
        expires_in_s: int | None = None,
    ) -> tuple[KeyRow, str]:
        """A key of a project and its secret. It has at most the rights of whoever makes it."""
        given = checked_role(role)
        self._refuse_more_than_own(project_id, given, checked_scopes(scopes))
        with self._changing() as change:
            find_project(change.conn, project_id, active=True)
            if user_id is not None:
                find_member(change.conn, project_id, user_id)
            return change.make_key(
                name,
                project_id,
                role=given,
                scopes=scopes,
                user_id=user_id,
                expires_in_s=expires_in_s,
            )

    def _refuse_more_than_own(
        self, project_id: str, role: Role, scopes: Sequence[str] | None
    ) -> None:
        """A narrowed key must not make itself a wider one."""
        if self.by is None or self.by.project_id != project_id:
            return
        excess = scopes_of(role, project_id, scopes) - self.by.scopes
        if excess:
            raise Forbidden(
                f"This key cannot give what it does not have: {', '.join(sorted(excess))}. "
                "Name fewer scopes or a lower role.",
                code="missing_scope",
                param="scopes",
            )

    def create_admin_key(self, name: str, expires_in_s: int | None) -> tuple[KeyRow, str]:
        with self._changing() as change:
            user_id = self.by.user_id if self.by else None
            return change.make_key(name, None, user_id=user_id, expires_in_s=expires_in_s)

    def revoke_key(self, project_id: str | None, key_id: str) -> None:
        """From the next request on it opens nothing."""
        with self._changing() as change:
            find_key(change.conn, project_id, key_id)
            keys.revoke(change.conn, key_id, change.now)
            change.note("api_key.deleted", key_id, {}, project_id)

    # Bases

    def grant_base(self, name: str, project_id: str) -> str:
        """Reserves a base to this project, among others that have it; its own name."""
        with self._changing() as change:
            base = find_base(change.conn, name)
            find_project(change.conn, project_id, active=True)
            base_grants.grant(change.conn, base, project_id, change.now)
            change.note("base.granted", base, {}, project_id)
        return base

    def revoke_base(self, name: str, project_id: str) -> str:
        with self._changing() as change:
            base = find_base(change.conn, name)
            if not base_grants.revoke(change.conn, base, project_id):
                raise NotFound(f"{base} is not reserved to {project_id}.", param="project_id")
            change.note("base.revoked", base, {}, project_id)
        return base

    # Money

    def limit_spending(self, project_id: str, owner_id: str, nanos: int | None) -> None:
        """What a project or one of its keys may spend in a month; None: as the settings say."""
        with self._changing() as change:
            find_project(change.conn, project_id)
            if owner_id != project_id:
                find_key(change.conn, project_id, owner_id)
            limits.set_budget(change.conn, owner_id, nanos)
            usd = None if nanos is None else str(to_dollars(nanos))
            detail = {"changes_requested": {"usd_per_month": usd}}
            change.note("spend_limit.updated", owner_id, detail, project_id)


@dataclass(frozen=True)
class _Change:
    """One transaction, and how it is noted."""

    organization: Organization
    conn: sa.Connection
    now: int

    def note(
        self, action: str, object_id: str, detail: dict[str, Any], project_id: str | None = None
    ) -> None:
        who, rng = self.organization.by, self.organization.rng
        audit_log.record(
            self.conn, rng, self.now, who, action, object_id, detail, project_id=project_id
        )

    def make_key(
        self,
        name: str,
        project_id: str | None,
        *,
        role: Role = "owner",
        account: ServiceAccountRow | None = None,
        scopes: Sequence[str] | None = None,
        user_id: str | None = None,
        expires_in_s: int | None = None,
    ) -> tuple[KeyRow, str]:
        row, secret = keys.create(
            self.conn,
            self.organization.pepper,
            self.organization.rng,
            name=checked_name(name),
            now=self.now,
            project_id=project_id,
            role=role,
            scopes=checked_scopes(scopes),
            user_id=user_id,
            service_account_id=account.id if account else None,
            expires_at=None if expires_in_s is None else self.now + expires_in_s,
        )
        detail = {"role": row.role, "scopes": row.scopes, "expires_at": row.expires_at}
        self.note("api_key.created", row.id, detail, project_id)
        return row, secret
