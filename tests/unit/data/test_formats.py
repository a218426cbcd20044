from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.formats import ChatRow, Limits, read_rows
from tunesmith.data.pair_rows import PairRow, read_pairs
from tunesmith.errors import DataError

GOOD = {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}
GOOD_LINE = json.dumps(GOOD).encode()
FAILED = "The job failed due to an invalid training file. "


def rows(tmp_path: Path, content: bytes, **options: Any) -> list[ChatRow]:
    path = tmp_path / "file-abc"
    path.write_bytes(content)
    return list(read_rows(path, **options))


def error(tmp_path: Path, content: bytes, **options: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        rows(tmp_path, content, **options)
    return caught.value


def message_row(*messages: Any, **more: Any) -> bytes:
    return json.dumps({"messages": [*messages], **more}).encode()


USER = {"role": "user", "content": "x"}
ANSWER = {"role": "assistant", "content": "y"}


def test_lines_end_at_newlines_only(tmp_path: Path) -> None:
    odd = "a\u2028b\u2029c\u0085d\x0be"
    line = json.dumps(
        {"messages": [{"role": "user", "content": odd}, ANSWER], "parallel_tool_calls": False},
        ensure_ascii=False,
    ).replace("\x0b", "\\u000b")
    content = b"\xef\xbb\xbf" + line.encode() + b"\r\n\r\n  \n" + GOOD_LINE
    first, second = rows(tmp_path, content)
    assert first.messages[0]["content"] == odd
    assert (first.number, first.line, first.parallel_tool_calls) == (1, 1, False)
    assert (second.number, second.line) == (2, 4)


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        (
            b'{"messages": [',
            "invalid_training_file",
            FAILED
            + "Invalid file format. Example 2 cannot be parsed. Error: line contains invalid "
            "json: Expecting value: line 1 column 15 (char 14) (line 2). The line is cut off.",
        ),
        (
            b'{"messages" []}',
            "invalid_training_file",
            FAILED
            + "Invalid file format. Example 2 cannot be parsed. Error: line contains invalid "
            "json: Expecting ':' delimiter: line 1 column 13 (char 12) (line 2)",
        ),
        (
            b'{"a": 1}',
            "invalid_training_file",
            FAILED + "Invalid file format. Example 2 is missing key 'messages'.",
        ),
        (
            message_row(USER, {"content": "y"}),
            "invalid_training_file",
            FAILED + "Invalid file format. Example 2, message 2 Discriminator 'role' is missing in "
            "value",
        ),
        (
            message_row(USER, ANSWER, weight=1),
            "invalid_file_format",
            "The job failed due to a file format error in the training file. Invalid file format. "
            'Example 2 contains an extra "weight".',
        ),
        (
            message_row({**USER, "weight": 1}, ANSWER),
            "invalid_file_format",
            "The job failed due to a file format error in the training file. Invalid file format. "
            'Example 2, message 1 contains an extra "weight".',
        ),
        (
            message_row(USER, ANSWER, USER),
            "invalid_training_file",
            FAILED + "Invalid file format. Example 2: the last message must be from the assistant",
        ),
        (
            message_row(USER, {**ANSWER, "weight": 0}),
            "invalid_training_file",
            FAILED + "Invalid file format. Example 2: there is nothing to learn, because every "
            "assistant message has weight 0",
        ),
        (
            message_row({"role": "bot", "content": "x"}, ANSWER),
            "invalid_training_file",
            FAILED + "Invalid file format. Example 2, message 1: 'role' is 'bot', not one of "
            "system, developer, user, assistant, tool, function",
        ),
        (
            message_row(),
            "invalid_training_file",
            FAILED + "Invalid file format. Example 2: 'messages' must be a non-empty list of "
            "messages",
        ),
        (
            message_row(USER, ANSWER, tools=[{}]),
            "invalid_training_file",
            FAILED + "Invalid file format. Example 2: 'tools[0]' must be an object with type "
            "'function'",
        ),
        (
            message_row(USER, ANSWER, parallel_tool_calls=1),
            "invalid_training_file",
            FAILED + "Invalid file format. Example 2: 'parallel_tool_calls' must be true or false",
        ),
        (
            b'{"input": {"messages": []}, "preferred_output": [], "non_preferred_output": []}',
            "invalid_training_file",
            FAILED + "Input file file-abc is in the fine-tune-preference format, but the specified "
            "fine-tuning job is not using 'dpo' as the training method "
            "(provided method=supervised).",
        ),
    ],
)
def test_the_words_of_the_api(tmp_path: Path, line: bytes, code: str, message: str) -> None:
    found = error(tmp_path, GOOD_LINE + b"\n" + line)
    assert (found.message, found.code) == (message, code)
    assert (found.param, found.line) == ("training_file", 2)
    blank_before = error(tmp_path, GOOD_LINE + b"\n\n" + line)
    assert blank_before.line == 3
    assert "(line 3)" in blank_before.message
    assert "xample 2" in blank_before.message or "Input file" in blank_before.message
    validation = error(tmp_path, GOOD_LINE + b"\n" + line, param="validation_file")
    assert validation.message == message.replace("training file", "validation file")
    assert (validation.param, validation.code) == ("validation_file", code)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"prompt": "a", "completion": "b"}', "prompt/completion pairs, but this base model"),
        (b'"text"', "expected either prompt/completion pairs or chat messages. (line 1)"),
        (b"[" + GOOD_LINE + b"]", "expected either prompt/completion pairs or chat messages."),
        (json.dumps(GOOD, indent=2).encode(), "looks like JSON spread over several lines"),
        (json.dumps([GOOD], indent=2).encode(), "looks like JSON spread over several lines"),
        (GOOD_LINE + b",\n" + GOOD_LINE, "Write each example as one JSON object on one line"),
        (b"prompt,completion\na,b\n", "Write each example as one JSON object on one line"),
        ("{\u201cmessages\u201d: []}".encode(), "typographic quotes"),
        (str(GOOD).encode(), "JSON needs double quotes"),
        (b"\xff\xfe{\x00", "the file is UTF-16 text"),
        (b"PK\x03\x04....", "the file is a zip archive"),
        (b"\x1f\x8b....", "the file is a gzip archive"),
        (b'{"messages": "\xff"}', "line is not UTF-8: byte 0xff at position 14 (line 1). Save"),
        (b'{"messages": "\xed\xa0\x80"}', "line is not UTF-8"),
        (b'{"messages": "\\ud800"}', "lone surrogate U+D800"),
        (b'{"messages": ' + b"9" * 1_000_000 + b"}", "a number of 1000000 characters"),
        (b'{"messages": 1e999}', "out of range"),
        (b'{"messages": NaN}', "NaN is not JSON"),
        (b"[" * 100_000, "nested deeper than 32 levels"),
        (b"[" * (2 << 20), "line is longer than 1048576 bytes (line 1)"),
        (b" " * (2 << 20), "line is longer than 1048576 bytes (line 1)"),
        (b"\x00" * 100, "line contains invalid json"),
    ],
)
def test_unreadable_files(tmp_path: Path, content: bytes, said: str) -> None:
    found = error(tmp_path, content)
    assert said in found.message
    assert found.line == 1
    assert found.code == "invalid_training_file"


