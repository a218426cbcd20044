"""Nothing is counted twice, and nothing is lost while the process lives."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

import pytest

from tunesmith.ops import usage as ops
from tunesmith.ops.usage import Held, Recorder, Rows
from tunesmith.store.db import open_database
from tunesmith.store.repo import usage
from tunesmith.store.repo.usage import Counts, UsageKey


def key(minute: int = 0, project: str = "proj_a", model: str = "m", key_id: str = "k") -> UsageKey:
    return UsageKey(minute, project, key_id, "", model, "base", "completions")


def test_many_threads_and_a_failing_disk(tmp_path: Path) -> None:
    db = open_database(tmp_path)
    fails = [True, False, True, True, False]

    def write(rows: Rows, held: Held) -> None:
        if fails and fails.pop():
            raise OSError("no space left")
        with db.write() as conn:
            usage.add(conn, rows)

    recorder = Recorder(write)

    def load() -> None:
        for number in range(500):
            counts = Counts(num_requests=1, input_tokens=3, output_tokens=2, input_nanos=7)
            recorder.add(key(60 * (number % 3)), counts, {})

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(10):
        with contextlib.suppress(OSError):
            recorder.flush()
    for thread in threads:
        thread.join()
    recorder.close()
    with db.read() as conn:
        [total] = usage.totals(conn, kinds=("completions",), start=0, end=600, width=3600)
        assert usage.spent_in(conn, "1970-01") == {"proj_a": 28000, "k": 28000}
    expected = Counts(num_requests=4000, input_tokens=12000, output_tokens=8000, input_nanos=28000)
    assert total.counts == expected
    db.close()


def test_what_is_held_reaches_the_books_with_its_rows() -> None:
    written: list[tuple[int, Held]] = []
    fail = [True]

    def write(rows: Rows, held: Held) -> None:
        if fail and fail.pop():
            raise OSError
        written.append((sum(counts.nanos for _, counts in rows), held))

    recorder = Recorder(write)
    recorder.add(key(), Counts(input_nanos=5), {"a": 5})
    with pytest.raises(OSError):
        recorder.flush()
    recorder.add(key(), Counts(input_nanos=6), {"a": 6, "b": 1})
    recorder.flush()
    recorder.flush()
    assert written == [(11, {"a": 11, "b": 1}), (0, {})]


def test_rows_are_written_within_a_second_by_themselves() -> None:
    seen: list[tuple[float, Rows]] = []
    recorder = Recorder(lambda rows, held: seen.append((time.monotonic(), rows)))
    recorder.start()
    added = time.monotonic()
    recorder.add(key(), Counts(num_requests=1), {})
    while not any(rows for _, rows in seen) and time.monotonic() < added + 5:
        time.sleep(0.01)
    recorder.close()
    assert next(at for at, rows in seen if rows) - added < 2 * ops.WRITE_EVERY_S


def test_recording_costs_less_than_100_microseconds() -> None:
    recorder = Recorder(lambda rows, held: None)
    best = 1.0
    for _ in range(20):
        started = time.thread_time()
        for number in range(200):
            recorder.add(key(60 * number), Counts(1, 10, 0, 5, 0, 1, 0, 1, 0), {})
        best = min(best, (time.thread_time() - started) / 200)
    assert best < 100e-6


def test_sums_by_bucket_group_and_filter(tmp_path: Path) -> None:
    db = open_database(tmp_path)
    rows = [
        (key(day * 86400 + 60 * n, project, model), Counts(num_requests=1, input_tokens=10**n))
        for day in range(2)
        for n, (project, model) in enumerate([("p", "m"), ("p", "n"), ("q", "m")])
    ]
    with db.write() as conn:
        usage.add(conn, rows)
    with db.read() as conn:
        found = usage.totals(
            conn,
            kinds=("completions",),
            start=0,
            end=2 * 86400,
            width=86400,
            group_by=("project_id",),
            only={"model": ["m"]},
        )
    assert [(each.bucket, each.group, each.counts.input_tokens) for each in found] == [
        (0, {"project_id": "p"}, 1),
        (0, {"project_id": "q"}, 100),
        (86400, {"project_id": "p"}, 1),
        (86400, {"project_id": "q"}, 100),
    ]
    db.close()
