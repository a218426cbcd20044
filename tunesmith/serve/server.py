"""The engine's socket: a line in, lines out, one request a connection."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from tunesmith.errors import TunesmithError
from tunesmith.serve.protocol import (
    MAX_LINE_BYTES,
    PASSES,
    Delta,
    Done,
    Draining,
    GenRequest,
    InvalidRequest,
    PassRequest,
    decode_line,
    encode_line,
    error_to_wire,
    pass_from_wire,
)

log = logging.getLogger(__name__)

# A reader this far behind is not reading; its request is cancelled for the others' sake.
MAX_UNSENT_BYTES = 4 << 20
# How long a finished answer may wait for its reader.
FLUSH_S = 10.0


Message = Delta | Done | TunesmithError
Deliver = Callable[[list[tuple[Any, Message]]], None]


class Engine(Protocol):
    """What computes. A ticket is the engine's name for a request; of each it delivers deltas, then
    `Done` or an error, then nothing more. Callbacks may come on any thread."""

    @property
    def state(self) -> str:
        """ "ready" where requests can be answered."""
        ...

    def start(self) -> None: ...
    def close(self) -> None: ...

    def submit(self, request: GenRequest) -> Any:
        """The request's ticket."""
        ...

    def cancel(self, ticket: Any) -> None:
        """Ends a request; no message follows."""
        ...

    def stop(self, ticket: Any, index: int) -> None:
        """Ends one choice of a request; the others go on."""
        ...

    def compute(self, request: PassRequest, done: Callable[[Any], object]) -> None:
        """Scores or embeds; `done` gets the result or a TunesmithError."""
        ...

    def preload(self, base: Path, done: Callable[[TunesmithError | None], object]) -> None:
        """Loads a base that nobody has asked for yet."""
        ...

    def unload(
        self, base: Path | None, adapter: str | None, done: Callable[[bool], object]
    ) -> None:
        """Forgets a base or an adapter (by sha256); tells whether there was one."""
        ...

    def stats(self, done: Callable[[dict[str, Any]], object]) -> None: ...

    def drain(self, on_idle: Callable[[], object]) -> None:
        """Refuses new requests from now on; calls `on_idle` once none is open."""
        ...


