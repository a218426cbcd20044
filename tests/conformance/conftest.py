"""The engines of the suite. With CONFORMANCE_VLLM, the Python of an environment with vLLM, its
cases run on a real server and are recorded; without, they run on what was recorded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.conformance.engines import ENGINES, Engine, engine_process, write_slow_base
from tests.engine_harness import save_adapter
from tests.service import Service, make_service
from tests.tiny_base import WIDE, write_tiny_base
from tests.vllm_exchanges import Exchanges, real_server, serving
from tunesmith.bases import describe
from tunesmith.ids import SystemClock
from tunesmith.serve.client import EngineClient
from tunesmith.serve.protocol import AdapterRef
from tunesmith.store.repo import bases


def service_over(root: Path, *names: str) -> Service:
    service = make_service(root / "data")
    with service.db.write() as conn:
        for name in names:
            bases.insert(conn, describe(root / name, name, SystemClock()))
    return service


@pytest.fixture(scope="session")
def own_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The API in this process over both bases, the engine in its own."""
    root = tmp_path_factory.mktemp("own")
    write_tiny_base(root / "tiny")
    write_slow_base(root / "slow")
    service = service_over(root, "tiny", "slow")
    with engine_process(root / "data"):
        yield service


@pytest.fixture(scope="session")
def vllm_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The same over vLLM: the engine's process asks a server elsewhere."""
    root = tmp_path_factory.mktemp("vllm")
    write_tiny_base(root / "wide", shape=WIDE)
    service = service_over(root, "wide")
    with vllm_url(root) as url, engine_process(root / "data", engine="vllm", vllm_url=url):
        yield service


@contextmanager
def vllm_url(root: Path) -> Iterator[str]:
    python = os.environ.get("CONFORMANCE_VLLM")
    with ExitStack() as stack:
        client = None
        if python:
            client = stack.enter_context(real_server(Path(python), root / "wide", root))
        exchanges = Exchanges(client)
        yield stack.enter_context(serving(exchanges))
        if python:
            exchanges.save()
        assert exchanges.missing == [], "make conformance-vllm"


@pytest.fixture(scope="session", params=ENGINES)
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def live(engine_name: str, request: pytest.FixtureRequest) -> Service:
    """The API over this engine."""
    name = "vllm_engine" if engine_name == "vllm" else "own_engine"
    service = request.getfixturevalue(name)
    assert isinstance(service, Service)
    return service


@pytest.fixture(scope="session")
def model(engine_name: str) -> str:
    """The name of the base that this engine serves."""
    return ENGINES[engine_name]


@pytest.fixture(scope="session")
def engine(live: Service, model: str, engine_name: str) -> Engine:
    with live.db.read() as conn:
        base = bases.resolve(conn, model)
    assert base is not None
    client = EngineClient(live.settings.engine_socket)
    return Engine(client, base.path, generates_only=engine_name == "vllm")


@pytest.fixture(scope="session")
def adapters(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> list[AdapterRef]:
    """Two for the engine's base."""
    directory = tmp_path_factory.mktemp("adapters")
    return [save_adapter(engine.base, directory / str(seed), seed) for seed in (1, 2)]
