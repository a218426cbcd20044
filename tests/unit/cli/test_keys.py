from __future__ import annotations

from pathlib import Path

from tests.unit.cli.conftest import Run, problem
from tunesmith.store.db import open_database
from tunesmith.store.repo import keys


def opens(data: Path, secret: str) -> bool:
    with open_database(data).read() as conn:
        return keys.verify(conn, keys.load_pepper(data), secret, 0) is not None


def test_create_list_revoke(run: Run, tmp_path: Path) -> None:
    open_database(tmp_path).close()
    created = run("keys", "create", "ci", "--data", tmp_path).output.split()
    secret, key_id = created[0], created[1]
    assert opens(tmp_path, secret)
    listed = run("keys", "list", "--data", tmp_path).output
    assert key_id in listed and "active" in listed and secret not in listed
    assert run("keys", "revoke", key_id, "--data", tmp_path).exit_code == 0
    assert not opens(tmp_path, secret)
    assert "revoked" in run("keys", "list", "--data", tmp_path).output
    assert "No active key" in problem(run("keys", "revoke", key_id, "--data", tmp_path))
