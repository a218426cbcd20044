from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.engines import ENGINES, Engine, engine_process, write_slow_base
from tests.service import Service, make_service
from tests.tiny_base import write_tiny_base
from tunesmith.bases import describe
from tunesmith.ids import SystemClock
from tunesmith.serve.client import EngineClient
from tunesmith.store.repo import bases


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The API in this process over both bases, the engine in its own."""
    root = tmp_path_factory.mktemp("conformance")
    service = make_service(root / "data")
    write_tiny_base(root / "tiny")
    write_slow_base(root / "slow")
    with service.db.write() as conn:
        for name in ENGINES.values():
            bases.insert(conn, describe(root / name, name, SystemClock()))
    with engine_process(root / "data"):
        yield service


@pytest.fixture(scope="session", params=ENGINES)
def model(request: pytest.FixtureRequest) -> str:
    """The name of the base that this engine serves."""
    return ENGINES[request.param]


@pytest.fixture(scope="session")
def engine(live: Service, model: str) -> Engine:
    with live.db.read() as conn:
        base = bases.resolve(conn, model)
    assert base is not None
    return Engine(EngineClient(live.settings.engine_socket), base.path)
