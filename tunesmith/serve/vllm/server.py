"""One vLLM server: what it serves, the adapters it holds, and the process where it is ours.

vLLM lives in an environment of its own, since it pins a torch of its own; all we know of it is
HTTP. Ours listens on a socket in a directory that only this user can enter, because its routes for
adapters know no users. An adapter's name is its content's hash: what it stands for never changes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shlex
import signal
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx2

from tunesmith.errors import AdapterError, BaseModelError, EngineUnavailable, TunesmithError
from tunesmith.model.adapter_files import check_content, read_spec
from tunesmith.ops.lifeline import end_with
from tunesmith.serve.protocol import AdapterRef
from tunesmith.serve.vllm import wire

log = logging.getLogger(__name__)

# The ranks that vLLM can be started for.
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
# Adapters in one batch: never fewer, so that new models do not need a restart; never more.
FEWEST_TOGETHER, MOST_TOGETHER = 4, 16
# Adapters that a server holds by name; the longest unused makes way.
MAX_LOADED = 64
# Loading a large model and compiling for it.
START_S = 1800.0
STOP_S = 20.0
POLL_S = 0.2


@dataclass(frozen=True)
class Room:
    """What a server is started for."""

    rank: int
    together: int

    @classmethod
    def of(cls, ranks: Iterable[int]) -> Room:
        """For registered adapters of these ranks. Memory and time grow with the largest."""
        ranks = list(ranks)
        needed = max(ranks, default=RANKS[0])
        rank = next((each for each in RANKS if each >= needed), RANKS[-1])
        return cls(rank, min(max(len(ranks), FEWEST_TOGETHER), MOST_TOGETHER))


def command(python: Path, base: Path, socket: Path, room: Room, extra: str) -> list[str]:
    """`vllm serve` as its 0.32 and 0.33 have it."""
    return [
        *(str(python), "-m", "vllm.entrypoints.cli.main", "serve", str(base)),
        *("--served-model-name", base.name),
        *("--uds", str(socket)),
        *("--generation-config", "vllm"),
        *("--scheduling-policy", "priority"),
        *("--structured-outputs-config", json.dumps({"backend": "guidance"})),
        "--enable-prompt-tokens-details",
        "--enable-lora",
        *("--max-lora-rank", str(room.rank)),
        *("--max-loras", str(room.together)),
        *("--max-cpu-loras", str(MAX_LOADED)),
        *shlex.split(extra),
    ]


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """For the server's process: without what is meant for ours."""
    ours = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    kept = {
        name: value
        for name, value in given.items()
        if name not in ours and not name.startswith(("TUNESMITH_", "OMP_"))
    }
    return kept | {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }


@dataclass(eq=False)
class Held:
    """An adapter that the server has, or is being given."""

    ref: AdapterRef
    ready: asyncio.Task[None]
    leases: int = 0
    last_used_s: float = field(default_factory=time.monotonic)


class VllmServer:
    """A server that answers over `client`, for the model that it calls `model`."""

    def __init__(self, client: httpx2.AsyncClient, model: str, max_positions: int) -> None:
        self.client = client
        self.model = model
        self.max_positions = max_positions
        self.leases = 0
        self.room: Room | None = None
        """What it was started for; None: it is not ours."""
        self.process: asyncio.subprocess.Process | None = None
        self._held: dict[str, Held] = {}

    @property
    def adapters(self) -> list[Held]:
        return list(self._held.values())

    @asynccontextmanager
    async def lease(self, adapter: AdapterRef | None) -> AsyncIterator[str]:
        """The name to ask for, loaded if need be, and kept until the block's end."""
        self.leases += 1
        held = None
        try:
            if adapter is None:
                yield self.model
                return
            held = self._hold(adapter)
            held.leases += 1
            await asyncio.shield(held.ready)
            yield name_of(adapter)
        finally:
            self.leases -= 1
            if held is not None:
                held.leases -= 1
                held.last_used_s = time.monotonic()

    def reload(self, refs: Iterable[AdapterRef]) -> None:
        """Begins to load what a server before this one held."""
        for ref in refs:
            self._hold(ref)

    def forget(self, sha256: str) -> bool:
        """Loads an adapter anew when it is next asked for; False if it was not there."""
        return self._held.pop(sha256, None) is not None

    async def unload(self, sha256: str) -> bool:
        """Takes an adapter's name away; answers on their way are not touched."""
        held = self._held.pop(sha256, None)
        if held is None:
            return False
        with contextlib.suppress(TunesmithError):
            await self.post("/v1/unload_lora_adapter", {"lora_name": name_of(held.ref)})
        return True

    async def post(self, path: str, body: dict[str, Any]) -> bytes:
        """The answer's body. Raises what the server said was wrong, `wire.Gone` if it is gone."""
        try:
            answer = await self.client.post(path, json=body)
        except httpx2.HTTPError as error:
            raise gone(error) from error
        if answer.status_code != 200:
            raise wire.error_of(answer.status_code, answer.content)
        return answer.content

    def _hold(self, ref: AdapterRef) -> Held:
        held = self._held.get(ref.sha256)
        if held is None:
            held = Held(ref, asyncio.create_task(self._load(ref)))
            self._held[ref.sha256] = held
            held.ready.add_done_callback(partial(self._loaded, held))
        return held

    def _loaded(self, held: Held, task: asyncio.Task[None]) -> None:
        failed = task.cancelled() or task.exception() is not None
        if failed and self._held.get(held.ref.sha256) is held:
            del self._held[held.ref.sha256]

    async def _load(self, ref: AdapterRef) -> None:
        while len(self._held) > MAX_LOADED:
            idle = [each for each in self.adapters if each.leases == 0 and each.ref != ref]
            if not idle:
                break
            oldest = min(idle, key=lambda each: each.last_used_s)
            await self.unload(oldest.ref.sha256)
        await asyncio.to_thread(check, ref)
        names = {"lora_name": name_of(ref), "lora_path": str(ref.path)}
        try:
            await self.post("/v1/load_lora_adapter", names)
        except EngineUnavailable:
            raise
        except TunesmithError as error:
            # By this name it can only be the same one: from before, or from another of us.
            if "already been loaded" not in error.message:
                short = ref.sha256[:12]
                raise AdapterError(
                    f"The adapter {short} cannot be used. {error.message}"
                ) from error

    def terminate(self) -> None:
        """Asks the process to end, if it is ours."""
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.terminate()

    async def close(self) -> None:
        """Ends the process, if it is ours, with all that it started."""
        await self.client.aclose()
        process = self.process
        if process is None:
            return
        self.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), STOP_S)
        # Also where it died by itself: what it started would go on holding the GPU's memory.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()

    async def has_ended(self, within_s: float) -> bool:
        """Whether the process, if it is ours, has ended by then."""
        if self.process is None:
            return False
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.process.wait(), within_s)
        return self.process.returncode is not None


