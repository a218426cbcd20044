"""Streams run together, a few at a time, and end together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from tunesmith.api.merged import merged


class Sources:
    """Counts how many of its streams are at work, and how many were closed."""

    def __init__(self) -> None:
        self.at_work = self.most = self.closed = 0

    async def stream(
        self, name: int, num_items: int, fail: bool = False
    ) -> AsyncGenerator[int, None]:
        self.at_work += 1
        self.most = max(self.most, self.at_work)
        try:
            for _ in range(num_items):
                await asyncio.sleep(0)
                yield name
            if fail:
                raise ValueError(name)
        finally:
            self.at_work -= 1
            self.closed += 1


def test_every_item_comes_once_and_few_streams_work_at_a_time() -> None:
    async def run() -> None:
        sources = Sources()
        streams = [sources.stream(name, name % 4) for name in range(20)]
        found = [item async for item in merged(streams, 3)]
        assert sorted(found) == sorted(name for name in range(20) for _ in range(name % 4))
        assert sources.most == 3
        assert sources.closed == 20

    asyncio.run(run())


def test_a_failure_ends_all_of_them() -> None:
    async def run() -> None:
        sources = Sources()
        streams = [sources.stream(1, 1000), sources.stream(2, 2, fail=True)]
        with pytest.raises(ValueError, match="2"):
            async for _ in merged(streams, 8):
                pass
        assert sources.at_work == 0

    asyncio.run(run())


def test_closing_ends_all_of_them() -> None:
    async def run() -> None:
        sources = Sources()
        stream = merged([sources.stream(name, 1000) for name in range(4)], 2)
        assert await anext(stream) in (0, 1)
        await stream.aclose()
        assert sources.at_work == 0

    asyncio.run(run())


def test_no_streams_are_an_empty_one() -> None:
    async def run() -> list[int]:
        return [item async for item in merged([], 2)]

    assert asyncio.run(run()) == []
