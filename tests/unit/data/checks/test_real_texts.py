"""Texts of real data that look like a fault and are none, beside those that are one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.data.checks.plants import write
from tunesmith.data.checks.language import language, of_pair
from tunesmith.data.checks.privacy import spans
from tunesmith.data.convert import convert
from tunesmith.data.formats import read_rows
from tunesmith.data.report import report


def kinds(text: str) -> list[str]:
    return [span.kind for span in spans(text)]


@pytest.mark.parametrize(
    "text",
    [
        "He made <<4111111111111111*2=8222222222222222>> of it",
        "so 4111111111111111 * 2 is a lot",
        "it costs $4111111111111111",
        "216606400000 1996 08 21 88 16 3246910707506000",
        "4111-1111 1111-1111",
        "order 9111111111111111 of 7011111111111111",
        "411111111111112 has too few digits",
    ],
)
def test_numbers_that_are_no_cards(text: str) -> None:
    assert "card number" not in kinds(text)


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1111",
        "4111-1111-1111-1111.",
        "5500005555555559",
        "2223003122003222",
        "3782 822463 10005",
        "My card: 6011111111111117, thanks",
        "30569309025904",
        "3530111333300000",
    ],
)
def test_numbers_of_cards(text: str) -> None:
    assert kinds(text) == ["card number"]


@pytest.mark.parametrize(
    "text",
    [
        "1 plus 1 plus 1 plus 1 plus 1 equals 5",
        "10 per week, 2 per day and 5 per month per person",
        "Ho ho ho.",
        "Ha ha ha no good",
        "add artist to lo mejor de los 00's",
        "Charlie co-engaged http://t.co/z http://t.co/w i w/ him",
    ],
)
def test_texts_of_no_clear_language(text: str) -> None:
    assert language(text) in ("", "en")


def test_asking_for_a_language_is_no_mismatch() -> None:
    chinese = "\u5979\u5468\u4e00\u53bb\u4e86\u5b66\u6821\u4f46\u662f\u5374\u53d1\u73b0\u6ca1\u6709"
    assert of_pair("Translate the sentence that I have for you, please.", chinese)[1] == ""
    assert of_pair("What is the name of the place that you have found?", chinese) == ("en", "zh")


def tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {}}}


def call(name: str, tools: list[str]) -> dict[str, Any]:
    function = {"name": name, "arguments": "{}"}
    answer = {"role": "assistant", "tool_calls": [{"type": "function", "function": function}]}
    question = {"role": "user", "content": "What is the area of a circle with a radius of 10?"}
    return {"messages": [question, answer], "tools": [tool(each) for each in tools]}


def test_the_same_question_with_other_tools_is_another_one(tmp_path: Path) -> None:
    rows = [call("area", ["area"]), call("circle", ["circle"])] * 6
    found = report(write(tmp_path / "a.jsonl", rows[:2])).findings
    assert not {"contradiction", "exact_duplicate"} & {each.code for each in found}
    rows = [call("area", ["area", "circle"]), call("circle", ["area", "circle"])]
    found = report(write(tmp_path / "a.jsonl", rows)).findings
    assert "contradiction" in {each.code for each in found}


def test_a_column_without_a_name_is_no_system_message(tmp_path: Path) -> None:
    table, out = tmp_path / "a.csv", tmp_path / "a.jsonl"
    table.write_text(",question,answer\n0,Why?,Because.\n")
    convert(table, out, "jsonl")
    assert [message["role"] for row in read_rows(out) for message in row.messages] == [
        "user",
        "assistant",
    ]
