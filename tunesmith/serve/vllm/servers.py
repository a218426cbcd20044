"""The vLLM servers behind an engine: found elsewhere, or started here, one at a time.

A start takes minutes and is nobody's own: it goes on when the request that asked for it hangs up,
and whoever needs the same server waits for the same start.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from tunesmith.errors import AdapterError, BaseModelError, TunesmithError
from tunesmith.model.adapter_files import read_spec
from tunesmith.serve.protocol import AdapterRef, Overloaded
from tunesmith.serve.vllm import server as vllm_server
from tunesmith.serve.vllm.server import RANKS, Room, VllmServer

log = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
# A server that did not start is not tried again for every request that waits for it.
REMEMBER_S = 20.0
CONNECT_S, WATCH_S = 5.0, 5.0
END_S = 30.0

Spawn = Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]]


@dataclass(frozen=True)
class Options:
    """Where vLLM is: servers that run elsewhere (`urls`), or the `python` of its environment."""

    run_dir: Path
    log_dir: Path
    adapters_dir: Path
    urls: tuple[str, ...] = ()
    api_key: str | None = None
    python: Path | None = None
    arguments: str = ""
    max_queue: int = 256


class Servers:
    """`by_base` are those that answer; `message` says what is going on with one that does not."""

    def __init__(self, options: Options, spawn: Spawn) -> None:
        self.by_base: dict[Path, VllmServer] = {}
        self.message: str | None = None
        self._options = options
        self._spawn = spawn
        self._clients = [self._client(url) for url in options.urls]
        self._reached = 0
        self._providing: asyncio.Task[None] | None = None
        self._failed: dict[Path, tuple[float, TunesmithError]] = {}
        self._lost: dict[Path, list[AdapterRef]] = {}
        """What the next server of a base is given: the adapters of the one before."""

    def start(self) -> None:
        if self._clients:
            self._spawn(self._watch_remote())

    def terminate(self) -> None:
        for server in self.by_base.values():
            server.terminate()

    @property
    def is_reached(self) -> bool:
        """False while a server elsewhere does not answer; ours start when they are needed."""
        return self._reached == len(self._clients)

    async def get(self, base: Path, rank: int) -> VllmServer:
        """The server of a base, with room for adapters of a rank; found or started if need be."""
        if rank > RANKS[-1] and not self._clients:
            raise AdapterError(
                f"vLLM serves adapters up to rank {RANKS[-1]}, and this one has rank {rank}. Serve "
                "with `--engine local`, or export the model as `merged` and add that as a base."
            )
        while (server := self._fitting(base, rank)) is None:
            if self._providing is None:
                self._providing = self._spawn(self._provide(base, rank))
                await asyncio.shield(self._providing)
            else:  # perhaps for another base, whose troubles are not ours
                with contextlib.suppress(TunesmithError):
                    await asyncio.shield(self._providing)
        return server

    async def drop(self, base: Path) -> bool:
        """Ends a base's server; False if there was none."""
        server = self.by_base.pop(base, None)
        if server is not None:
            await server.close()
        return server is not None

    async def is_replaced(self, base: Path) -> bool:
        """Whether a server that failed is one of ours that has ended, so that `get` gives another;
        one that says it is dead takes some seconds to end."""
        server = self.by_base.get(base)
        return not self._clients and (server is None or await server.has_ended(END_S))

    def _fitting(self, base: Path, rank: int) -> VllmServer | None:
        server = self.by_base.get(base)
        if server is None or server.room is None:
            return server
        assert server.process is not None
        fits = rank <= server.room.rank and server.process.returncode is None
        return server if fits else None

    async def _provide(self, base: Path, rank: int) -> None:
        try:
            if self._clients:
                self.by_base[base] = await self._find(base)
            else:
                await self._launch(base, rank)
        finally:
            self._providing = None
            self.message = None

    async def _find(self, base: Path) -> VllmServer:
        for client in self._clients:
            if server := await vllm_server.find(client, base):
                return server
        raise BaseModelError(
            f"No vLLM at {', '.join(self._options.urls)} serves {base.name}. Start one with "
            f"`vllm serve {base}`, or serve with `--engine local`."
        )

    async def _launch(self, base: Path, rank: int) -> None:
        """Starts a server in the place of the one that runs: each takes the GPU for itself."""
        at, error = self._failed.get(base, (0.0, None))
        if error is not None and time.monotonic() - at < REMEMBER_S:
            raise error
        reason = "it is asked for" if base not in self._lost else "it had ended by itself"
        if (before := self.by_base.get(base)) and before.room and rank > before.room.rank:
            reason = f"an adapter needs rank {rank}, and it had room for {before.room.rank}"
        self.message = f"vLLM starts for {base.name} once running answers have ended: {reason}"
        await self._make_way(base)
        room = await asyncio.to_thread(self._room, base, rank)
        self.message = f"vLLM starts for {base.name}, for adapters up to rank {room.rank}: {reason}"
        log.warning("%s", self.message)
        options = self._options
        assert options.python is not None
        try:
            server = await vllm_server.start(
                options.python,
                base,
                room,
                options.run_dir,
                extra=options.arguments,
                log_path=options.log_dir / "vllm.log",
            )
        except (TunesmithError, OSError, TimeoutError) as problem:
            error = BaseModelError(
                f"vLLM cannot serve {base.name}: {problem or 'it took too long'}"
            )
            self._failed[base] = time.monotonic(), error
            raise error from problem
        self.by_base[base] = server
        server.reload(self._lost.pop(base, []))
        self._spawn(self._revive(base, server))

    async def _make_way(self, base: Path) -> None:
        """Ends the server that runs; answers of this base are waited for."""
        for path, other in list(self.by_base.items()):
            if path != base and other.leases:
                raise Overloaded(f"vLLM is busy with {path.name}. Try again soon.")
            del self.by_base[path]  # nobody begins there any more
            while other.leases:
                await asyncio.sleep(vllm_server.POLL_S)
            if path == base:
                self._lost[path] = [held.ref for held in other.adapters]
            await other.close()

    async def _revive(self, base: Path, server: VllmServer) -> None:
        """Starts a server again that ended by itself, with the adapters that it had."""
        assert server.process is not None
        code = await server.process.wait()
        if self.by_base.get(base) is not server:
            return
        log.error("vLLM ended (status %s) and is started again", code)
        del self.by_base[base]
        self._lost[base] = [held.ref for held in server.adapters]
        await server.close()
        pause_s = FIRST_PAUSE_S
        while not self.by_base:
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            try:
                await self.get(base, 0)
            except TunesmithError as error:
                log.error("%s", error.message)

    def _room(self, base: Path, rank: int) -> Room:
        """For the adapters that are published here, and those that are given back."""
        directories = [*self._options.adapters_dir.glob("*")]
        directories += [ref.path for ref in self._lost.get(base, [])]
        ranks = []
        for directory in set(directories):
            with contextlib.suppress(TunesmithError):
                spec = read_spec(directory)
                ranks += [] if spec.dora else [spec.rank]
        return Room.of([*ranks, rank])

    async def _watch_remote(self) -> None:
        while True:
            reached = 0
            for client in self._clients:
                with contextlib.suppress(httpx2.HTTPError):
                    reached += (await client.get("/health")).status_code == 200
            if reached != self._reached:
                log.warning("%d of %d vLLM servers answer", reached, len(self._clients))
            self._reached = reached
            await asyncio.sleep(WATCH_S)

    def _client(self, url: str) -> httpx2.AsyncClient:
        key = self._options.api_key
        return httpx2.AsyncClient(
            base_url=url.removesuffix("/").removesuffix("/v1"),
            headers={"authorization": f"Bearer {key}"} if key else None,
            timeout=httpx2.Timeout(None, connect=CONNECT_S),
            limits=httpx2.Limits(),
        )
