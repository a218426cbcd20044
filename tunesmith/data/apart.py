"""Work on a data file in a process of its own, within bounds: `python -m tunesmith.data.apart`.

Reads one JSON object from stdin (the name of a task and the fields of its request) and writes the
answer's JSON to stdout. The caller survives whatever the file holds, and whoever waits longer than
it wants kills the process.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import Any

from tunesmith.data import changed, counts, index, report_page, summary
from tunesmith.errors import TunesmithError

MAX_MEMORY_BYTES = 4 << 30
MAX_CAUSE_CHARS = 300
# An exit status that Python and shells leave free.
OUT_OF_MEMORY = 77

Request = (
    report_page.Request
    | index.Request
    | summary.Request
    | changed.FixRequest
    | changed.SplitRequest
    | counts.Request
)
# Request -> the work it asks for.
TASKS: Mapping[type[Any], Callable[[Any], dict[str, Any]]] = {
    report_page.Request: report_page.make,
    index.Request: index.make,
    summary.Request: summary.make,
    changed.FixRequest: changed.fix,
    changed.SplitRequest: changed.divide,
    counts.Request: counts.make,
}
NAMES = {f"{kind.__module__}.{kind.__qualname__}": kind for kind in TASKS}


class TooMuchError(Exception):
    """The work took more time or memory than it may have; says which."""


class CrashError(Exception):
    """The process that worked failed, which is no fault of the file; says how."""


class RefusedError(TunesmithError):
    """The file is not such that this could be done with it; says why."""


def work(request: Request) -> dict[str, Any]:
    """Does it here. Raises RefusedError."""
    try:
        return TASKS[type(request)](request)
    except TunesmithError as error:
        raise RefusedError(error.message) from None


def work_apart(request: Request, timeout_s: float) -> dict[str, Any]:
    """The same in a process of its own. Raises RefusedError, TooMuchError or CrashError."""
    kind = type(request)
    wire = {"task": f"{kind.__module__}.{kind.__qualname__}", "request": asdict(request)}
    # A session of its own, so that the processes that it starts end with it.
    with subprocess.Popen(
        [sys.executable, "-m", "tunesmith.data.apart"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            written, told = process.communicate(json.dumps(wire).encode(), timeout_s)
        except subprocess.TimeoutExpired:
            raise TooMuchError(f"more than {timeout_s:g} s") from None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode != 0:
        raise _failure(process.returncode, told.decode("utf-8", "replace"))
    answer: dict[str, Any] = json.loads(written)
    if "refused" in answer:
        raise RefusedError(answer["refused"])
    return answer


def _failure(code: int, told: str) -> Exception:
    """What ended the process, by its exit status and by what it wrote to stderr."""
    last = told.strip().rpartition("\n")[2][:MAX_CAUSE_CHARS]
    # Libraries in Rust and C write this and abort, where Python raises MemoryError.
    if code == OUT_OF_MEMORY or "memory allocation of" in told:
        return TooMuchError(f"more than {MAX_MEMORY_BYTES >> 30} GiB of memory")
    if code >= 0:
        return CrashError(last or f"exit status {code}")
    name = signal.Signals(-code).name if -code in set(signal.Signals) else "unknown"
    about = " (the system ran out of memory, or somebody ended it)" if name == "SIGKILL" else ""
    return CrashError(f"killed by signal {-code}, {name}{about}{': ' if last else ''}{last}")


def main() -> None:
    wire = json.loads(sys.stdin.buffer.read())
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    kind = NAMES[wire["task"]]
    task = TASKS[kind]
    if kind is report_page.Request:
        # Here all processors may be used.
        task = partial(report_page.make, processes=None)
    try:
        answer = task(kind(**wire["request"]))
    except MemoryError:
        sys.exit(OUT_OF_MEMORY)
    except TunesmithError as error:
        answer = {"refused": error.message}
    except Exception:
        traceback.print_exc()
        sys.exit(1)
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
