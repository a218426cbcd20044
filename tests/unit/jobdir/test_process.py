"""Processes are known by pid and start."""

from __future__ import annotations

import subprocess
import sys

from tunesmith.jobdir.process import Process, is_alive, start_ticks


def test_a_process_is_known_by_pid_and_start() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    ticks = start_ticks(child.pid)
    assert ticks is not None
    me = Process(child.pid, ticks, fence=1, phase="train")
    assert is_alive(me)
    assert not is_alive(Process(child.pid, ticks - 1, fence=1, phase="train"))
    child.kill()
    child.wait()
    assert not is_alive(me)
