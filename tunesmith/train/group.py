"""Where a process stands among those of its job, and how the others are started. Torch-free.

torchrun starts all of them and says in the environment which is which. Otherwise the first process
forks the rest: they share its process group, so that ending the group ends them all, and the system
ends them with it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass

PR_SET_PDEATHSIG = 1
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


def run_forked(num_processes: int, work: Callable[[Place], int]) -> int:
    """Does the work in so many processes, this one being the first; its status.

    Those that still run when the first has ended are ended.
    """
    if num_processes == 1:
        return work(Place())
    parent = os.getpid()
    children: list[int] = []
    listener = socket.create_server((LOCALHOST, 0), backlog=num_processes)
    port = listener.getsockname()[1]
    try:
        for rank in range(1, num_processes):
            pid = os.fork()
            if pid == 0:
                listener.close()
                _child(parent, Place(rank, num_processes, rank, num_processes, port), work)
            children.append(pid)
        return work(Place(0, num_processes, 0, num_processes, port, listener.detach()))
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _child(parent: int, place: Place, work: Callable[[Place], int]) -> None:
    """A forked process from its first line to its end; never returns."""
    status = 1
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:
            status = work(place)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
