from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Run, problem
from tests.unit.jobs.world import base_info
from tunesmith.access import Caller
from tunesmith.ids import SystemClock
from tunesmith.store.db import open_database
from tunesmith.store.repo import audit_log, base_grants, bases, keys
from tunesmith.store.repo.audit_log import Filter


def opened(data: Path, secret: str, later_s: int = 0) -> Caller | None:
    now = int(SystemClock().now()) + later_s
    with open_database(data).read() as conn:
        row = keys.verify(conn, keys.digest_of(keys.load_pepper(data), secret), now)
    return None if row is None else row.caller()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    open_database(tmp_path).close()
    return tmp_path


def test_create_list_revoke(run: Run, data: Path) -> None:
    created = run("keys", "create", "ci", "--data", data).output.split()
    secret, key_id = created[0], created[1]
    assert secret.startswith("sk-proj-")
    caller = opened(data, secret)
    assert caller is not None
    assert (caller.role, caller.project_id) == ("member", "proj_default")
    listed = run("keys", "list", "--data", data).output
    assert key_id in listed and "active" in listed and secret not in listed
    assert run("keys", "revoke", key_id, "--data", data).exit_code == 0
    assert opened(data, secret) is None
    assert "revoked" in run("keys", "list", "--data", data).output
    assert "No active key" in problem(run("keys", "revoke", key_id, "--data", data))
    with open_database(data).read() as conn:
        rows = audit_log.page(conn, Filter(objects=[key_id])).rows
    assert [(row.action, row.key_id) for row in rows] == [
        ("api_key.deleted", None),
        ("api_key.created", None),
    ]


def test_a_key_of_a_project_with_scopes_and_an_end(run: Run, data: Path) -> None:
    project = run("projects", "create", "Team A", "--data", data).output.split()[0]
    options = ("--project", project, "--role", "owner", "--scope", "api.files.read")
    created = run("keys", "create", "ci", *options, "--expires", "2h", "--data", data).output
    secret = created.split()[0]
    caller = opened(data, secret, 7190)
    assert caller is not None
    assert (caller.project_id, sorted(caller.scopes)) == (project, ["api.files.read"])
    assert opened(data, secret, 7210) is None
    assert run("projects", "archive", project, "--data", data).exit_code == 0
    assert opened(data, secret) is None
    assert "archived" in run("projects", "list", "--data", data).output


def test_a_key_of_the_organisation(run: Run, data: Path) -> None:
    secret = run("keys", "create", "boss", "--admin", "--data", data).output.split()[0]
    caller = opened(data, secret)
    assert caller is not None
    assert (caller.kind, caller.project_id, secret[:9]) == ("admin", None, "sk-admin-")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--project", "proj_none"), "No such project"),
        (("--role", "admin"), "not one of"),
        (("--scope", "everything"), "no scope"),
        (("--expires", "tomorrow"), "such as 30d"),
        (("--user", "user-none"), "No such user"),
    ],
)
def test_what_a_key_cannot_be(run: Run, data: Path, options: tuple[str, ...], message: str) -> None:
    assert message in problem(run("keys", "create", "x", *options, "--data", data))


def test_people_come_join_and_go(run: Run, data: Path) -> None:
    added = run("users", "add", "ann@example.com", "--name", "Ann", "--data", data).output
    user = added.split()[0]
    assert user.startswith("user-")
    assert "already" in problem(run("users", "add", "ann@example.com", "--data", data))
    assert "no e-mail" in problem(run("users", "add", "ann", "--data", data))
    assert "No user" in problem(run("users", "join", "bob@x.org", "proj_default", "--data", data))
    joined = run(
        "users", "join", "ann@example.com", "proj_default", "--role", "owner", "--data", data
    )
    assert "owner of proj_default" in joined.output
    options = ("--user", user, "--role", "owner")
    secret = run("keys", "create", "Ann's", *options, "--data", data).output.split()[0]
    assert opened(data, secret) is not None
    listed = re.sub(r"\s+", " ", run("users", "list", "--data", data).output)
    assert "ann@example.com" in listed and "(owner)" in listed
    left = run("users", "leave", user, "proj_default", "--data", data)
    assert "has left" in left.output
    assert opened(data, secret) is None
    assert "is removed" in run("users", "remove", user, "--data", data).output
    back = run("users", "add", "ann@example.com", "--data", data).output
    assert back.split()[0] == user


def test_projects_are_renamed(run: Run, data: Path) -> None:
    renamed = run("projects", "rename", "proj_default", "Main", "--data", data).output
    assert "now called Main" in renamed
    assert "Main" in run("projects", "list", "--data", data).output


def test_a_base_is_reserved_and_open_again(run: Run, data: Path) -> None:
    with open_database(data).write() as conn:
        bases.insert(conn, base_info("tiny"))
    granted = run("base", "grant", "tiny", "proj_default", "--data", data)
    assert "there for proj_default" in granted.output
    with open_database(data).read() as conn:
        assert base_grants.resolve(conn, "proj_other", "tiny") is None
        assert base_grants.resolve(conn, "proj_default", "tiny") is not None
    taken = run("base", "revoke", "tiny", "proj_default", "--data", data)
    assert "open to all again" in taken.output
    again = run("base", "revoke", "tiny", "proj_default", "--data", data)
    assert "is not reserved" in problem(again)
    assert "No base" in problem(run("base", "grant", "none", "proj_default", "--data", data))
