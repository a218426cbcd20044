"""Runs a module as a program that ends with its launcher: `... lifeline PID MODULE ARGUMENTS`.

The kernel sends this process a SIGTERM when its parent dies, so that no API, worker or engine is
left behind by a launcher that was killed. Processes that it starts in turn (trainers) are spared.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys

PR_SET_PDEATHSIG = 1


def end_with(parent_pid: int) -> None:
    """Ties the life of this process to that of its parent, as far as the system can."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent_pid:
        # It died before the line above.
        sys.exit(1)


def main() -> None:
    parent_pid, module = int(sys.argv[1]), sys.argv[2]
    end_with(parent_pid)
    sys.argv = sys.argv[2:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