class EngineServer:
    """Serves an engine, made by `engine_of` to deliver to it, at `path` until it is drained."""

    def __init__(
        self, path: Path, engine_of: Callable[[Deliver], Engine], *, drain_s: float
    ) -> None:
        self._path = path
        self._drain_s = drain_s
        self._loop = asyncio.get_running_loop()
        self._engine = engine_of(self._deliver)
        self._streams: dict[Any, Stream] = {}
        self._connections: set[asyncio.Task[None]] = set()
        self._draining = asyncio.Event()
        self._idle = asyncio.Event()

    async def start(self) -> None:
        """Listens; raises OSError where the socket cannot be made."""
        listener = bind(self._path)
        self._inode = self._path.stat().st_ino
        self._server = await asyncio.start_unix_server(
            self._connected, sock=listener, limit=MAX_LINE_BYTES
        )
        self._engine.start()

    async def preload(self, base: Path) -> None:
        """Loads a base; raises what stands in the way."""
        error = await self._ask(lambda done: self._engine.preload(base, done))
        if error is not None:
            raise error

    def drain(self) -> None:
        """Refuses new requests; `run` returns when the open ones have ended or time is up."""
        if not self._draining.is_set():
            log.info("draining")
            self._draining.set()
            self._engine.drain(lambda: self._loop.call_soon_threadsafe(self._idle.set))

    async def run(self) -> None:
        """Until drained: answers whoever connects."""
        await self._draining.wait()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), self._drain_s)
        for ticket, stream in list(self._streams.items()):
            self._engine.cancel(ticket)
            stream.finish(error_to_wire(Draining("The engine shut down before the answer's end.")))
        if self._connections:
            await asyncio.wait(self._connections, timeout=1.0)
        self._server.close()
        # Another engine may have taken the path over by now.
        with contextlib.suppress(OSError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()
        self._engine.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        stream = Stream(writer)
        try:
            await self._serve(reader, stream)
        except TunesmithError as error:
            stream.finish(error_to_wire(error))
        except (OSError, EOFError, ValueError):
            stream.abort()  # gone, or a line without end
        finally:
            stream.close()
            self._connections.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, stream: Stream) -> None:
        wire = decode_line(await reader.readuntil(b"\n"))
        verb = wire.pop("verb", None)
        if verb == "generate":
            await self._generate(GenRequest.from_wire(wire), reader, stream)
        elif verb in PASSES:
            request = pass_from_wire(verb, wire)
            result = await self._ask(lambda done: self._engine.compute(request, done))
            failed = isinstance(result, TunesmithError)
            stream.finish(error_to_wire(result) if failed else {"result": result})
        elif verb == "stats":
            stream.finish(await self._ask(self._engine.stats))
        elif verb == "unload":
            base, adapter = text_in(wire, "base_path"), text_in(wire, "adapter")
            path = Path(base) if base else None
            unloaded = await self._ask(lambda done: self._engine.unload(path, adapter, done))
            stream.finish({"unloaded": unloaded})
        elif verb == "preload":
            await self.preload(Path(text_in(wire, "base_path") or ""))
            stream.finish({"loaded": True})
        elif verb == "ping":
            state = "draining" if self._draining.is_set() else self._engine.state
            stream.finish({"pid": os.getpid(), "state": state})
        elif verb == "drain":
            self.drain()
            stream.finish({"draining": True})
        else:
            raise InvalidRequest(f"The engine does not know the verb {verb!r}.")

    async def _generate(
        self, request: GenRequest, reader: asyncio.StreamReader, stream: Stream
    ) -> None:
        ticket = self._engine.submit(request)
        self._streams[ticket] = stream
        try:
            # Until the client hangs up.
            while line := await reader.readline():
                self._engine.stop(ticket, int(decode_line(line)["stop"]))
        except (OSError, KeyError, ValueError, TypeError, TunesmithError):
            stream.abort()
        finally:
            if self._streams.pop(ticket, None) is not None and not stream.finished:
                self._engine.cancel(ticket)

    def _deliver(self, messages: list[tuple[Any, Message]]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
            self._loop.call_soon_threadsafe(self._send, messages)

    def _send(self, messages: list[tuple[Any, Message]]) -> None:
        for ticket, message in messages:
            stream = self._streams.get(ticket)
            if stream is None:
                continue
            if isinstance(message, Delta):
                if not stream.write(message.to_wire()):
                    log.warning("a client does not read; its request is cancelled")
                    del self._streams[ticket]
                    self._engine.cancel(ticket)
            elif isinstance(message, TunesmithError):
                stream.finish(error_to_wire(message))
            else:
                stream.finish(message.to_wire())

    async def _ask(self, question: Callable[[Callable[[Any], object]], None]) -> Any:
        """The engine's answer to a question that is answered on its own thread."""
        future: asyncio.Future[Any] = self._loop.create_future()

        def resolve(value: Any) -> None:
            if not future.done():
                future.set_result(value)

        question(lambda value: self._loop.call_soon_threadsafe(resolve, value))
        return await future


class Stream:
    """The sending half of a connection; never waits."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.finished = False

    def write(self, wire: dict[str, Any]) -> bool:
        """False if the reader is too far behind; the connection is then cut."""
        if self.finished:
            return True
        transport = self._writer.transport
        if transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            transport.abort()
            return False
        self._writer.write(encode_line(wire))
        return True

    def finish(self, wire: dict[str, Any]) -> None:
        """The last line; the client hangs up when it has read it, or we do after a while."""
        if self.finished:
            return
        self.finished = True
        self._writer.write(encode_line(wire))
        with contextlib.suppress(OSError):
            self._writer.write_eof()
        asyncio.get_running_loop().call_later(FLUSH_S, self._writer.transport.abort)

    def close(self) -> None:
        """Once the client has hung up. Sooner, with a line of it unread, as where it ends a choice
        that has just ended, the socket would take our last line from it."""
        self._writer.close()

    def abort(self) -> None:
        self._writer.transport.abort()


def text_in(wire: dict[str, Any], key: str) -> str | None:
    value = wire.get(key)
    if value is not None and not isinstance(value, str):
        raise InvalidRequest(f"The request is not valid: {key} must be a string.")
    return value


def bind(path: Path) -> socket.socket:
    """A listening socket at `path` for this user only, in place of what a dead engine left."""
    directory = path.parent
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if directory.stat().st_uid != os.getuid():
        raise PermissionError(f"{directory} belongs to another user")
    directory.chmod(0o700)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(fresh))
    fresh.chmod(0o600)
    listener.listen(128)
    # A rename, so that whoever connects finds either the old engine or the new one.
    fresh.rename(path)
    return listener
