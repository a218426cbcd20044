"""The engine as a process: it starts, answers, drains, and may be killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.engine_harness import greedy, reference, save_adapter
from tests.tiny_base import write_tiny_base
from tunesmith.config import Settings
from tunesmith.errors import EngineUnavailable
from tunesmith.model.threads import WAITING
from tunesmith.serve.client import EngineClient
from tunesmith.serve.protocol import Draining, GenRequest

TIMEOUT_S = 60


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_base(tmp_path_factory.mktemp("base") / "tiny")


@contextmanager
def process(data: Path) -> Iterator[subprocess.Popen[str]]:
    """A running engine that has said it is ready."""
    environment = {
        **os.environ,
        "TUNESMITH_DEVICE": "cpu",
        "TUNESMITH_ENGINE_THREADS": "1",
        **WAITING,
    }
    command = [sys.executable, "-m", "tunesmith.serve", "--data", str(data)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as engine:
        try:
            assert engine.stdout is not None
            ready = json.loads(engine.stdout.readline())
            assert ready == {"ready": True, "socket": str(Settings(data=data).engine_socket)}
            yield engine
        finally:
            engine.kill()


def client_of(data: Path) -> EngineClient:
    return EngineClient(Settings(data=data).engine_socket)


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(test(), TIMEOUT_S)

    asyncio.run(limited())


async def collect(client: EngineClient, request: GenRequest) -> list[int]:
    async with client.generate(request) as answer:
        return [token async for delta in answer for token in delta.token_ids]


def test_sigterm_finishes_what_runs_and_refuses_what_comes(base: Path, tmp_path: Path) -> None:
    adapter = save_adapter(base, tmp_path / "adapter", 1)
    data = tmp_path / "data"

    async def test() -> None:
        client = client_of(data)
        requests = [greedy(base, "hello", 20), greedy(base, "hello", 20, adapter=adapter)]
        answers = await asyncio.gather(*[collect(client, request) for request in requests])
        assert answers == [reference(base, request) for request in requests]
        async with client.generate(greedy(base, "hello", 500)) as answer:
            await anext(answer)
            engine.send_signal(signal.SIGTERM)
            while (await client.ping())["state"] == "ready":
                await asyncio.sleep(0.01)
            with pytest.raises(Draining):
                await collect(client, greedy(base, "hello", 1))
            finish = [delta.finish_reason async for delta in answer]
            assert finish[-1] == "length"
        assert await asyncio.to_thread(engine.wait, TIMEOUT_S) == 0
        assert not Settings(data=data).engine_socket.exists()

    with process(data) as engine:
        run(test)


def test_a_killed_engine_is_noticed_and_replaced(base: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    client = client_of(data)

    async def kill() -> None:
        answer = client.generate(greedy(base, "hello", 2000))
        await anext(answer)
        engine.kill()
        with pytest.raises(EngineUnavailable):
            async for _ in answer:
                pass
        with pytest.raises(EngineUnavailable):
            await EngineClient(Settings(data=data).engine_socket, connect_s=0.1).ping()

    async def again() -> None:
        assert len(await collect(client, greedy(base, "hello", 5))) == 5
        assert (await client.ping())["pid"] == engine.pid

    with process(data) as engine:
        run(kill)
    assert Settings(data=data).engine_socket.exists()
    with process(data) as engine:
        run(again)