def test_line_limit_is_exact(tmp_path: Path) -> None:
    limits = Limits(num_line_bytes=len(GOOD_LINE))
    for end in (b"", b"\n", b"\r\n"):
        assert len(rows(tmp_path, GOOD_LINE + end, limits=limits)) == 1
        assert "longer than" in error(tmp_path, GOOD_LINE + b" " + end, limits=limits).message


def test_empty_files_have_no_rows(tmp_path: Path) -> None:
    for content in (b"", b"\n\n \r\n", b"\xef\xbb\xbf"):
        assert rows(tmp_path, content) == []


@given(st.binary(max_size=200), st.integers(0, len(GOOD_LINE)))
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, cut: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "noise"
    for content in (noise, GOOD_LINE[:cut] + noise + GOOD_LINE[cut:]):
        path.write_bytes(content)
        try:
            list(read_rows(path))
        except DataError as found:
            assert found.line is not None


@pytest.mark.parametrize("fill", [b"[", b"x", b" "])
def test_a_gigabyte_in_one_line_costs_no_memory(tmp_path: Path, fill: bytes) -> None:
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.write(fill * (4 << 20))
        file.truncate(1 << 30)  # the rest reads as zeros
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from tunesmith.data.formats import read_rows\n"
        "from tunesmith.errors import DataError\n"
        "try:\n    list(read_rows(Path(sys.argv[1])))\n"
        "except DataError as error:\n    print(error)\n"
        "status = Path('/proc/self/status').read_text()\n"
        "print(status.split('VmHWM:')[1].split()[0])\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    message, peak_kib = run.stdout.splitlines()
    assert "Example 1 cannot be parsed. Error: line is longer than 1048576 bytes" in message
    assert int(peak_kib) < 100 << 10


