"""A server that starts job processes in milliseconds: `python -m tunesmith.trainer.warm`.

Importing torch takes longer than a small job trains. This process imports everything once and then
forks a child for each request, one JSON object a line on standard input:

    {"phase": "validate" | "train", "job_dir": "..."}  ->  {"pid": ..., "start_ticks": ...}

Its first line says {"ready": true}; a request it cannot serve is answered {"error": ...}. It ends
with its input and leaves the children alone: they belong to the job, not to the launcher.

What is forked must be whole: no thread may run here and no OpenMP team may have been started, so
nothing is ever computed in this process.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import resource
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from tunesmith.config import MODERATION_KEY
from tunesmith.jobdir.layout import LOG_FILE
from tunesmith.jobdir.process import START_FIELD, Phase, stat_fields
from tunesmith.model import compiler
from tunesmith.model.threads import wait_briefly

PRELOADED = (
    "tunesmith.trainer.process",
    "tunesmith.trainer.validate",
    "tunesmith.train.loop",
    "tunesmith.jobdir.journal",
    "tunesmith.group.watch",
)
# Under memory pressure the system shall end a trainer before a server: it resumes by itself.
OOM_SCORE_ADJ = "500"
# On cores that are wanted by a chat, too, a job gets about a tenth (docs/operations.md).
NICE = 10
# A check streams through the file; these end one that a hostile file has sent astray.
VALIDATE_CPU_S = 3600
VALIDATE_MEMORY_BYTES = 16 << 30


def main() -> None:
    wait_briefly()
    # numpy comes along with torch, and would start threads for its own algebra, which is not used.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Meanwhile on another core; what comes of it is every child's.
    compiler.begin(compiler.LEARNING)
    for name in PRELOADED:
        importlib.import_module(name)
    importlib.import_module("tunesmith.model.learning").library()
    # Children share these pages as long as nobody writes to them; the collector would.
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, _reap)
    _say({"ready": True})
    for line in sys.stdin.buffer:
        _say(serve(line))


def serve(line: bytes) -> dict[str, Any]:
    """Starts what a request asks for; the answer."""
    try:
        request = json.loads(line)
        phase, job_dir = request["phase"], Path(request["job_dir"])
        if phase not in ("validate", "train"):
            raise ValueError(f"unknown phase {phase!r}")
        pid, start_ticks = launch(phase, job_dir)
    except (ValueError, KeyError, TypeError, OSError) as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {"pid": pid, "start_ticks": start_ticks}


def launch(phase: Phase, job_dir: Path) -> tuple[int, int]:
    """Forks a process for the phase; its pid and start. Raises OSError."""
    log = os.open(job_dir / LOG_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    # Not reaped before it is identified, however short it lives.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    try:
        pid = os.fork()
        if pid == 0:
            _child(phase, job_dir, log)
        fields = stat_fields(pid)
        assert fields is not None, "a child stays in the process table until it is reaped"
        return pid, int(fields[START_FIELD])
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        os.close(log)


def _child(phase: Phase, job_dir: Path, log: int) -> None:
    """The forked process from its first line to its end; never returns."""
    status = 1
    try:
        _become_own_process(phase, log)
        from tunesmith.trainer.process import run

        status = run(phase, job_dir)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _become_own_process(phase: Phase, log: int) -> None:
    os.setsid()
    give_way()
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE_ADJ, encoding="ascii")
    if phase == "train":
        os.environ.pop(MODERATION_KEY, None)
    else:
        resource.setrlimit(resource.RLIMIT_CPU, (VALIDATE_CPU_S, VALIDATE_CPU_S))
        resource.setrlimit(resource.RLIMIT_AS, (VALIDATE_MEMORY_BYTES, VALIDATE_MEMORY_BYTES))


def give_way() -> None:
    """Lets others go first, of whatever session: where the system shares cores between sessions,
    a process's own value counts only within its own."""
    os.setpriority(os.PRIO_PROCESS, 0, max(NICE, os.getpriority(os.PRIO_PROCESS, 0)))
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(NICE), encoding="ascii")


def _reap(number: int, frame: Any) -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0] > 0:
            pass


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
