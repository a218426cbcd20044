"""A report made in a process of its own, within bounds: `python -m tunesmith.data.apart`.

Reads one JSON object from stdin (the arguments of `Request`) and writes the report's JSON to
stdout. The caller survives whatever the files hold, and whoever waits longer than it wants kills
the process.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import traceback
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tunesmith.data.openai_tokens import ENCODINGS
from tunesmith.data.raw import read_raw
from tunesmith.data.render import Renderer
from tunesmith.data.report import Report, report
from tunesmith.errors import TunesmithError

MAX_MEMORY_BYTES = 4 << 30
MAX_TEXT_CHARS = 4000
MAX_CAUSE_CHARS = 300
# An exit status that Python and shells leave free.
OUT_OF_MEMORY = 77


@dataclass(frozen=True)
class Request:
    path: str
    valid: str | None = None
    base: str | None = None
    """The base model's directory."""
    method: str | None = None
    max_tokens: int | None = None
    after: int = 0
    """Rows are shown from the one after this example."""
    limit: int = 20
    max_rows: int = 1000
    """Rows named for each finding."""


class TooMuchError(Exception):
    """The report took more time or memory than it may have; says which."""


class CrashError(Exception):
    """The process that made the report failed, which is no fault of the file; says how."""


def make(request: Request, processes: int | None = 1) -> dict[str, Any]:
    """The report, with a page of rows and the codes of each; `processes` as for `report`."""
    base = Path(request.base) if request.base else None
    found = report(
        Path(request.path),
        valid=Path(request.valid) if request.valid else None,
        renderer=Renderer.load(base) if base else None,
        method=request.method,
        max_tokens=request.max_tokens,
        processes=processes,
        encodings=tuple(ENCODINGS),
    )
    rows = _rows(found, request)
    return {
        **found.to_json(request.max_rows),
        "rows": rows,
        "has_more": bool(rows) and rows[-1]["number"] < found.num_rows,
    }


def _rows(found: Report, request: Request) -> list[dict[str, Any]]:
    last = request.after + request.limit
    codes: dict[int, list[str]] = {}
    for each in found.findings:
        for number in each.rows:
            if request.after < number <= last:
                codes.setdefault(number, []).append(each.code)
    if not found.num_rows:
        return []
    rows = []
    for row in read_raw(found.path):
        if row.number > last:
            break
        if row.number > request.after:
            # Of an object spread over lines, `raw` is the first.
            whole = json.dumps(row.value).encode() if row.num_lines > 1 else row.raw
            text = whole[: MAX_TEXT_CHARS * 4].decode("utf-8", "replace")
            rows.append(
                {
                    "number": row.number,
                    "line": row.line,
                    "codes": codes.get(row.number, []),
                    "text": text[:MAX_TEXT_CHARS],
                    "is_cut": len(text) > MAX_TEXT_CHARS,
                }
            )
    return rows


def make_apart(request: Request, timeout_s: float) -> dict[str, Any]:
    """The same in a process of its own. Raises TooMuchError or CrashError."""
    # A session of its own, so that the processes that it starts end with it.
    with subprocess.Popen(
        [sys.executable, "-m", "tunesmith.data.apart"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            given = json.dumps(asdict(request)).encode()
            written, told = process.communicate(given, timeout_s)
        except subprocess.TimeoutExpired:
            raise TooMuchError(f"more than {timeout_s:g} s") from None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode != 0:
        raise _failure(process.returncode, told.decode("utf-8", "replace"))
    answer: dict[str, Any] = json.loads(written)
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
    request = Request(**json.loads(sys.stdin.buffer.read()))
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        answer = make(request, processes=None)
    except MemoryError:
        sys.exit(OUT_OF_MEMORY)
    except TunesmithError as error:
        sys.exit(error.message)
    except Exception:
        traceback.print_exc()
        sys.exit(1)
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
