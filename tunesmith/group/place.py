"""Where a process stands among those that train one job together. Torch-free."""

from __future__ import annotations

import os
from dataclasses import dataclass

LOCALHOST = "127.0.0.1"


@dataclass(frozen=True)
class Place:
    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    port: int | None = None
    """Where forked processes meet; torchrun brings its own place for that."""
    listen_fd: int | None = None
    """Of the first one: the socket that listens on the port."""


def assigned() -> Place | None:
    """The place that torchrun gave this process; None where it did not start it."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return None
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    local_rank = int(os.environ.get("LOCAL_RANK", rank))
    return Place(rank, size, local_rank, int(os.environ.get("LOCAL_WORLD_SIZE", size)))
