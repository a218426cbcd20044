"""The socket: real client, real server, one process."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.engine_harness import greedy, reference
from tunesmith.errors import BaseModelError, EngineUnavailable
from tunesmith.serve import client as client_module
from tunesmith.serve import passes
from tunesmith.serve import server as server_module
from tunesmith.serve.client import EngineClient
from tunesmith.serve.local import Limits, LocalEngine
from tunesmith.serve.protocol import (
    Draining,
    EmbedRequest,
    GenRequest,
    InvalidRequest,
    Overloaded,
    encode_line,
)
from tunesmith.serve.server import EngineServer

TIMEOUT_S = 60


@asynccontextmanager
async def serving(path: Path, drain_s: float = 5, **limits: Any) -> AsyncIterator[EngineClient]:
    chosen = Limits(**{"device": "cpu", **limits})
    server = EngineServer(path, partial(LocalEngine, chosen), drain_s=drain_s)
    await server.start()
    run = asyncio.create_task(server.run())
    try:
        yield EngineClient(path)
    finally:
        server.drain()
        await run
        assert not path.exists()


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(test(), TIMEOUT_S)

    uvloop.run(limited())  # as in the processes


def embedding(base: Path) -> EmbedRequest:
    return EmbedRequest(base, [list(range(1, 400))] * 200)


async def collect(client: EngineClient, request: GenRequest) -> list[int]:
    ids: list[int] = []
    async with client.generate(request) as answer:
        async for delta in answer:
            ids += delta.token_ids
        assert answer.done is not None
        assert answer.done.completion_tokens == len(ids)
    return ids


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    while not await condition():
        await asyncio.sleep(0.01)


async def num_open(client: EngineClient) -> int:
    stats = await client.stats()
    return int(stats["num_running"] + stats["num_waiting"])


async def is_running(client: EngineClient) -> bool:
    return await num_open(client) > 0


async def is_idle(client: EngineClient) -> bool:
    return await num_open(client) == 0


def test_answers_arrive_as_they_were_computed(base: Path, tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path / "run" / "e.sock") as client:
            requests = [greedy(base, "word " * k, 10) for k in range(1, 5)]
            answers = await asyncio.gather(*[collect(client, request) for request in requests])
            assert answers == [reference(base, request) for request in requests]

    run(test)


def asked(base: Path, number: int, num_tokens: int) -> dict[str, Any]:
    return {"verb": "generate", "id": number, **greedy(base, "hello", num_tokens).to_wire()}


async def said(path: Path, *sent: dict[str, Any], num_ends: int) -> list[Any]:
    """What the engine says on one connection until so many answers, or all, have ended."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(b"".join(map(encode_line, sent)))
    found: list[Any] = []
    while num_ends and (line := await reader.readline()):
        found.append(json.loads(line))
        num_ends -= sum(isinstance(news[1], dict) for news in found[-1])
    writer.transport.abort()
    return found


def test_answers_share_a_connection_and_what_came_at_once_a_line(
    base: Path, tmp_path: Path
) -> None:
    async def test() -> None:
        async with serving(tmp_path / "e.sock") as client:
            await client.preload(base)
            sent = [asked(base, number, 40) for number in (7, 1, 300)]
            lines = await said(tmp_path / "e.sock", *sent, num_ends=3)
        news = [item for line in lines for item in line]
        for number in (7, 1, 300):
            *deltas, end = [item[1:] for item in news if item[0] == number]
            ids = [token for delta in deltas for token in delta[1]]
            assert ids == reference(base, greedy(base, "hello", 40))
            assert deltas[-1][2:] == [None, "length"]
            assert end[0]["done"]["completion_tokens"] == 40
        assert len(lines) < 60

    run(test)


def test_what_is_wrong_with_one_answer_is_not_the_others_affair(base: Path, tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path / "e.sock") as client:
            lines = await said(
                tmp_path / "e.sock",
                asked(base, 1, 30),
                asked(base, 2, 30) | {"base_path": 5},
                asked(base, 3, 2000),
                {"verb": "cancel", "id": 3},
                {"verb": "stop", "id": 99, "index": 0},
                num_ends=2,
            )
            await until(lambda: is_idle(client))
        news = [item for line in lines for item in line]
        assert [item[1]["error"]["code"] for item in news if item[0] == 2] == ["invalid"]
        assert sum(len(item[2]) for item in news if item[0] == 1 and len(item) > 2) == 30
        assert len([item for item in news if item[0] == 3]) < 2000

    run(test)


