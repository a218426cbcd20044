"""How one process becomes several, where torchrun did not start them. Torch-free.

They share the first one's process group, so that ending the group ends them all, and the system
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

from tunesmith.group.place import LOCALHOST, Place

PR_SET_PDEATHSIG = 1


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
