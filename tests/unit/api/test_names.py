"""What a model's name means is kept while nobody writes, and not a moment longer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.service import BASE, Service
from tunesmith.access import DEFAULT_PROJECT
from tunesmith.api import until_commit
from tunesmith.api.names import Names
from tunesmith.errors import NotFound
from tunesmith.store.db import Database, open_database
from tunesmith.store.repo import base_grants, bases


@pytest.fixture
def elsewhere(service: Service) -> Iterator[Database]:
    """The same data directory in another process."""
    db = open_database(service.settings.data_dir)
    yield db
    db.close()


def test_a_name_is_read_once_and_again_after_any_commit(
    service: Service, elsewhere: Database
) -> None:
    names = Names(service.db)
    found = names.find(DEFAULT_PROJECT, BASE)
    assert names.find(DEFAULT_PROJECT, BASE) is found
    with elsewhere.write() as conn:
        bases.set_alias(conn, "brand-new", BASE, 0)
    assert names.find(DEFAULT_PROJECT, BASE) is not found
    assert names.find(DEFAULT_PROJECT, "brand-new") == found
    with elsewhere.write() as conn:
        bases.remove(conn, BASE)
    with pytest.raises(NotFound, match="brand-new"):
        names.find(DEFAULT_PROJECT, "brand-new")


def test_what_one_project_may_use_is_not_kept_for_another(
    service: Service, elsewhere: Database
) -> None:
    names = Names(service.db)
    with elsewhere.write() as conn:
        base_grants.grant(conn, BASE, DEFAULT_PROJECT, 0)
    for _ in range(2):
        names.find(DEFAULT_PROJECT, BASE)
        with pytest.raises(NotFound):
            names.find("proj_other", BASE)


def test_not_more_is_kept_than_a_server_can_hold(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(until_commit, "MAX_KEPT", 2)
    names = Names(service.db)
    found = names.find(DEFAULT_PROJECT, BASE)
    names.find(DEFAULT_PROJECT, "gpt-4o-mini")
    assert names.find(DEFAULT_PROJECT, BASE) is not found
