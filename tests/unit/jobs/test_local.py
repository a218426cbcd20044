"""The local executor against small servers that speak the fork server's protocol."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tunesmith.jobdir.files import write_record
from tunesmith.jobdir.layout import PROCESS_FILE
from tunesmith.jobdir.process import Process, start_ticks
from tunesmith.jobs.executor import Handle, LaunchError
from tunesmith.jobs.local import LocalExecutor

# Answers each request with a child that sleeps; the job directory's name tells it what to be.
SERVER = """
import json, os, signal, subprocess, sys
from tunesmith.jobdir.process import start_ticks
signal.signal(signal.SIGCHLD, lambda *_: os.waitpid(-1, os.WNOHANG))
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    if "silent" in line:
        sys.exit(3)
    if "refused" in line:
        print(json.dumps({"error": "no"}), flush=True)
        continue
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(0, 1)
        if "family" in line:
            child = subprocess.Popen(["sleep", "60"])
            open(json.loads(line)["job_dir"], "w").write(str(child.pid))
        os.execvp("sleep", ["sleep", "60"])
    print(json.dumps({"pid": pid, "start_ticks": start_ticks(pid)}), flush=True)
"""


@pytest.fixture
def executor() -> Iterator[LocalExecutor]:
    executor = LocalExecutor((sys.executable, "-c", SERVER))
    wait(executor.ready)
    yield executor
    executor.close()


def wait(until: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_launch_poll_and_both_ways_to_end(executor: LocalExecutor, tmp_path: Path) -> None:
    polite, forced = (executor.launch("train", tmp_path) for _ in range(2))
    assert executor.poll(polite)
    executor.cancel(polite, force=False)
    wait(lambda: not executor.poll(polite))
    assert executor.poll(forced)
    executor.cancel(forced, force=True)
    wait(lambda: not executor.poll(forced))
    executor.cancel(forced, force=True)


def test_force_takes_the_children_along(executor: LocalExecutor, tmp_path: Path) -> None:
    note = tmp_path / "family"
    handle = executor.launch("train", note)
    wait(lambda: note.exists() and note.read_text() != "")
    child = int(note.read_text())
    executor.cancel(handle, force=True)
    wait(lambda: start_ticks(child) is None)


def test_a_reused_pid_is_not_ours(executor: LocalExecutor, tmp_path: Path) -> None:
    handle = executor.launch("train", tmp_path)
    other = Handle(handle.pid, handle.start_ticks + 1)
    assert not executor.poll(other)
    executor.cancel(other, force=True)
    assert executor.poll(handle)
    executor.cancel(handle, force=True)


def test_processes_outlive_it_and_are_adopted(executor: LocalExecutor, tmp_path: Path) -> None:
    handle = executor.launch("train", tmp_path)
    note = Process(handle.pid, handle.start_ticks, 5, "train")
    write_record(note, tmp_path / PROCESS_FILE)
    executor.close()
    other = LocalExecutor()
    assert other.adopt("train", tmp_path, 5) == handle
    assert other.adopt("train", tmp_path, 6) is None
    assert other.adopt("validate", tmp_path, 1) is None
    other.cancel(handle, force=True)
    wait(lambda: other.adopt("train", tmp_path, 5) is None)
    (tmp_path / PROCESS_FILE).write_text("torn")
    assert other.adopt("train", tmp_path, 5) is None


def test_a_server_that_dies_is_started_again(executor: LocalExecutor, tmp_path: Path) -> None:
    with pytest.raises(LaunchError):
        executor.launch("train", tmp_path / "silent")
    assert not executor.ready()
    wait(executor.ready)
    handle = executor.launch("train", tmp_path)
    executor.cancel(handle, force=True)


def test_a_refused_launch_is_an_error(executor: LocalExecutor, tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="no"):
        executor.launch("train", tmp_path / "refused")
    assert executor.ready()


def test_a_server_that_never_gets_ready_is_retried_ever_more_slowly(
    caplog: pytest.LogCaptureFixture,
) -> None:
    executor = LocalExecutor((sys.executable, "-c", "raise SystemExit(7)"))
    wait(lambda: not executor.ready() and "status 7" in caplog.text)
    assert not executor.ready()
    wait(lambda: not executor.ready() and "again in 2 s" in caplog.text)
    executor.close()


HOLDER = """
import sys, time
from tunesmith.jobs.local import LocalExecutor
executor = LocalExecutor((sys.executable, "-c", sys.argv[1]))
while not executor.ready():
    time.sleep(0.01)
print(executor._server.pid, flush=True)
time.sleep(60)
"""


def test_the_server_goes_when_its_worker_is_killed() -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, SERVER], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    server = int(holder.stdout.readline())
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    wait(lambda: start_ticks(server) is None)
