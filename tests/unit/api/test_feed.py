"""One reader, many listeners."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tunesmith.api import feed as module
from tunesmith.api.feed import Feed, News, Place, Queue
from tunesmith.errors import Unavailable


class Source:
    """Counts up by one whenever `more` is called; each number is news of its own."""

    def __init__(self) -> None:
        self.number = 0
        self.num_reads = 0
        self.is_busy = False

    def more(self, num: int = 1) -> None:
        self.number += num

    def read(self, place: Place | None) -> News:
        self.num_reads += 1
        if self.is_busy:
            raise Unavailable("busy")
        if place is None or place.number == self.number:
            return News(place or Place(self.number, str(self.number)))
        number = place.number + 1
        text = f"{number} ".encode()
        return News(Place(number, str(number)), {"a": text}, is_more=number < self.number)


def run(test: Callable[[Source, Feed], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        source = Source()
        async with asyncio.timeout(10):
            await test(source, Feed(source.read))

    asyncio.run(main())


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.01)


async def take(queue: Queue, num: int) -> bytes:
    found = [await queue.get() for _ in range(num)]
    return b"".join(news.of("a") for news in found if news is not None)


def test_all_listeners_get_the_same_from_one_reading() -> None:
    async def test(source: Source, feed: Feed) -> None:
        source.more(3)
        async with feed.listen() as (place, first), feed.listen() as (same, second):
            assert (place.number, same.number) == (3, 3)
            reads = source.num_reads
            source.more(2)
            one, two = [await first.get() for _ in "ab"], [await second.get() for _ in "ab"]
            assert [news.of("a") for news in one if news] == [b"4 ", b"5 "]
            assert all(mine is yours for mine, yours in zip(one, two, strict=True))
            assert source.num_reads - reads <= 10

    run(test)


def test_who_comes_later_hears_from_its_place_on() -> None:
    async def test(source: Source, feed: Feed) -> None:
        async with feed.listen() as (_, first):
            source.more()
            assert await take(first, 1) == b"1 "
            async with feed.listen() as (place, second):
                source.more()
                assert place.number == 1
                assert await take(second, 1) == b"2 "

    run(test)


def test_nothing_is_read_while_nobody_listens() -> None:
    async def test(source: Source, feed: Feed) -> None:
        async with feed.listen():
            pass
        await asyncio.sleep(0.05)
        reads = source.num_reads
        await asyncio.sleep(0.1)
        assert source.num_reads == reads
        source.more(7)
        async with feed.listen() as (place, queue):
            assert place.number == 7
            source.more()
            assert await take(queue, 1) == b"8 "

    run(test)


def test_a_listener_that_does_not_read_is_cut_off_and_others_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_UNREAD", 3)

    async def test(source: Source, feed: Feed) -> None:
        async with feed.listen() as (_, slow), feed.listen() as (_, quick):
            for number in range(1, 6):
                source.more()
                assert await take(quick, 1) == f"{number} ".encode()
            assert await take(slow, 3) == b"1 2 3 "
            assert await slow.get() is None

    run(test)


def test_a_database_that_is_busy_delays_the_news() -> None:
    async def test(source: Source, feed: Feed) -> None:
        async with feed.listen() as (_, queue):
            source.is_busy = True
            source.more()
            await asyncio.sleep(0.05)
            assert queue.empty()
            source.is_busy = False
            assert await take(queue, 1) == b"1 "

    run(test)


def test_closing_ends_those_who_listen_and_those_who_come() -> None:
    async def test(source: Source, feed: Feed) -> None:
        async with feed.listen() as (_, queue):
            feed.close()
            assert await queue.get() is None
        async with feed.listen() as (_, late):
            assert await late.get() is None

    run(test)


def test_a_reader_that_breaks_ends_its_listeners_and_the_next_gets_a_new_one() -> None:
    async def test(source: Source, feed: Feed) -> None:
        async with feed.listen() as (_, queue):
            source.number = -1  # makes `read` fail below: there is no such news
            broken, source.read = source.read, None  # type: ignore[assignment, method-assign]
            feed._read = source.read
            assert await queue.get() is None
        feed._read = broken
        async with feed.listen() as (_, queue):
            source.more()
            assert await take(queue, 1) == b"0 "

    run(test)
