"""Several streams as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TypeVar

T = TypeVar("T")


async def merged(
    sources: Sequence[AsyncGenerator[T, None]], at_once: int
) -> AsyncGenerator[T, None]:
    """Items of all sources as they come, at most `at_once` of them at work.

    The first failure ends all of them and is raised; so does closing this stream.
    """
    # Bounded: a reader that is slow slows the sources, too.
    items: asyncio.Queue[T | Exception | None] = asyncio.Queue(at_once)
    slots = asyncio.Semaphore(at_once)

    async def pump(source: AsyncGenerator[T, None]) -> None:
        try:
            async with slots, aclosing(source):
                async for item in source:
                    await items.put(item)
            await items.put(None)
        except Exception as error:
            await items.put(error)

    tasks = [asyncio.create_task(pump(source)) for source in sources]
    try:
        num_open = len(tasks)
        while num_open:
            item = await items.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                num_open -= 1
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
