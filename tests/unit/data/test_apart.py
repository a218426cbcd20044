"""A report in a process of its own: how it ended is told as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith.data.apart import (
    OUT_OF_MEMORY,
    CrashError,
    TooMuchError,
    _failure,
    work_apart,
)
from tunesmith.data.report_page import Request


def test_a_crash_tells_the_exception(tmp_path: Path) -> None:
    with pytest.raises(CrashError, match=r"FileNotFoundError.*no-such-file"):
        work_apart(Request(str(tmp_path / "no-such-file")), timeout_s=60)


def test_time_that_is_over_is_told(tmp_path: Path) -> None:
    with pytest.raises(TooMuchError, match=r"more than 0\.01 s"):
        work_apart(Request(str(tmp_path)), timeout_s=0.01)


@pytest.mark.parametrize(
    ("code", "told", "kind", "says"),
    [
        (OUT_OF_MEMORY, "", TooMuchError, "more than 4 GiB of memory"),
        (-6, "memory allocation of 99 bytes failed\n", TooMuchError, "more than 4 GiB of memory"),
        (-9, "", CrashError, "killed by signal 9, SIGKILL (the system ran out of memory"),
        (-11, "", CrashError, "killed by signal 11, SIGSEGV"),
        (-6, "thread panicked\nfatal\n", CrashError, "killed by signal 6, SIGABRT: fatal"),
        (1, "Traceback ...\nValueError: of this\n", CrashError, "ValueError: of this"),
        (3, "", CrashError, "exit status 3"),
    ],
)
def test_what_ended_the_process(code: int, told: str, kind: type[Exception], says: str) -> None:
    found = _failure(code, told)
    assert type(found) is kind
    assert str(found).startswith(says)