@pytest.mark.parametrize(
    "change", [{"id": 1}, {"id": "2"}, {"id": None}, {"verb": "ping"}, {"verb": "stop", "id": 1}]
)
def test_a_line_that_makes_no_sense_ends_the_connection(
    base: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    async def test() -> None:
        async with serving(tmp_path / "e.sock") as client:
            sent = asked(base, 1, 2000), asked(base, 2, 2000) | change
            lines = await said(tmp_path / "e.sock", *sent, num_ends=2)
            assert lines[-1]["error"]["code"] == "invalid"
            await until(lambda: is_idle(client))

    run(test)


def test_news_that_wait_are_read_as_one(base: Path, tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path / "e.sock") as client:
            request = greedy(base, "hello", 60, n=2, top_logprobs=1)
            async with client.generate(request) as answer:
                first = await anext(answer)
                await until(lambda: is_idle(client))
                deltas = [first, *[delta async for delta in answer]]
            assert len(deltas) <= 4
            for index in (0, 1):
                mine = [delta for delta in deltas if delta.index == index]
                assert [token for delta in mine for token in delta.token_ids] == reference(
                    base, request
                )
                entries = [entry for delta in mine for entry in delta.logprobs or []]
                assert [entry.top[0][0] for entry in entries] == reference(base, request)
                assert mine[-1].finish_reason == "length"

    run(test)


def test_an_answer_that_nobody_reads_is_cancelled(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "MAX_UNREAD", 100)

    async def test() -> None:
        async with serving(tmp_path / "e.sock") as client:
            async with client.generate(greedy(base, "hello", 1900)) as unread:
                await anext(unread)
                assert len(await collect(client, greedy(base, "hello", 300))) == 300
                await until(lambda: is_idle(client))
                with pytest.raises(EngineUnavailable, match="nobody read it"):
                    async for _ in unread:
                        pass
            assert (await client.stats())["num_completion_tokens"] < 1900

    run(test)


def test_new_answers_go_to_the_engine_that_took_over(base: Path, tmp_path: Path) -> None:
    async def test() -> None:
        path = tmp_path / "e.sock"
        old = EngineServer(path, partial(LocalEngine, Limits(device="cpu")), drain_s=20)
        await old.start()
        ending = asyncio.create_task(old.run())
        client = EngineClient(path)
        async with client.generate(greedy(base, "hello", 400)) as answer:
            await anext(answer)
            new = EngineServer(path, partial(LocalEngine, Limits(device="cpu")), drain_s=5)
            await new.start()
            running = asyncio.create_task(new.run())
            old.drain()
            assert (await client.ping())["state"] == "ready"  # by then the client has heard of it
            assert len(await collect(client, greedy(base, "hello", 5))) == 5
            assert [delta.finish_reason async for delta in answer][-1] == "length"
        await ending
        new.drain()
        await running

    run(test)


def test_a_connection_is_kept_for_the_next_answer_and_holds_up_no_end(
    base: Path, tmp_path: Path
) -> None:
    async def test() -> None:
        path = tmp_path / "e.sock"
        server = EngineServer(path, partial(LocalEngine, Limits(device="cpu")), drain_s=20)
        await server.start()
        running = asyncio.create_task(server.run())
        client = EngineClient(path)
        lines = []
        for _ in range(2):
            assert len(await collect(client, greedy(base, "hello", 5))) == 5
            lines.append(client.line())
        assert lines[0] is lines[1] and len(server._connections) == 1
        server.drain()
        await asyncio.wait_for(running, 0.9)  # idle connections are given a second to go
        assert not lines[0].takes_more()
        with pytest.raises(EngineUnavailable):
            await collect(client, greedy(base, "hello", 5))

    run(test)


def test_only_this_user_may_connect(tmp_path: Path) -> None:
    async def test() -> None:
        path = tmp_path / "run" / "e.sock"
        path.parent.mkdir(mode=0o755)
        path.write_text("left by a dead engine")
        async with serving(path) as client:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
            assert await client.ping() == {"pid": os.getpid(), "state": "ready"}
            assert list(path.parent.iterdir()) == [path]

    run(test)


def test_leaving_early_cancels(base: Path, tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path / "e.sock") as client:
            async with client.generate(greedy(base, "hello", 2000)) as answer:
                await anext(answer)
                assert await num_open(client) == 1
            await until(lambda: is_idle(client))
            assert (await client.stats())["num_completion_tokens"] < 2000

    run(test)


def test_leaving_ends_embeddings_before_the_next_input(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    num_computed = 0

    def embed(*_: Any) -> list[float]:
        nonlocal num_computed
        num_computed += 1
        time.sleep(0.05)
        return [1.0]

    monkeypatch.setattr(passes, "embed", embed)

    async def test() -> None:
        async with serving(tmp_path / "e.sock") as client:
            task = asyncio.create_task(client.embed(embedding(base)))
            while not num_computed:
                await asyncio.sleep(0.01)
            task.cancel()
            while any(each["leases"] for each in (await client.stats())["bases"]):
                await asyncio.sleep(0.01)

    run(test)
    assert num_computed < client_module.EMBED_AT_ONCE // 2


def test_a_stopped_choice_ends_and_the_others_go_on(base: Path, tmp_path: Path) -> None:
    async def test() -> None:
        async with (
            serving(tmp_path / "e.sock") as client,
            client.generate(greedy(base, "hello", 60, n=2)) as answer,
        ):
            await anext(answer)
            answer.stop(0)
            num_ids = [0, 0]
            async for delta in answer:
                num_ids[delta.index] += len(delta.token_ids)
            assert num_ids[0] < 55
            assert num_ids[1] >= 59
            assert answer.done is not None
            assert answer.done.completion_tokens < 120

    run(test)


def test_refusals_keep_their_kind(base: Path, tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path / "e.sock", max_queue=1, max_batch=1) as client:
            with pytest.raises(BaseModelError):
                await collect(client, greedy(tmp_path / "none", "hello", 1))
            with pytest.raises(InvalidRequest):
                await collect(client, greedy(base, [100_000], 1))
            with pytest.raises(BaseModelError):
                await client.preload(tmp_path / "none")
            await client.preload(base)
            async with client.generate(greedy(base, "hello", 2000)) as running:
                await anext(running)
                waiting = asyncio.create_task(collect(client, greedy(base, "hello", 1)))
                await until(lambda: has_two(client))
                with pytest.raises(Overloaded):
                    await collect(client, greedy(base, "hello", 1))
            await waiting
            assert await client.unload(base_path=base)
            assert not await client.unload(base_path=base, adapter="0" * 64)

    async def has_two(client: EngineClient) -> bool:
        return await num_open(client) == 2

    run(test)


@pytest.mark.parametrize(
    "line",
    [
        b"not json\n",
        b"[]\n",
        b"{}\n",
        b'{"verb": "generate"}\n',
        b'{"verb": "dance"}\n',
        b'{"verb": ["stats"]}\n',
        b"[" * 50_000 + b"\n",
        b'{"verb": "preload", "base_path": []}\n',
        b'{"verb": "unload", "base_path": 5}\n',
    ],
)
def test_nonsense_is_answered_with_an_error(tmp_path: Path, line: bytes) -> None:
    async def test() -> None:
        async with serving(tmp_path / "e.sock"):
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "e.sock"))
            writer.write(line)
            assert b'"code":"invalid"' in await reader.readline()
            assert await reader.read() == b""
            writer.close()

    run(test)


