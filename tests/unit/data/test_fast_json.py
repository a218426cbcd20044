"""The fast way of reading lines sees what the careful one sees, or leaves the line to it."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.fuzz.mutations import mutated
from tunesmith.data import fast_json, strict_json
from tunesmith.data.formats import ChatRow, Limits, Place, chat_row, parse, read_rows
from tunesmith.data.messages import normalise_messages
from tunesmith.data.raw import read_raw
from tunesmith.errors import DataError

DATA = Path(__file__).parents[2] / "data"
ROLES = st.sampled_from(["user", "assistant", "system", "developer", "tool", "robot", "us\u0435r"])
KEYS = st.sampled_from(["messages", "role", "content", "weight", "name", 'q"', "b\\", "\u00e9", ""])
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=12),
    st.text(alphabet='\\"{}[]:,\n\u00e9\U0001f600', max_size=12),
    ROLES,
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": ROLES, "content": st.text(max_size=12)})
    | st.dictionaries(KEYS, VALUES, max_size=3),
    max_size=4,
)
ROWS = st.builds(lambda messages: {"messages": messages}, MESSAGES) | VALUES


class Writer:
    """Writes a value as any writer of JSON might: spaces, escapes, and keys more than once."""

    def __init__(self, rng: random.Random, share_twice: float = 0.0) -> None:
        self._rng = rng
        self._share_twice = share_twice
        self.num_twice = 0

    def write(self, value: Any) -> str:
        if isinstance(value, dict):
            pairs = list(value.items())
            for key, item in value.items():
                if self._rng.random() < self._share_twice:
                    self.num_twice += 1
                    other = self._rng.choice((item, None, "", '"', {}, {"a": "b"}, 1))
                    pairs.insert(self._rng.randrange(len(pairs) + 1), (key, other))
            written = (f"{self.text(key)}{self.gap()}:{self.write(item)}" for key, item in pairs)
            return f"{self.gap()}{{{','.join(written)}{self.gap()}}}{self.gap()}"
        if isinstance(value, list):
            return f"{self.gap()}[{','.join(map(self.write, value))}{self.gap()}]{self.gap()}"
        return self.gap() + (self.text(value) if isinstance(value, str) else json.dumps(value))

    def gap(self) -> str:
        return self._rng.choice(("", "", "", " ", "\t", " \r "))

    def text(self, text: str) -> str:
        written = json.dumps(text, ensure_ascii=self._rng.random() < 0.5)
        if not self._rng.random() < 0.2 or not text.isascii():
            return written
        return '"' + "".join(f"\\u{ord(char):04x}" for char in text) + '"'


def careful(line: bytes) -> tuple[Any, list[str]]:
    duplicates: list[str] = []
    return strict_json.loads(line.decode(), duplicates=duplicates), duplicates


def agree(line: bytes) -> None:
    """What the fast ways say is what the careful one says, types, order and signs of zeros too."""
    for found in (fast_json.conversation(line), fast_json.loads(line)):
        if found is not None:
            value, duplicates = careful(line)
            assert repr(found) == repr(value)
            assert duplicates == []
    found = fast_json.loads(line, last_counts=True)
    if found is not None:
        assert repr(found) == repr(careful(line)[0])
    messages = fast_json.plain_messages(line)
    if messages is not None:
        value, _ = careful(line)
        assert value.keys() == {"messages"} and len(value["messages"]) == len(messages)
        if messages:
            assert repr(messages) == repr(normalise_messages(value["messages"], training=True))


@settings(max_examples=300, deadline=None)
@given(ROWS, st.integers(0, 1 << 30))
def test_written_values(value: Any, seed: int) -> None:
    agree(Writer(random.Random(seed)).write(value).encode())


@settings(max_examples=300, deadline=None)
@given(ROWS, st.integers(0, 1 << 30))
def test_keys_that_are_there_twice_are_never_missed(value: Any, seed: int) -> None:
    writer = Writer(random.Random(seed), share_twice=0.4)
    line = writer.write(value).encode()
    if writer.num_twice:
        assert fast_json.conversation(line) is None
        assert fast_json.loads(line) is None
    agree(line)


SHORT = '{"messages": [{"role": "user", "content": "%s"}]}'
NUMBERS = (
    *("0", "-0", "-0.0", "1E5", "1e-400", "1e400", "-1e999", "0.1", "1.0", "5e-324", "1e22"),
    *("9007199254740993", "9223372036854775808", "18446744073709551616", "-9223372036854775809"),
    *("2.2250738585072011e-308", "0.30000000000000004", "123456789012345678", "1" * 401, "01"),
    *("179769313486231580793e289", "1." + "3" * 450, "+1", "1.", ".5", "0x1", "NaN", "-Infinity"),
)


@settings(max_examples=500)
@given(st.binary(max_size=80))
@example(b"\xef\xbb\xbf{}")
@example(b'{"messages": []}')
@example(b'{"messages": [],}')
@example(b'{"messages": []} {}')
@example(b'{"a": 1, "\\u0061": 2}')
@example(b'{"messages": [{"role": "user", "rol\\u0065": "user", "content": ""}]}')
@example(b'{"messages": [{"content": "a", "role": "user"}]}')
@example(b"[" * 100_000)
@example(b"[" * 33 + b"]" * 33)
@example(b'{"a":' * 100_000)
def test_any_bytes(noise: bytes) -> None:
    agree(noise)
    whole = SHORT.encode() % b"abc"
    for place in (0, 3, len(whole) // 2, whole.index(b"abc"), len(whole)):
        agree(whole[:place] + noise + whole[place:])


@pytest.mark.parametrize("number", NUMBERS)
def test_numbers(number: str) -> None:
    agree(number.encode())
    agree(b'{"a": [%s, "x"]}' % number.encode())


@settings(max_examples=500)
@given(
    st.text(alphabet='\\u"dD8c0fFnx', max_size=16)
    | st.text(st.characters(max_codepoint=0x2FF), max_size=4)
)
def test_escapes_and_control_characters(inside: str) -> None:
    agree((SHORT % inside).encode())
    agree(b'{"%s": 1}' % inside.encode())


@pytest.mark.parametrize(
    "bad", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\x80"]
)
def test_what_is_no_utf_8(bad: bytes) -> None:
    for line in (SHORT.encode() % bad, b'{"%s": 1}' % bad, b'{"a": 1, "%s": 2}' % bad):
        assert fast_json.conversation(line) is None
        assert fast_json.loads(line) is None


def test_real_rows_go_the_fast_way() -> None:
    for name in ("sgd_chat", "banking_labels"):
        for line in (DATA / f"{name}.jsonl").read_bytes().splitlines():
            assert fast_json.conversation(line) == json.loads(line)
    for name in ("bfcl_tools", "hh_preference"):
        lines = (DATA / f"{name}.jsonl").read_bytes().splitlines()
        num_fast = sum(fast_json.loads(line) == json.loads(line) for line in lines)
        assert num_fast > 0.9 * len(lines)


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":[', b"]}")])
def test_depth_is_exact_and_never_ends_in_a_recursion_error(opening: bytes, closing: bytes) -> None:
    levels = len(opening.replace(b'"a":', b""))
    for num in range(1, sys.getrecursionlimit() + 50):
        line = opening * num + closing * num
        is_deep = num * levels > strict_json.MAX_DEPTH
        assert (fast_json.loads(line) is None) == is_deep
        assert (fast_json.loads(line, last_counts=True) is None) == is_deep


def test_hostile_lines_are_left_alone() -> None:
    line = b'{"' + b"k" * 1_000_000 + b'": "' + b'\\\\\\"' * 1000 + b'"}'
    agree(line)
    assert fast_json.loads(b"9" * 900_000) is None


def by_the_careful_way(path: Path) -> tuple[list[ChatRow], str]:
    """The rows before the first refusal, and its words."""
    rows: list[ChatRow] = []
    for line, content in enumerate(path.read_bytes().split(b"\n"), 1):
        content = content.rstrip(b"\r\n")
        if line == 1:
            content = content.removeprefix(b"\xef\xbb\xbf")
        if not content.strip():
            continue
        place = Place("training_file", len(rows) + 1, line, path.name)
        try:
            rows.append(chat_row(place, parse(place, content, Limits())))
        except DataError as error:
            return rows, str(error)
    return rows, ""


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 1 << 30))
def test_files_gone_wrong(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    path = tmp_path_factory.getbasetemp() / "mutated.jsonl"
    path.write_bytes(mutated(seed))
    rows, refusal = by_the_careful_way(path)
    found: list[ChatRow] = []
    try:
        found.extend(read_rows(path))
    except DataError as error:
        assert str(error) == refusal
    else:
        assert refusal == ""
    assert repr(found) == repr(rows)
    for raw in read_raw(path):
        if raw.problem is None:
            value, duplicates = careful(raw.raw)
            assert (repr(raw.value), raw.duplicates) == (repr(value), tuple(duplicates))
