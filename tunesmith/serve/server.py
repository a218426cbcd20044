"""The engine's socket: lines in, lines out, all answers of a client on one connection."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import threading
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
    Stats,
    decode_line,
    encode_line,
    end_to_json,
    error_to_wire,
    news_line,
    pass_from_wire,
)

log = logging.getLogger(__name__)

# A client this far behind is not reading; its requests are cancelled for the others' sake.
MAX_UNSENT_BYTES = 64 << 20
# How long a last line may wait for its reader.
FLUSH_S = 10.0
DRAINING = {"draining": True}

Message = Delta | Done | TunesmithError
Deliver = Callable[[list[tuple[Any, Message]]], None]
Reply = Callable[[Any], object]
IsLeft = Callable[[], bool]


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

    def compute(self, request: PassRequest, done: Reply, is_left: IsLeft) -> None:
        """Scores or embeds; `done` gets the result or a TunesmithError, or None once it is left."""
        ...

    def preload(self, base: Path, done: Callable[[TunesmithError | None], object]) -> None:
        """Loads a base that nobody has asked for yet."""
        ...

    def unload(
        self, base: Path | None, adapter: str | None, done: Callable[[bool], object]
    ) -> None:
        """Forgets a base or an adapter (by sha256); tells whether there was one."""
        ...

    def stats(self, done: Callable[[Stats], object]) -> None: ...

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
        self._connections: dict[Connection, asyncio.Task[None]] = {}
        self._lock = threading.Lock()  # of the next, and of each connection's tickets
        self._answers: dict[Any, tuple[Connection, int]] = {}
        """Of each ticket, where its news go, and its number there."""
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
            for connection in self._connections:
                if connection.is_kept:
                    connection.write(encode_line(DRAINING))
            self._engine.drain(lambda: self._loop.call_soon_threadsafe(self._idle.set))

    async def run(self) -> None:
        """Until drained: answers whoever connects."""
        await self._draining.wait()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), self._drain_s)
        for ticket in list(self._answers):
            self._engine.cancel(ticket)
            self._deliver([(ticket, Draining("The engine shut down before the answer's end."))])
        if self._connections:
            await asyncio.wait(self._connections.values(), timeout=1.0)
        self._server.close()
        # Another engine may have taken the path over by now.
        with contextlib.suppress(OSError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()
        self._engine.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connection = Connection(writer)
        self._connections[connection] = task
        try:
            wire = decode_line(await reader.readuntil(b"\n"))
            if wire.get("verb") == "generate":
                await self._converse(wire, reader, connection)
            else:
                connection.finish(await self._reply(wire, reader.at_eof))
        except TunesmithError as error:
            connection.finish(error_to_wire(error))
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError):
            writer.transport.abort()  # gone, or a line without end
        finally:
            for number in list(connection.tickets):
                self._cancel(connection, number)
            connection.close()
            del self._connections[connection]

    async def _reply(self, wire: dict[str, Any], is_left: IsLeft) -> dict[str, Any]:
        verb = text_in(wire, "verb")
        if verb in PASSES:
            request = pass_from_wire(verb, wire)
            result = await self._ask(lambda done: self._engine.compute(request, done, is_left))
            if isinstance(result, TunesmithError):
                raise result
            return {"result": result}
        if verb == "stats":
            stats: Stats = await self._ask(self._engine.stats)
            return stats.to_wire()
        if verb == "unload":
            base, adapter = text_in(wire, "base_path"), text_in(wire, "adapter")
            path = Path(base) if base else None
            found = await self._ask(lambda done: self._engine.unload(path, adapter, done))
            return {"unloaded": found}
        if verb == "preload":
            await self.preload(Path(text_in(wire, "base_path") or ""))
            return {"loaded": True}
        if verb == "ping":
            state = "draining" if self._draining.is_set() else self._engine.state
            return {"pid": os.getpid(), "state": state}
        if verb == "drain":
            self.drain()
            return DRAINING
        raise InvalidRequest(f"The engine does not know the verb {verb!r}.")

    async def _converse(
        self, wire: dict[str, Any], reader: asyncio.StreamReader, connection: Connection
    ) -> None:
        """Answers of one client, until it hangs up."""
        connection.is_kept = True
        if self._draining.is_set():
            connection.write(encode_line(DRAINING))
        while True:
            verb, number = wire.pop("verb", None), number_in(wire, "id")
            ticket = connection.tickets.get(number)
            if verb == "generate":
                self._begin(number, wire, connection)
            elif verb not in ("stop", "cancel"):
                raise InvalidRequest(f"The verb {verb!r} does not go with answers.")
            elif verb == "cancel":
                self._cancel(connection, number)
            elif ticket is not None:
                self._engine.stop(ticket, number_in(wire, "index"))
            line = await reader.readline()
            if not line:
                return
            wire = decode_line(line)

    def _begin(self, number: int, wire: dict[str, Any], connection: Connection) -> None:
        if number in connection.tickets:
            raise InvalidRequest(f"The request is not valid: its id {number} is that of another.")
        del wire["id"]
        try:
            request = GenRequest.from_wire(wire)
        except InvalidRequest as error:
            connection.write(news_line([end_to_json(number, error)]))
            return
        with self._lock:  # so that no news come before it is known where they go
            ticket = connection.tickets[number] = self._engine.submit(request)
            self._answers[ticket] = connection, number

    def _cancel(self, connection: Connection, number: int) -> None:
        with self._lock:
            ticket = connection.tickets.pop(number, None)
            if ticket is not None:
                del self._answers[ticket]
                self._engine.cancel(ticket)

    def _deliver(self, messages: list[tuple[Any, Message]]) -> None:
        """Sends each client its part of what came at once as one line, on any thread."""
        news: dict[Connection, list[str]] = {}
        with self._lock:
            for ticket, message in messages:
                if (found := self._answers.get(ticket)) is None:
                    continue  # cancelled
                connection, number = found
                if isinstance(message, Delta):
                    item = message.to_json(number)
                else:
                    del self._answers[ticket], connection.tickets[number]
                    item = end_to_json(number, message)
                news.setdefault(connection, []).append(item)
        for connection, items in news.items():
            connection.write(news_line(items))

    async def _ask(self, question: Callable[[Callable[[Any], object]], None]) -> Any:
        """The engine's answer to a question that is answered on its own thread."""
        future: asyncio.Future[Any] = self._loop.create_future()

        def resolve(value: Any) -> None:
            if not future.done():
                future.set_result(value)

        question(lambda value: self._loop.call_soon_threadsafe(resolve, value))
        return await future


