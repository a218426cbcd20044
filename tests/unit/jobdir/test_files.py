"""The files of a job: replaced whole, missing or there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith.jobdir.control import read_control, write_control
from tunesmith.jobdir.files import read_record, write_atomic
from tunesmith.jobdir.layout import CONTROL_FILE
from tunesmith.jobdir.process import Process
from tunesmith.jobdir.records import RecordError
from tunesmith.jobdir.spec import read_spec


def test_replacing_a_file_leaves_one_file(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    for text in (b"one", b"two"):
        write_atomic(path, text)
    assert path.read_bytes() == b"two"
    assert [each.name for each in tmp_path.iterdir()] == ["result.json"]


def test_a_missing_file_is_none_and_a_missing_spec_an_error(tmp_path: Path) -> None:
    assert read_record(Process, tmp_path / "process.json") is None
    assert read_control(tmp_path) is None
    with pytest.raises(RecordError, match=r"no spec\.json"):
        read_spec(tmp_path)


def test_control_words(tmp_path: Path) -> None:
    write_control(tmp_path, "pause")
    assert read_control(tmp_path) == "pause"
    (tmp_path / CONTROL_FILE).write_bytes(b"\xffstop")
    assert read_control(tmp_path) is None
