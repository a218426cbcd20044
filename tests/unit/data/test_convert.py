"""Conversions: real rows there and back, every shape that is read, what is refused and told."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from tunesmith.data import convert as module
from tunesmith.data.convert import Converted, ConvertError, convert, detect_shape
from tunesmith.data.formats import read_rows
from tunesmith.data.shapes import Options
from tunesmith.data.tables import SUFFIXES, TableError

DEMO = Path(module.__file__).parents[1] / "assets/demo/snips_heldout.jsonl"
REAL = [json.loads(line) for line in DEMO.open(encoding="utf-8")]
SYSTEM = REAL[0]["messages"][0]["content"]
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
WITH_TOOLS = {
    "messages": [
        {"role": "user", "content": "f of 1?"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": "2"},
        {"role": "assistant", "content": "It is 2."},
    ],
    "tools": TOOLS,
}
LONG = {
    "messages": [
        {"role": "system", "content": "Be brief, \u201cplease\u201d;\nalways."},
        {"role": "user", "content": 'One, "two"\r\nthree'},
        {"role": "assistant", "content": "four\u2028five \U0001f600"},
        {"role": "user", "content": "And?"},
        {"role": "assistant", "content": ""},
    ]
}


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def there_and_back(rows: list[Any], folder: Path, suffix: str, shape: str | None) -> list[Any]:
    source = write(folder / "in.jsonl", rows)
    middle, back = folder / f"middle{suffix}", folder / "back.jsonl"
    convert(source, middle, SUFFIXES[suffix], write_as=shape)
    convert(middle, back, "jsonl")
    return read(back)


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv", ".parquet"])
@pytest.mark.parametrize("shape", [None, "sharegpt", "alpaca", "columns"])
def test_real_rows_there_and_back(tmp_path: Path, suffix: str, shape: str | None) -> None:
    if suffix in (".csv", ".tsv") and shape == "sharegpt":
        with pytest.raises(TableError):
            there_and_back(REAL, tmp_path, suffix, shape)
        return
    assert there_and_back(REAL, tmp_path, suffix, shape) == REAL


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
@pytest.mark.parametrize("shape", [None, "sharegpt", "alpaca"])
def test_long_conversations_with_any_character(
    tmp_path: Path, suffix: str, shape: str | None
) -> None:
    assert there_and_back([LONG, LONG], tmp_path, suffix, shape) == [LONG, LONG]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
def test_tools(tmp_path: Path, suffix: str) -> None:
    assert there_and_back([WITH_TOOLS, REAL[0]], tmp_path, suffix, None) == [WITH_TOOLS, REAL[0]]
    shared = there_and_back([WITH_TOOLS], tmp_path, suffix, "sharegpt")
    renamed = json.loads(json.dumps(WITH_TOOLS).replace("call_1", "call_1"))
    assert shared == [renamed]


def test_prompt_and_completion_with_the_system_message_outside(tmp_path: Path) -> None:
    pairs, back = tmp_path / "pairs.jsonl", tmp_path / "back.jsonl"
    with pytest.raises(ConvertError, match=r"line 1: a system message; give --system"):
        convert(DEMO, pairs, "jsonl", write_as="completions")
    assert not pairs.exists() and list(tmp_path.iterdir()) == []
    convert(DEMO, pairs, "jsonl", write_as="completions", options=Options(SYSTEM))
    assert set(read(pairs)[0]) == {"prompt", "completion"}
    convert(pairs, back, "jsonl", options=Options(SYSTEM))
    assert read(back) == REAL


def test_csv_with_columns_of_any_name(tmp_path: Path) -> None:
    table, out = tmp_path / "t.csv", tmp_path / "out.jsonl"
    with table.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerows([["Frage", "Antwort"], ["Wie; so?", 'Darum\n"ja"']])
    for skip in (False, True):
        with pytest.raises(ConvertError, match=r"--column prompt=NAME --column completion=NAME$"):
            convert(table, out, "jsonl", skip=skip)
    options = Options(columns={"prompt": "Frage", "completion": "Antwort"})
    convert(table, out, "jsonl", options=options)
    assert [m["content"] for m in read(out)[0]["messages"]] == ["Wie; so?", 'Darum\n"ja"']
    with pytest.raises(ConvertError, match="no column 'Question'"):
        convert(table, out, "jsonl", options=Options(columns={"prompt": "Question"}))


def test_guessed_columns_and_blanks(tmp_path: Path) -> None:
    table, out = tmp_path / "t.csv", tmp_path / "out.jsonl"
    table.write_text("Question,Answer\n 1+1? , 2 \n")
    convert(table, out, "jsonl", options=Options(strip=True))
    assert [m["content"] for m in read(out)[0]["messages"]] == ["1+1?", "2"]


SHAREGPT = {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]}
ALPACA = {"instruction": "Add", "input": "1 1", "output": "2", "history": [["Hi", "Yo"]]}
STORED = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "choices": [
        {
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "Yo", "tool_calls": None, "refusal": None},
        }
    ],
    "metadata": {"a": "b"},
    "messages": [{"id": "m", "role": "user", "content": "Hi", "name": None}],
}


def pair(prompt: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]


HI = pair("Hi", "Yo")


@pytest.mark.parametrize(
    ("record", "shape", "messages"),
    [
        (SHAREGPT, "sharegpt", HI),
        (
            {"conversation": HI},
            "sharegpt",
            HI,
        ),
        (ALPACA, "alpaca", [*HI, *pair("Add\n\n1 1", "2")]),
        ({"prompt": "Hi", "completion": "Yo"}, "completions", HI),
        ({"prompt": HI[:1], "completion": HI[1:]}, "completions", HI),
        (STORED, "stored_completions", HI),
        ({"request": {"messages": HI[:1]}, "response": STORED}, "stored_completions", HI),
        ({"item": {"input": HI[:1]}, "sample": {"output_text": "Yo"}}, "stored_completions", HI),
        ({"messages": HI, "source": "x", "score": 1.5}, "chat", HI),
    ],
)  # fmt: skip
def test_shapes_are_found_and_read(
    tmp_path: Path, record: Any, shape: str, messages: list[Any]
) -> None:
    assert detect_shape(record) == shape
    out = tmp_path / "out.jsonl"
    done = convert(write(tmp_path / "in.jsonl", [record]), out, "jsonl")
    assert done.source == shape and [row.messages for row in read_rows(out)] == [messages]


def test_columns_without_a_place_are_told(tmp_path: Path) -> None:
    rows = [{"messages": HI, "source": "x", "score": 1.5}] * 2
    done = convert(write(tmp_path / "in.jsonl", rows), tmp_path / "o.jsonl", "jsonl")
    assert done.dropped_keys == {"source": 2, "score": 2}


def test_answers_that_were_cut_off_are_left_out(tmp_path: Path) -> None:
    cut = {**STORED, "choices": [{**STORED["choices"][0], "finish_reason": "length"}]}  # type: ignore[dict-item]
    done = convert(write(tmp_path / "in.jsonl", [cut, STORED]), tmp_path / "o.jsonl", "jsonl")
    assert (done.num_records, done.num_rows, done.num_unfinished) == (2, 1, 1)


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": HI[:1], "chosen": HI[1:], "rejected": [{"role": "assistant", "content": "No"}]},
        {"prompt": "Hi", "chosen": "Yo", "rejected": "No"},
        {"chosen": HI, "rejected": [HI[0], {"role": "assistant", "content": "No"}]},
        {"chosen": "\n\nHuman: Hi\n\nAssistant: Yo", "rejected": "\n\nHuman: Hi\n\nAssistant: No"},
    ],
)
def test_preference_pairs_as_others_have_them(tmp_path: Path, record: Any) -> None:
    out, back = tmp_path / "o.jsonl", tmp_path / "back.jsonl"
    convert(write(tmp_path / "in.jsonl", [record]), out, "jsonl")
    expected = {
        "input": {"messages": HI[:1]},
        "preferred_output": HI[1:],
        "non_preferred_output": [{"role": "assistant", "content": "No"}],
    }
    assert read(out) == [expected]
    convert(out, back, "jsonl", write_as="hf_preference")
    assert read(back)[0]["chosen"] == HI[1:]


def test_rows_that_do_not_fit_are_named_or_skipped(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [SHAREGPT, {"conversations": [{"from": "x"}]}, SHAREGPT])
    out = tmp_path / "o.jsonl"
    with pytest.raises(ConvertError, match=r"in.jsonl, line 2: turn 1 is from 'x'.*--skip"):
        convert(source, out, "jsonl")
    done = convert(source, out, "jsonl", skip=True)
    assert done.num_rows == 2 and len(done.skipped) == 1


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    out = tmp_path / "o.jsonl"
    for name, content, words in (
        ("a.csv", "a,b\n1,2,3\n", "cells do not fit"),
        ("a.csv", b"a,b\n\xff,2\n", "no CSV file in UTF-8"),
        ("a.csv", 'question,answer\n1,2\n"said "so" twice",2\n', "line 3: a quote inside"),
        ("a.csv", 'question,answer\n"1,2\n', "no CSV file in UTF-8: unexpected end"),
        ("a.parquet", b"PAR1 nothing", "cannot be read as Parquet"),
        ("a.jsonl", "plain\n", "no JSON object"),
        ("a.jsonl", '{"x": {"y": 1}}\n', "has no shape"),
    ):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises((TableError, ConvertError), match=words):
            convert(path, out, "jsonl")
    path.write_bytes(b"")
    assert convert(path, out, "jsonl") == Converted()


def test_without_pyarrow_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(TableError, match=r"pip install 'tunesmith\[parquet\]'"):
        convert(DEMO, tmp_path / "o.parquet", "parquet")


def test_rows_of_a_table_that_cannot_be_read_are_left_out_where_that_is_allowed(
    tmp_path: Path,
) -> None:
    table, out = tmp_path / "t.csv", tmp_path / "out.jsonl"
    table.write_text('question,answer\nA,1\n"said "so" to me",2\nB,3,4\nC,5\n')
    done = convert(table, out, "jsonl", skip=True)
    assert [row.messages[0]["content"] for row in read_rows(out)] == ["A", "C"]
    assert [reason.split(":")[0] for reason in done.skipped] == ["t.csv, line 3", "t.csv, line 4"]