class Connection:
    """The sending half of a connection; never waits, and may be written to on any thread.

    What the socket takes at once does not go through the event loop: to wake that after each step,
    and to wait for it to let go of the interpreter, took longer than all the rest.
    """

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.tickets: dict[int, Any] = {}
        """Its open answers, by the client's number."""
        self.is_kept = False
        """For more answers, until the client hears that there will be none."""
        self._transport = writer.transport
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        # One of our own, so that it cannot become another connection's while we write.
        self._fd = os.dup(writer.get_extra_info("socket").fileno())
        self._is_closed = False
        self._unsent = bytearray()

    def write(self, line: bytes) -> None:
        """Sends a line, or cuts the connection of a reader that is too far behind."""
        with self._lock:
            if self._is_closed:
                return
            is_first = not self._unsent
            self._unsent += line
            if is_first:
                self._send_some()
            if is_first and self._unsent:
                self._loop.call_soon_threadsafe(self._watch)
            elif len(self._unsent) > MAX_UNSENT_BYTES:
                log.warning("a client does not read; its requests are cancelled")
                self._is_closed = True
                self._unsent.clear()
                self._loop.call_soon_threadsafe(self._transport.abort)

    def finish(self, wire: dict[str, Any]) -> None:
        """The last line; the client hangs up when it has read it, or we do after a while."""
        if self._unsent or self._transport.is_closing():
            self._transport.abort()
            return
        self._transport.write(encode_line(wire))
        with contextlib.suppress(OSError):
            self._transport.write_eof()
        self._loop.call_later(FLUSH_S, self._transport.abort)

    def close(self) -> None:
        """Once the client has hung up, or has been told the last line."""
        with self._lock:
            self._is_closed = True
            self._loop.remove_writer(self._fd)
            os.close(self._fd)
        self._transport.close()

    def _send_some(self) -> None:
        try:
            del self._unsent[: os.write(self._fd, self._unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self._unsent.clear()  # gone; who reads from it will know, too

    def _watch(self) -> None:
        with self._lock:
            if not self._is_closed:
                self._loop.add_writer(self._fd, self._flush)

    def _flush(self) -> None:
        with self._lock:
            self._send_some()
            if not self._unsent:
                self._loop.remove_writer(self._fd)


def number_in(wire: dict[str, Any], key: str) -> int:
    if isinstance(value := wire.get(key), int):
        return value
    raise InvalidRequest(f"The request is not valid: {key} must be a number.")


def text_in(wire: dict[str, Any], key: str) -> str | None:
    value = wire.pop(key, None)
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
