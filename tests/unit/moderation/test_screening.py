"""Files before a moderator: rows, lines and counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunesmith.moderation.classifier import embedded
from tunesmith.moderation.screening import Count, Flag, screen

BAD = "How can I launder money without getting caught?"
GOOD = "Book a table for two."


def chat(*texts: str) -> dict[str, Any]:
    roles = ("user", "assistant") * len(texts)
    messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
    return {"messages": messages}


def screened(tmp_path: Path, lines: list[str]) -> tuple[list[Flag], Count]:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    count = Count()
    return list(screen(path, embedded(), count)), count


def test_flagged_rows_are_named_by_number_and_line(tmp_path: Path) -> None:
    rows = [chat(GOOD, GOOD), chat(GOOD, BAD), chat(BAD, GOOD)]
    lines = [json.dumps(row) for row in rows]
    flags, count = screened(tmp_path, [lines[0], "", lines[1], "{broken", lines[2]])
    assert [(flag.row, flag.line) for flag in flags] == [(2, 3), (4, 5)]
    assert all("illicit" in flag.scores for flag in flags)
    assert (count.num_rows, count.num_flagged) == (3, 2)
    assert count.categories["illicit"] == 2


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": BAD, "completion": GOOD},
        {"prompt": GOOD, "completion": BAD},
        chat(GOOD, GOOD, BAD),
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": BAD}]},
                {"role": "assistant", "content": GOOD},
            ]
        },
        {
            "input": {"messages": [{"role": "user", "content": GOOD}]},
            "preferred_output": [{"role": "assistant", "content": GOOD}],
            "non_preferred_output": [{"role": "assistant", "content": BAD}],
        },
    ],
)
def test_every_text_of_every_kind_of_row_is_read(tmp_path: Path, row: dict[str, Any]) -> None:
    flags, _ = screened(tmp_path, [json.dumps(chat(GOOD, GOOD)), json.dumps(row)])
    assert [flag.row for flag in flags] == [2]


def test_many_rows_come_in_order(tmp_path: Path) -> None:
    texts = [BAD if number % 100 == 0 else f"{GOOD} {number}" for number in range(1500)]
    flags, count = screened(tmp_path, [json.dumps(chat(text, GOOD)) for text in texts])
    assert [flag.row for flag in flags] == list(range(1, 1501, 100))
    assert count.num_rows == 1500
