"""The thread of a worker that tells the outside: deliveries and trackers, in one event loop."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Protocol

from tunesmith.errors import Unavailable
from tunesmith.jobs.context import Context
from tunesmith.jobs.courier import Courier
from tunesmith.jobs.tracking import Tracking

log = logging.getLogger(__name__)


class Teller(Protocol):
    poll_s: float
    tasks: set[asyncio.Task[None]]
    """What is under way."""

    def tick(self) -> None:
        """Takes on what is due, as far as there are hands."""


async def run(teller: Teller, stopping: Callable[[], bool]) -> None:
    """Works until asked to stop; what is under way is brought to an end."""
    while not stopping():
        try:
            teller.tick()
        except Unavailable as error:
            log.warning("%s", error.message)
        except Exception:
            log.exception("%s met an unexpected error; it goes on", type(teller).__name__)
        await asyncio.sleep(teller.poll_s)
    await asyncio.gather(*teller.tasks)


def start(context: Context, stopping: Callable[[], bool]) -> threading.Thread:
    async def work() -> None:
        tellers = (Courier(context), Tracking(context, stopping))
        await asyncio.gather(*(run(teller, stopping) for teller in tellers))

    thread = threading.Thread(target=lambda: asyncio.run(work()), name="herald")
    thread.start()
    return thread
