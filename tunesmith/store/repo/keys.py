"""API keys. Only an HMAC of each is stored, so the database alone lets nobody in."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from tunesmith.access import DEFAULT_PROJECT, ROLE_SCOPES, Caller, Role, scopes_of
from tunesmith.ids import (
    ADMIN_KEY,
    KEY,
    PROJECT_KEY,
    SERVICE_ACCOUNT_KEY,
    Rng,
    new_api_key,
)
from tunesmith.store.repo.rows import Page, build, columns_of, fetch_page, find_cursor
from tunesmith.store.tables import keys, project_users, projects, service_accounts

# A key's last use is noted at most this often.
TOUCH_EVERY_S = 60


@dataclass(frozen=True)
class KeyRow:
    id: str
    name: str
    prefix: str
    """How the key begins, and with last4 all that is ever shown of it."""
    last4: str
    created_at: int
    project_id: str | None
    """None: a key of the organisation."""
    role: Role
    scopes: list[str] | None = None
    """None: all that the role has."""
    user_id: str | None = None
    service_account_id: str | None = None
    expires_at: int | None = None
    revoked_at: int | None = None
    last_used_at: int | None = None

    def caller(self) -> Caller:
        """Who is at work when this key is shown."""
        return Caller(
            key_id=self.id,
            project_id=self.project_id,
            role=self.role,
            scopes=scopes_of(self.role, self.project_id, self.scopes),
            user_id=self.user_id,
            kind="admin" if self.project_id is None else "project",
        )

    @property
    def masked(self) -> str:
        return f"{self.prefix}...{self.last4}"


_COLUMNS = columns_of(KeyRow, keys)


def load_pepper(data_dir: Path) -> bytes:
    """The secret that keys are hashed with; made on first use, readable by the owner only."""
    path = data_dir / "pepper"
    if not path.exists():
        temporary = path.with_name(f".pepper.{os.getpid()}.{secrets.token_hex(4)}")
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(32))
            file.flush()
            os.fsync(file.fileno())
        # Of several processes that start at once, the first one's stays.
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    return path.read_bytes()


def create(
    conn: sa.Connection,
    pepper: bytes,
    rng: Rng,
    *,
    name: str,
    now: int,
    project_id: str | None = DEFAULT_PROJECT,
    role: Role = "owner",
    scopes: list[str] | None = None,
    user_id: str | None = None,
    service_account_id: str | None = None,
    expires_at: int | None = None,
    secret: str | None = None,
) -> tuple[KeyRow, str]:
    """A new key and its secret, which cannot be shown again. `secret` brings one's own.

    Without a project it is a key of the organisation.
    """
    kind = ADMIN_KEY if project_id is None else PROJECT_KEY
    secret = secret or new_api_key(SERVICE_ACCOUNT_KEY if service_account_id else kind, rng)
    known = (ADMIN_KEY, PROJECT_KEY, SERVICE_ACCOUNT_KEY, KEY, "")
    visible = next(each for each in known if secret.startswith(each))
    row = KeyRow(
        id=f"key_{rng.token(16)}",
        name=name,
        prefix=secret[: len(visible) + 4] if len(secret) >= 20 else visible,
        last4=secret[-4:] if len(secret) >= 20 else "",
        created_at=now,
        project_id=project_id,
        role=role,
        scopes=scopes,
        user_id=user_id,
        service_account_id=service_account_id,
        expires_at=expires_at,
    )
    conn.execute(sa.insert(keys).values(**vars(row), digest=digest_of(pepper, secret)))
    return row, secret


def verify(conn: sa.Connection, digest: str, now: int) -> KeyRow | None:
    """The key that a secret with this digest opens, or None; with the role that holds now.

    A key opens nothing once it is revoked or has run out, its project is archived, or whoever it
    belongs to has left. One hash and one indexed read.
    """
    row = conn.execute(_LIVE, {"digest": digest}).first()
    if row is None or not hmac.compare_digest(row.digest, digest):
        return None
    return _as_it_holds(row._mapping, now)


def live(conn: sa.Connection, key_id: str, now: int) -> KeyRow | None:
    """As verify, for a key that is known by its id: a browser's session stands for it."""
    row = conn.execute(_IN_FORCE.where(keys.c.id == key_id)).first()
    return None if row is None else _as_it_holds(row._mapping, now)


def _as_it_holds(found: sa.RowMapping, now: int) -> KeyRow | None:
    values = dict(found)
    del values["digest"]
    if values["expires_at"] is not None and values["expires_at"] <= now:
        return None
    people = {values.pop("user_role"), values.pop("account_role")} - {None}
    return KeyRow(**values | {"role": lowest(values["role"], *people)})


