"""The event log: appended by whole lines, read by offset."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.ids import SystemClock
from tunesmith.jobdir import events as log
from tunesmith.jobdir.events import EventLine, all_events, read_events
from tunesmith.jobdir.journal import Journal, cut_torn_line, step_text
from tunesmith.jobdir.records import to_json


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


STEP = {"step": 2, "total_steps": 4, "train_loss": 0.5}
RUBBISH = {
    "half a line": b'{"key": "m1", "mess\n',
    "NUL bytes": b"\0" * 100 + b"\n",
    "no UTF-8": b'{"key": "\xff\xfe", "message": "x", "created_at": 1}\n',
    "half a character": rb'{"key": "m1", "message": "\ud800", "created_at": 1}' + b"\n",
    "half of one in data": to_json(EventLine("", "", 1, data={"a": "b"})).replace(b"b", rb"\ud800")
    + b"\n",
    "an empty line": b"\n",
    "three of them": b"\n\0\r\n\n",
    "another shape": b"[1, 2]\n",
    "another type": b'{"key": 3, "message": "x", "created_at": 1}\n',
    "another time": b'{"key": "m1", "message": "x", "created_at": 1e400}\n',
    "a time that is none": b'{"key": "m1", "message": "x", "created_at": -1}\n',
    "an absurd time": b'{"key": "m1", "message": "x", "created_at": 9%s}\n' % (b"9" * 30),
    "no number": b'{"key": "m1", "message": "x", "created_at": 1, "data": {"a": NaN}}\n',
    "depth": b'{"key": "m1", "message": "x", "created_at": 1, "data": {"a": %s%s}}\n'
    % (b"[" * 900, b"]" * 900),
    **{
        f"a step with {name} {value!s:.9}": to_json(
            EventLine("step:2", "Step", 1, "metrics", data=STEP | {name: value})
        )
        + b"\n"
        for name, value in [
            *(("step", "2"), ("step", None), ("step", True), ("total_steps", 1 << 60)),
            *(("train_loss", "low"), ("train_loss", [0.5]), ("full_valid_loss", 10**400)),
        ]
    },
    "a step without figures": to_json(EventLine("step:2", "Step", 1, "metrics")) + b"\n",
}


def told(number: int) -> bytes:
    return to_json(EventLine(f"m{number}", "text", 1_800_000_000)) + b"\n"


@pytest.mark.parametrize("rubbish", RUBBISH.values(), ids=RUBBISH.keys())
def test_what_is_no_event_becomes_a_warning(tmp_path: Path, rubbish: bytes) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(told(0) + rubbish + told(2))
    events, end = read_events(path, 0)
    assert [event.key for event in events] == ["m0", f"warn:events:{len(told(0))}", "m2"]
    assert end == path.stat().st_size
    assert events[1].level == "warn"
    assert f"({len(rubbish):,} bytes from byte {len(told(0))} on)" in events[1].message
    # The same to whoever begins here or reads again.
    assert read_events(path, len(told(0))) == (events[1:], end)
    assert read_events(path, 0) == (events, end)


def test_what_was_appended_to_half_a_line_is_read(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(told(0) + told(1)[:20] + told(2) + told(3))
    events, _ = read_events(path, 0)
    assert [event.key for event in events] == ["m0", f"warn:events:{len(told(0))}", "m2", "m3"]
    assert "(20 bytes " in events[1].message


def test_a_line_longer_than_any_event_is_passed_over_once_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "EVENTS_CHUNK", len(told(0)))
    path = tmp_path / "events.jsonl"
    path.write_bytes(told(0) + b"\0" * 1000)
    _, offset = read_events(path, 0)
    assert read_events(path, offset) == ([], offset)
    with path.open("ab") as file:
        file.write(b"\n" + told(1))
    keys = [event.key for event in all_events(path)]
    assert keys == ["m0", f"warn:events:{len(told(0))}", "m1"]


@given(st.data())
def test_rubbish_takes_nothing_with_it_but_its_own_lines(data: st.DataObject) -> None:
    lines = [told(number) for number in range(6)]
    content = b"".join(lines)
    start = data.draw(st.integers(0, len(content)))
    stop = data.draw(st.integers(start, min(len(content), start + 200)))
    rubbish = data.draw(st.binary(max_size=60) | st.just(b"") | st.just(b"\0" * 40))
    ends = list(accumulate(map(len, lines)))
    before = [f"m{n}" for n in range(6) if ends[n] <= start]
    after = [f"m{n}" for n in range(6) if ends[n] - len(lines[n]) > stop]
    with TemporaryDirectory() as directory:
        path = Path(directory) / "events.jsonl"
        path.write_bytes(content[:start] + rubbish + content[stop:])
        keys = [event.key for event in all_events(path)]
    assert keys[: len(before)] == before
    assert keys[len(keys) - len(after) :] == after
    rest = keys[len(before) : len(keys) - len(after)]
    assert len(set(rest)) == len(rest)


def test_a_journal_tells_of_damage_once(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(told(0) + RUBBISH["NUL bytes"] + told(2) + b"torn")
    for _ in range(3):
        with Journal(path, SystemClock()):
            pass
    key = f"warn:events:{len(told(0))}"
    assert [event.key for event in all_events(path)] == ["m0", key, "m2", key]
    assert path.read_bytes().count(key.encode()) == 1


def test_a_directory_in_place_of_the_log_is_moved_aside(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    for number in range(2):
        path.unlink(missing_ok=True)
        (path / "full").mkdir(parents=True)
        events, offset = read_events(path, 0)
        assert [(event.key, event.level) for event in events] == [("warn:events:directory", "warn")]
        assert read_events(path, offset) == ([], offset)
        assert list(all_events(path)) == events
        with Journal(path, SystemClock()) as journal:
            journal.message("start", "It begins")
        events, _ = read_events(path, offset)
        assert [event.key for event in events] == ["warn:events:directory", "start"]
        assert len(list(tmp_path.glob("events.jsonl.*/full"))) == number + 1


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