def test_a_line_without_end_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server_module, "MAX_LINE_BYTES", 1000)

    async def test() -> None:
        async with serving(tmp_path / "e.sock") as client:
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "e.sock"))
            writer.write(b"[" * 100_000)
            with pytest.raises((OSError, asyncio.IncompleteReadError)):
                await reader.readexactly(1)
            writer.close()
            await client.ping()

    run(test)
    assert caplog.messages == []


def test_a_client_that_does_not_read_stops_nobody(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "MAX_UNSENT_BYTES", 10_000)

    async def test() -> None:
        async with serving(tmp_path / "e.sock") as client:
            request = greedy(base, "hello", 2000, n=3, top_logprobs=20)
            _, writer = await asyncio.open_unix_connection(str(tmp_path / "e.sock"), limit=100)
            writer.write(encode_line({"verb": "generate", "id": 1, **request.to_wire()}))
            await until(lambda: is_running(client))
            assert len(await collect(client, greedy(base, "hello", 30))) == 30
            await until(lambda: is_idle(client))
            assert (await client.stats())["num_completion_tokens"] < 6000
            writer.transport.abort()

    run(test)


def test_a_client_that_reads_late_misses_nothing(base: Path, tmp_path: Path) -> None:
    """More than the socket holds waits in the engine, and comes whole and in order."""

    async def test() -> None:
        async with serving(tmp_path / "e.sock") as client:
            request = greedy(base, "hello", 300, n=2, top_logprobs=20)
            reader, writer = await asyncio.open_unix_connection(
                str(tmp_path / "e.sock"), limit=1 << 16
            )
            writer.write(encode_line({"verb": "generate", "id": 1, **request.to_wire()}))
            await until(lambda: is_running(client))
            await until(lambda: is_idle(client))
            lines = [await reader.readline()]
            while b'"done"' not in lines[-1]:
                lines.append(await reader.readline())
            assert sum(map(len, lines)) > 300_000  # a Unix socket holds half of that
            *deltas, _ = [news for line in lines for news in json.loads(line)]
            for index in (0, 1):
                ids = [token for news in deltas if news[1] == index for token in news[2]]
                assert ids == reference(base, request)
            writer.transport.abort()

    run(test)