def name_of(ref: AdapterRef) -> str:
    return f"a-{ref.sha256}"


def check(ref: AdapterRef) -> None:
    """Raises AdapterError where the files are not the adapter asked for, or not for vLLM."""
    check_content(ref.path, ref.sha256)
    if read_spec(ref.path).dora:
        raise AdapterError(
            "vLLM cannot serve DoRA adapters. Serve with `--engine local`, or export the model as "
            "`merged` and add that as a base."
        )


def gone(error: httpx2.HTTPError) -> wire.Gone:
    return wire.Gone(f"vLLM cannot be reached ({type(error).__name__}). Try again soon.")


async def models_of(client: httpx2.AsyncClient) -> list[dict[str, Any]]:
    """The server's GET /v1/models. Raises `wire.Gone`, or what the server said."""
    try:
        answer = await client.get("/v1/models")
    except httpx2.HTTPError as error:
        raise gone(error) from error
    if answer.status_code != 200:
        raise wire.error_of(answer.status_code, answer.content)
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


async def find(client: httpx2.AsyncClient, base: Path) -> VllmServer | None:
    """The server behind `client`, if it serves this base, by its path or its directory's name."""
    for each in await models_of(client):
        if each.get("parent") is None and (each["root"] == str(base) or each["id"] == base.name):
            return VllmServer(client, each["id"], each["max_model_len"])
    return None


async def start(
    python: Path, base: Path, room: Room, directory: Path, *, extra: str = "", log_path: Path
) -> VllmServer:
    """A server of our own, once it answers. Raises BaseModelError with its last words."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    log_path.parent.mkdir(parents=True, exist_ok=True)
    socket = directory / "vllm.sock"
    socket.unlink(missing_ok=True)
    log.info("starting vLLM", extra={"fields": {"base": str(base), "log": str(log_path)}})
    with log_path.open("ab") as log_file:
        process = await asyncio.create_subprocess_exec(
            *command(python, base, socket, room, extra),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log_file,
            stderr=log_file,
            env=environment(os.environ),
            start_new_session=True,
            preexec_fn=partial(end_with, os.getpid()),
        )
    client = httpx2.AsyncClient(
        transport=httpx2.AsyncHTTPTransport(uds=str(socket), limits=httpx2.Limits()),
        base_url="http://vllm",
        timeout=None,
    )
    server = VllmServer(client, base.name, 0)
    server.process, server.room = process, room
    try:
        await asyncio.wait_for(_until_ready(server, log_path), START_S)
    except BaseException:
        await server.close()
        raise
    return server


async def _until_ready(server: VllmServer, log_path: Path) -> None:
    assert server.process is not None
    while True:
        if server.process.returncode is not None:
            raise BaseModelError(f"vLLM did not start: {last_words(log_path)} (see {log_path})")
        with contextlib.suppress(httpx2.HTTPError):
            if (await server.client.get("/health")).status_code == 200:
                break
        await asyncio.sleep(POLL_S)
    server.max_positions = (await models_of(server.client))[0]["max_model_len"]


def last_words(log_path: Path) -> str:
    """The last line of a log that names an error, else its last line."""
    lines = log_path.read_text("utf-8", "replace")[-20_000:].splitlines() or [""]
    named = [line for line in lines if "Error" in line]
    return (named or lines)[-1].strip()[-300:]