ASK = {"role": "user", "content": "Rain?"}
BEFORE = {"role": "assistant", "content": "Where?", "weight": 1}
GOOD, BAD = ({"role": "assistant", "content": text} for text in ("Yes.", "Who knows."))
PAIR = {
    "input": {"messages": [ASK, BEFORE, ASK], "parallel_tool_calls": True},
    "preferred_output": [GOOD],
    "non_preferred_output": [BAD],
}


def pairs(tmp_path: Path, *rows: Any) -> list[PairRow]:
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(read_pairs(path, file_id="file-1"))


def test_a_pair_is_two_conversations_that_teach_their_last_answer(tmp_path: Path) -> None:
    (pair,) = pairs(tmp_path, PAIR)
    start = [ASK, {**BEFORE, "weight": 0}, ASK]
    assert pair.preferred.messages == [*start, GOOD]
    assert pair.rejected.messages == [*start, BAD]
    assert pair.preferred.parallel_tool_calls is True


def test_an_answer_of_a_pair_may_be_empty_as_one_of_a_conversation_may(tmp_path: Path) -> None:
    nothing = {"role": "assistant", "content": ""}
    (pair,) = pairs(tmp_path, PAIR | {"non_preferred_output": [nothing]})
    assert pair.rejected.messages[-1] == nothing


def test_real_pairs_are_read() -> None:
    path = Path(__file__).parents[2] / "data" / "hh_preference.jsonl"
    found = list(read_pairs(path))
    assert len(found) == 100
    assert all(each.preferred.messages[:-1] == each.rejected.messages[:-1] for each in found)


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"input": [ASK]}, "'input' must be an object"),
        ({"input": {"messages": []}}, "'input.messages' must be a non-empty list"),
        ({"input": {"messages": [ASK, GOOD]}}, "must not end with the assistant"),
        ({"input": {"messages": [ASK], "tools": [3]}}, "'input.tools[0]' must be"),
        ({"input": {"messages": [ASK], "parallel_tool_calls": 1}}, "must be true or false"),
        ({"input": {"messages": [ASK], "n": 1}}, 'input contains an extra "n"'),
        ({"preferred_output": [GOOD, GOOD]}, "'preferred_output' must be a list of one"),
        ({"preferred_output": GOOD}, "'preferred_output' must be a list of one"),
        ({"non_preferred_output": [ASK]}, "'non_preferred_output' must be an assistant message"),
        ({"non_preferred_output": [{"role": "assistant"}]}, "may be null only beside"),
        ({"preferred_completion": [GOOD]}, 'contains an extra "preferred_completion"'),
    ],
)
def test_pairs_that_are_wrong_are_named(tmp_path: Path, change: Any, says: str) -> None:
    with pytest.raises(DataError) as caught:
        pairs(tmp_path, PAIR, PAIR | change)
    assert says in caught.value.message
    assert "Example 2" in caught.value.message
    assert caught.value.line == 2


def test_a_pair_without_a_side_and_no_pair_at_all(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="missing key 'preferred_output'"):
        pairs(tmp_path, {"input": {"messages": [ASK]}})
    with pytest.raises(DataError, match="expected preference pairs"):
        pairs(tmp_path, [1])
    with pytest.raises(DataError, match=r"not using 'supervised' .*=dpo"):
        pairs(tmp_path, {"messages": [ASK, GOOD]})


def test_an_answer_may_be_a_call(tmp_path: Path) -> None:
    (pair,) = pairs(tmp_path, PAIR | {"preferred_output": [GOOD | {"tool_calls": [CALL]}]})
    assert pair.preferred.messages[-1]["tool_calls"][0]["function"]["name"] == "f"