def test_draining_finishes_refuses_and_gives_up_in_time(base: Path, tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path / "e.sock", drain_s=1.5) as client:
            endless = client.generate(greedy(base, "hello", 2000, temperature=1.0, n=8))
            short = client.generate(greedy(base, "hello", 20))
            await anext(endless)
            await anext(short)
            await client.drain()
            assert (await client.ping())["state"] == "draining"
            with pytest.raises(Draining):
                await collect(client, greedy(base, "hello", 1))
            assert [delta.finish_reason async for delta in short][-1] == "length"
            with pytest.raises(EngineUnavailable):
                async for _ in endless:
                    pass

    run(test)


def test_a_client_that_closes_says_why_to_all_that_wait(base: Path, tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path / "e.sock") as client:
            answers = [client.generate(greedy(base, "hello", 2000)) for _ in range(3)]
            for answer in answers:
                await anext(answer)
            scoring = [asyncio.create_task(client.embed(many)) for many in [embedding(base)] * 2]
            await asyncio.sleep(0)
            client.close(Draining("because"))
            for answer in answers:
                with pytest.raises(Draining, match="because"):
                    async for _ in answer:
                        pass
            for task in scoring:
                with pytest.raises(Draining, match="because"):
                    await task
            with pytest.raises(Draining, match="because"):
                await collect(client, greedy(base, "hello", 1))
            other = EngineClient(tmp_path / "e.sock")
            while (await other.stats())["num_running"]:
                await asyncio.sleep(0.01)

    run(test)


def test_without_an_engine_the_client_says_so_soon(tmp_path: Path) -> None:
    async def test() -> None:
        client = EngineClient(tmp_path / "none.sock", connect_s=0.1)
        with pytest.raises(EngineUnavailable):
            await client.ping()
        with pytest.raises(EngineUnavailable):
            async for _ in client.generate(greedy(tmp_path, [1], 1)):
                pass

    run(test)


def test_a_starting_engine_is_waited_for(tmp_path: Path) -> None:
    async def test() -> None:
        path = tmp_path / "e.sock"
        early = asyncio.create_task(EngineClient(path, connect_s=10).ping())
        await asyncio.sleep(0.1)
        async with serving(path):
            assert (await early)["state"] == "ready"

    run(test)
