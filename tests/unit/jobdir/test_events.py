"""The event log: appended by whole lines, read by offset."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith.ids import SystemClock
from tunesmith.jobdir import events as log
from tunesmith.jobdir.events import EventLine, read_events
from tunesmith.jobdir.journal import Journal, cut_torn_line, step_text
from tunesmith.jobdir.records import RecordError


def test_events_are_read_by_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    assert read_events(path, 0) == ([], 0)
    with Journal(path, SystemClock()) as journal:
        journal.message("start", "It begins")
        events, offset = read_events(path, 0)
        assert [event.key for event in events] == ["start"]
        path.open("ab").write(b'{"key": "to')
        assert read_events(path, offset) == ([], offset)
    with Journal(path, SystemClock()) as journal:
        journal.metrics(3, 9, {"train_loss": 0.5, "train_mean_token_accuracy": 0.75})
    events, end = read_events(path, offset)
    assert [event.key for event in events] == ["step:3"]
    assert events[0].data == {
        "step": 3,
        "total_steps": 9,
        "train_loss": 0.5,
        "train_mean_token_accuracy": 0.75,
    }
    assert end == path.stat().st_size


def test_an_offset_beyond_a_shortened_log_starts_over(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with Journal(path, SystemClock()) as journal:
        for number in range(3):
            journal.message(f"m{number}", "text")
    _, offset = read_events(path, 0)
    for wrong in (offset + 1000, offset - 5):
        events, end = read_events(path, wrong)
        assert [event.key for event in events] == ["m0", "m1", "m2"]
        assert end == offset


def test_a_long_log_comes_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "events.jsonl"
    with Journal(path, SystemClock()) as journal:
        for number in range(50):
            journal.message(f"m{number}", "text" * 10)
    monkeypatch.setattr(log, "EVENTS_CHUNK", 400)
    found: list[EventLine] = []
    offset = -1
    end = 0
    while end != offset:
        offset = end
        events, end = read_events(path, offset)
        found += events
    assert [event.key for event in found] == [f"m{number}" for number in range(50)]
    monkeypatch.setattr(log, "EVENTS_CHUNK", 20)
    with pytest.raises(RecordError, match="longer than"):
        read_events(path, 0)


@pytest.mark.parametrize(
    ("content", "left"),
    [
        (b"", b""),
        (b"torn", b""),
        (b"whole\n", b"whole\n"),
        (b"whole\ntorn", b"whole\n"),
        (b"whole\n" + b"x" * 200_000, b"whole\n"),
    ],
)
def test_a_torn_line_is_cut(tmp_path: Path, content: bytes, left: bytes) -> None:
    path = tmp_path / "log"
    path.write_bytes(content)
    cut_torn_line(path)
    assert path.read_bytes() == left


def test_the_texts_of_the_contract() -> None:
    values = {"train_loss": 0.004}
    assert step_text(299, 300, values) == "Step 299/300: training loss=0.00"
    values |= {"valid_loss": 0.161}
    assert step_text(291, 303, values) == ("Step 291/303: training loss=0.00, validation loss=0.16")
    values |= {"full_valid_loss": 0.05}
    assert step_text(300, 300, values) == (
        "Step 300/300: training loss=0.00, validation loss=0.16, full validation loss=0.05"
    )
