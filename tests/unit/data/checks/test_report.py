"""The report as a whole: pieces, progress, what leaves it."""

from __future__ import annotations

import json
import os
import random
import signal
from pathlib import Path

import pytest

from tests.unit.data.checks.plants import CHAT, ROOT, dump, load, write
from tunesmith.data import scan
from tunesmith.data.codes import CODES, SEVERITIES
from tunesmith.data.raw import read_raw
from tunesmith.data.report import report, warnings
from tunesmith.data.sarif import to_sarif


def planted(tmp_path: Path) -> Path:
    rng = random.Random(8)
    rows = load("sgd_chat.jsonl")
    plants = [plant for each in CHAT.values() for plant in each]
    changed = [rng.choice(plants)(row) if rng.random() < 0.3 else row for row in rows * 2]
    return write(tmp_path / "a.jsonl", changed)


def test_every_code_is_documented() -> None:
    text = (ROOT / "docs" / "data.md").read_text()
    assert [code for code in CODES if f"`{code}`" not in text] == []


def test_pieces_read_by_several_processes_give_the_same_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = planted(tmp_path)
    told: list[tuple[int, int]] = []
    counted = ("cl100k_base", "o200k_base")
    whole = report(path, processes=1, encodings=counted)
    monkeypatch.setattr(scan, "PIECE_BYTES", 20_000)
    monkeypatch.setattr(scan, "MIN_BYTES_FOR_PROCESSES", 0)
    pieces = report(
        path,
        processes=2,
        encodings=counted,
        progress=lambda done, size: told.append((done, size)),
    )
    assert whole.notebook is not None and whole.openai_tokens is not None
    assert pieces.to_json() == whole.to_json()
    size = path.stat().st_size
    assert told[-1] == (size, size)
    assert len(told) > 5
    assert told == sorted(told)


def test_a_process_that_is_killed_ends_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(scan, "scan_piece", killed)
    monkeypatch.setattr(scan, "MIN_BYTES_FOR_PROCESSES", 0)
    with pytest.raises(scan.ScanError, match="ended from outside"):
        report(planted(tmp_path), processes=2)


def test_the_most_serious_findings_come_first(tmp_path: Path) -> None:
    result = report(planted(tmp_path))
    places = [SEVERITIES.index(each.severity) for each in result.findings]
    assert places == sorted(places)
    assert result.exit_code() == 1


def test_messages_quote_no_text_of_the_rows(tmp_path: Path) -> None:
    rows = load("sgd_chat.jsonl")
    rows[3]["messages"][1]["content"] += " hunter2 sk-" + "proj-a1B2c3D4e5F6g7H8i9J0k1L2"
    text = json.dumps(report(write(tmp_path / "a.jsonl", rows)).to_json())
    assert "hunter2" not in text
    assert "a1B2c3" not in text


def test_exit_codes(tmp_path: Path) -> None:
    rows = load("sgd_chat.jsonl")
    clean = report(write(tmp_path / "a.jsonl", rows))
    assert (clean.exit_code(), clean.exit_code(strict=True)) == (0, 0)
    warned = report(write(tmp_path / "a.jsonl", [*rows, rows[0]]))
    assert (warned.exit_code(), warned.exit_code(strict=True)) == (0, 1)


def test_warnings_for_a_job_are_bounded(tmp_path: Path) -> None:
    found = report(planted(tmp_path))
    texts = warnings(found, max_findings=2)
    assert len(texts) == 3
    assert "further findings" in texts[-1]
    assert warnings(report(write(tmp_path / "b.jsonl", load("sgd_chat.jsonl")))) == []


def test_sarif_names_lines(tmp_path: Path) -> None:
    rows = dump(load("sgd_chat.jsonl"))
    rows[6] = b"{"
    run = to_sarif(report(write(tmp_path / "a.jsonl", rows)))["runs"][0]
    [result] = [each for each in run["results"] if each["ruleId"] == "invalid_json"]
    assert result["level"] == "error"
    assert result["locations"][0]["physicalLocation"]["region"] == {"startLine": 7}
    assert {rule["id"] for rule in run["tool"]["driver"]["rules"]} == set(CODES)


def test_figures_are_those_of_the_rows(tmp_path: Path) -> None:
    rows = load("sgd_chat.jsonl")
    figures = report(write(tmp_path / "a.jsonl", rows)).figures
    counts = [len(row["messages"]) for row in rows]
    assert figures["num_examples"] == 150
    assert figures["num_missing_system"] == figures["num_missing_user"] == 0
    assert figures["num_messages"]["max"] == max(counts)
    assert figures["num_messages"]["mean"] == pytest.approx(sum(counts) / 150)


def test_raw_rows_know_their_place(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\n{\n"b": 2\n}\n{"c": 3, "c": 4}\n')
    rows = list(read_raw(path))
    assert [(row.number, row.line, row.value) for row in rows] == [
        (1, 1, {"a": 1}),
        (2, 3, {"b": 2}),
        (3, 6, {"c": 4}),
    ]
    assert rows[0].crlf
    assert rows[1].num_blank == 1
    assert rows[1].problem is not None
    assert rows[2].duplicates == ("c",)
