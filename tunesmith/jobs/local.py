"""Runs jobs as processes of this machine, forked from a server that has torch imported already.

The server is a child of the worker and dies with it (its stdin closes); the jobs' processes are
not: they outlive both and are found again through process.json.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunesmith.config import MODERATION_KEY, without_secrets
from tunesmith.jobdir.files import read_record
from tunesmith.jobdir.layout import PROCESS_FILE
from tunesmith.jobdir.process import Phase, Process, start_ticks
from tunesmith.jobdir.records import RecordError
from tunesmith.jobs.executor import Handle, LaunchError

log = logging.getLogger(__name__)

WARM_SERVER = (sys.executable, "-m", "tunesmith.trainer.warm")

LAUNCH_TIMEOUT_S = 20.0
MAX_RESTART_DELAY_S = 30.0


class LocalExecutor:
    def __init__(self, command: Sequence[str] = WARM_SERVER) -> None:
        self._command = command
        self._server: subprocess.Popen[bytes] | None = None
        self._is_ready = False
        self._received = b""
        self._num_failures = 0
        self._not_before_s = 0.0

    def ready(self) -> bool:
        if self._server is not None and self._server.poll() is not None:
            self._lost(f"ended with status {self._server.returncode}")
        if self._server is None:
            if time.monotonic() < self._not_before_s:
                return False
            self._start()
        if not self._is_ready and self._read_line(0.0) is not None:
            self._is_ready = True
            self._num_failures = 0
        return self._is_ready

    def launch(self, phase: Phase, job_dir: Path) -> Handle:
        if not self.ready() or self._server is None or self._server.stdin is None:
            raise LaunchError("The process that starts trainers is not ready.")
        request = json.dumps({"phase": phase, "job_dir": str(job_dir)}).encode() + b"\n"
        try:
            self._server.stdin.write(request)
            self._server.stdin.flush()
        except OSError as error:
            self._lost(f"does not take requests: {error}")
            raise LaunchError("The process that starts trainers has died.") from error
        answer = self._read_line(LAUNCH_TIMEOUT_S)
        if answer is not None and "error" in answer:
            raise LaunchError(f"No process could be started: {answer['error']}")
        if answer is None or "pid" not in answer:
            self._lost(f"gave no answer to a launch: {answer}")
            raise LaunchError("The process that starts trainers gave no answer.")
        return Handle(int(answer["pid"]), int(answer["start_ticks"]))

    def poll(self, handle: Handle) -> bool:
        return start_ticks(handle.pid) == handle.start_ticks

    def cancel(self, handle: Handle, *, force: bool) -> None:
        if not self.poll(handle):
            return
        if force:
            # It leads a process group, so this takes its children along; just forked, not yet.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(handle.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(handle.pid, signal.SIGKILL if force else signal.SIGTERM)

    def adopt(self, phase: Phase, job_dir: Path, min_fence: int) -> Handle | None:
        try:
            process = read_record(Process, job_dir / PROCESS_FILE)
        except RecordError:
            return None
        if process is None or process.phase != phase or process.fence < min_fence:
            return None
        handle = Handle(process.pid, process.start_ticks)
        return handle if self.poll(handle) else None

    def close(self) -> None:
        server, self._server = self._server, None
        self._is_ready = False
        if server is None:
            return
        for pipe in (server.stdin, server.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            server.wait(2.0)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()

    def _start(self) -> None:
        self._received = b""
        # Its own session: Ctrl-C in the terminal is for the worker to act on.
        self._server = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
            # Trainers get their job's directory, and no credentials; what checks their files
            # may have to ask a moderation model.
            env=without_secrets(os.environ, keep=MODERATION_KEY),
        )

    def _lost(self, how: str) -> None:
        self._num_failures += 1
        delay_s = min(2.0 ** (self._num_failures - 1), MAX_RESTART_DELAY_S)
        log.error("the process that starts trainers %s; again in %.0f s", how, delay_s)
        self._not_before_s = time.monotonic() + delay_s
        self.close()

    def _read_line(self, timeout_s: float) -> dict[str, Any] | None:
        """The next line of the server, waiting at most that long."""
        assert self._server is not None and self._server.stdout is not None
        stdout = self._server.stdout
        deadline = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while b"\n" not in self._received:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    return None
                chunk = os.read(stdout.fileno(), 65536)
                if not chunk:
                    return None
                self._received += chunk
        line, _, self._received = self._received.partition(b"\n")
        try:
            answer = json.loads(line)
        except ValueError:
            return {}
        return answer if isinstance(answer, dict) else {}
