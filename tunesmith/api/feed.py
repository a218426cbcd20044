"""News handed to many who listen, read once for all of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from anyio.to_thread import run_sync

from tunesmith.errors import TunesmithError

log = logging.getLogger("tunesmith.api")

POLL_S = 0.25
# What a listener may leave unread before it is cut off; it comes again and reads the rest.
MAX_UNREAD = 256


@dataclass(frozen=True)
class Place:
    """A place in the order of all events: the number and the id of the newest one before it."""

    number: int
    event_id: str


@dataclass(frozen=True)
class News:
    """What happened up to a place, since the place before: bytes, ready to be sent."""

    place: Place
    by_topic: dict[str, bytes] = field(default_factory=dict)
    """By the id of a project or of a job."""
    is_more: bool = False
    """Whether there is more to be read at once."""

    def of(self, topic: str) -> bytes:
        return self.by_topic.get(topic, b"")


Queue = asyncio.Queue[News | None]


class Feed:
    """Reads while somebody listens, and hands the same bytes to all; lives in one event loop.

    `read` tells the news since a place, in a thread; without a place, only where the end is now.
    """

    def __init__(self, read: Callable[[Place | None], News]) -> None:
        self._read = read
        self._joining: list[tuple[asyncio.Future[Place], Queue]] = []
        self._queues: set[Queue] = set()
        self._wake = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self._is_closed = False

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[tuple[Place, Queue]]:
        """A place, and a queue of all news after it. None in the queue is the end: come again."""
        queue: Queue = asyncio.Queue(MAX_UNREAD + 1)
        place = asyncio.get_running_loop().create_future()
        entry = (place, queue)
        self._joining.append(entry)
        self._wake.set()
        if self._reader is None:
            self._reader = asyncio.create_task(self._read_on())
        try:
            yield await place, queue
        finally:
            self._queues.discard(queue)
            with suppress(ValueError):
                self._joining.remove(entry)

    def close(self) -> None:
        """Ends all listening, and what begins later at its beginning."""
        self._is_closed = True
        self._end_all()
        self._wake.set()

    async def _read_on(self) -> None:
        place: Place | None = None
        try:
            while self._joining or self._queues:
                self._wake.clear()
                try:
                    news = await run_sync(self._read, place)
                except TunesmithError as error:
                    # The database is busy: the news can wait.
                    log.warning("the news of the jobs were not read: %s", error.message)
                else:
                    place = news.place
                    self._hand_out(news)
                    if news.is_more:
                        continue
                await self._pause()
        finally:
            self._reader = None
            # Only where something broke; all come again, and so does the reader.
            self._end_all()

    def _hand_out(self, news: News) -> None:
        if news.by_topic:
            for queue in list(self._queues):
                if queue.qsize() < MAX_UNREAD:
                    queue.put_nowait(news)
                else:
                    self._end(queue)
        for place, queue in self._joining:
            if not place.done():
                self._queues.add(queue)
                place.set_result(news.place)
        self._joining.clear()
        if self._is_closed:
            self._end_all()

    def _end_all(self) -> None:
        for queue in list(self._queues):
            self._end(queue)

    def _end(self, queue: Queue) -> None:
        queue.put_nowait(None)
        self._queues.discard(queue)

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(POLL_S):
                await self._wake.wait()