def lowest(*roles: Role) -> Role:
    """A key can do no more than the person or the account that it belongs to."""
    return min(roles, key=lambda role: len(ROLE_SCOPES[role]))


_USER_ROLE = (
    sa.select(project_users.c.role)
    .where(
        project_users.c.project_id == keys.c.project_id, project_users.c.user_id == keys.c.user_id
    )
    .scalar_subquery()
)
_ACCOUNT_ROLE = (
    sa.select(service_accounts.c.role)
    .where(
        service_accounts.c.id == keys.c.service_account_id, service_accounts.c.deleted_at.is_(None)
    )
    .scalar_subquery()
)
_IN_FORCE = sa.select(
    keys.c.digest, *_COLUMNS, _USER_ROLE.label("user_role"), _ACCOUNT_ROLE.label("account_role")
).where(
    keys.c.revoked_at.is_(None),
    sa.or_(
        keys.c.project_id.is_(None),
        sa.exists().where(projects.c.id == keys.c.project_id, projects.c.archived_at.is_(None)),
    ),
    sa.or_(keys.c.project_id.is_(None), keys.c.user_id.is_(None), _USER_ROLE.is_not(None)),
    sa.or_(keys.c.service_account_id.is_(None), _ACCOUNT_ROLE.is_not(None)),
)
_LIVE = _IN_FORCE.where(keys.c.digest == sa.bindparam("digest"))


def needs_touch(row: KeyRow, now: int) -> bool:
    """Whether its last use is long enough ago to be noted anew with touch()."""
    return row.last_used_at is None or now - row.last_used_at >= TOUCH_EVERY_S


def touch(conn: sa.Connection, key_id: str, now: int) -> None:
    conn.execute(sa.update(keys).where(keys.c.id == key_id).values(last_used_at=now))


def list_all(conn: sa.Connection) -> list[KeyRow]:
    """Of all projects, revoked ones too, oldest first."""
    return [build(KeyRow, row) for row in conn.execute(sa.select(*_COLUMNS).order_by(keys.c.seq))]


def get(conn: sa.Connection, project_id: str | None, key_id: str) -> KeyRow | None:
    """A key in use, of a project or (None) of the organisation."""
    query = sa.select(*_COLUMNS).where(_of(project_id), keys.c.id == key_id, _IN_USE)
    row = conn.execute(query).first()
    return None if row is None else build(KeyRow, row)


def page(
    conn: sa.Connection,
    project_id: str | None,
    *,
    after: str | None = None,
    limit: int = 20,
    newest_first: bool = False,
) -> Page[KeyRow]:
    """The keys in use of a project or (None) of the organisation."""
    own = _of(project_id)
    cursor = find_cursor(conn, keys.c.seq, keys.c.id, after, own)
    query = sa.select(*_COLUMNS).where(own, _IN_USE)
    return fetch_page(
        conn,
        KeyRow,
        query,
        keys.c.seq,
        cursor=cursor,
        limit=limit,
        newest_first=newest_first,
    )


def revoke(conn: sa.Connection, key_id: str, now: int) -> bool:
    """From the next request on; False if there is no such key in use."""
    query = sa.update(keys).where(keys.c.id == key_id, _IN_USE)
    return conn.execute(query.values(revoked_at=now)).rowcount == 1


def revoke_of(
    conn: sa.Connection,
    now: int,
    *,
    user_id: str | None = None,
    service_account_id: str | None = None,
    project_id: str | None = None,
) -> int:
    """Ends the keys of a person (everywhere, or in one project) or of an account; how many."""
    query = sa.update(keys).where(_IN_USE)
    for column, value in (
        (keys.c.user_id, user_id),
        (keys.c.service_account_id, service_account_id),
        (keys.c.project_id, project_id),
    ):
        if value is not None:
            query = query.where(column == value)
    return conn.execute(query.values(revoked_at=now)).rowcount


_IN_USE = keys.c.revoked_at.is_(None)


def _of(project_id: str | None) -> sa.ColumnElement[bool]:
    return keys.c.project_id.is_(None) if project_id is None else keys.c.project_id == project_id


def equal(secret: str, known: str) -> bool:
    """In constant time."""
    return hmac.compare_digest(secret.encode("utf-8", "surrogateescape"), known.encode())


def digest_of(pepper: bytes, secret: str) -> str:
    # A header may hold what is no valid text; it is then simply a wrong key.
    return hmac.new(pepper, secret.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()
