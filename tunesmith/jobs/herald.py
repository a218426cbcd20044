"""The thread of a worker that tells the outside: deliveries and trackers, in one event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from tunesmith.jobs.context import Context
from tunesmith.jobs.courier import Courier
from tunesmith.jobs.tracking import Tracking


def start(context: Context, stopping: Callable[[], bool]) -> threading.Thread:
    """Works until asked to stop; then what is under way is brought to an end."""

    async def work() -> None:
        await asyncio.gather(Courier(context).run(stopping), Tracking(context).run(stopping))

    thread = threading.Thread(target=lambda: asyncio.run(work()), name="herald")
    thread.start()
    return thread
