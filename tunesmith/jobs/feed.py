"""The worker's end of the lines that track/protocol.py describes."""

from __future__ import annotations

import asyncio
import json
from asyncio.subprocess import Process
from typing import Any

from tunesmith.errors import TunesmithError
from tunesmith.store.repo.events import EventRow

# A tracker's own patience ends before these do.
OPEN_LIMIT_S, SEND_LIMIT_S, CLOSE_LIMIT_S = 120.0, 120.0, 300.0
# Where the worker itself is to end.
LEAVE_LIMIT_S = 15.0


class TrackingError(TunesmithError):
    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


class Feed:
    """Tells a tracker's process, and waits for its answers. Raises TrackingError."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def open(self, opening: dict[str, Any]) -> dict[str, Any]:
        answer = await self._ask({"open": opening}, "opened", OPEN_LIMIT_S)
        assert isinstance(answer, dict)
        return answer

    async def send(self, found: list[EventRow]) -> int:
        """The number of the last event that the tracker has now."""
        lines = [{"seq": one.seq, "at": one.created_at, "data": one.data} for one in found]
        return int(await self._ask({"events": lines}, "sent", SEND_LIMIT_S))

    async def close(self, status: str | None) -> None:
        """Ends the run with the job's status, or leaves it to be gone on with."""
        limit_s = LEAVE_LIMIT_S if status is None else CLOSE_LIMIT_S
        await self._ask({"close": status}, "closed", limit_s)

    async def _ask(self, line: dict[str, Any], answer: str, limit_s: float) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            async with asyncio.timeout(limit_s):
                self._process.stdin.write(json.dumps(line).encode() + b"\n")
                await self._process.stdin.drain()
                told = await self._process.stdout.readline()
        except TimeoutError:
            raise TrackingError(f"no answer within {limit_s:g} seconds") from None
        except (BrokenPipeError, ConnectionResetError):
            told = b""
        if not told:
            raise TrackingError("its process ended unexpectedly; see its log.txt")
        said: dict[str, Any] = json.loads(told)
        if "failed" in said:
            raise TrackingError(said["failed"], final=said["final"])
        return said[answer]
