"""Faults planted into real rows: for each code, changes of one row or of a whole file."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[4]
SAMPLES = ROOT / "tests" / "data"
DEMO = ROOT / "tunesmith" / "assets" / "demo"

Row = dict[str, Any]


def load(name: str) -> list[Row]:
    directory = DEMO if name.startswith("snips") else SAMPLES
    return [json.loads(line) for line in (directory / name).read_text().splitlines()]


def dump(rows: list[Any]) -> list[bytes]:
    """Lines without ends; a str or bytes is a line as it stands."""
    return [
        row if isinstance(row, bytes) else row.encode() if isinstance(row, str) else to_line(row)
        for row in rows
    ]


def to_line(row: Any) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode()


def write(path: Path, rows: list[Any]) -> Path:
    path.write_bytes(b"".join(line + b"\n" for line in dump(rows)))
    return path


def changed(change: Callable[[Row], None]) -> Callable[[Row], Any]:
    """A plant that changes a copy of the row."""

    def plant(row: Row) -> Row:
        row = copy.deepcopy(row)
        change(row)
        return row

    return plant


def message(place: int, **keys: Any) -> Callable[[Row], Any]:
    return changed(lambda row: row["messages"][place].update(keys))


def without(place: int, key: str) -> Callable[[Row], Any]:
    return changed(lambda row: row["messages"][place].pop(key))


def text(value: str, place: int = -2) -> Callable[[Row], Any]:
    """Puts a text into a message."""

    def change(row: Row) -> None:
        row["messages"][place]["content"] += f" {value}"

    return changed(change)


def called(change: Callable[[Row], Any]) -> Callable[[Row], Any]:
    return changed(lambda row: change(row["messages"][-1]["tool_calls"][0]["function"]) and None)


def quoted(row: Row) -> bytes:
    return to_line(row).replace(b'"', "\u201c".encode(), 1).replace(b'"', "\u201d".encode(), 1)


SYSTEM = {"role": "system", "content": "You are a helpful assistant."}
ARGUMENTS = ("", "{", "[1]", "{'a': 1}", "none")
BAD_ROLES = ("bot", "human", "Assistant", "USER", 7)
BAD_WEIGHTS = (2, -1, 0.5, "1", True)
BAD_LINES: tuple[Callable[[Row], bytes], ...] = (
    lambda row: to_line(row)[:-1],
    lambda row: to_line(row)[:-2] + b",]}",
    lambda row: to_line(row).replace(b'"', b"'"),
    lambda row: to_line(row).replace(b": ", b" ", 1),
    lambda row: b'{"a": NaN, ' + to_line(row)[1:],
    lambda row: b'{"a": ' + b"[" * 100 + b"]" * 100 + b", " + to_line(row)[1:],
    lambda row: b'{"a": 1e999, ' + to_line(row)[1:],
    lambda row: b'{"a": "\\ud800", ' + to_line(row)[1:],
)

CHAT: dict[str, tuple[Callable[[Row], Any], ...]] = {
    "invalid_json": BAD_LINES,
    "typographic_quotes": (quoted,),
    "not_utf8": (lambda row: to_line(row).replace(b"content", b"cont\xffent", 1),),
    "line_too_long": (text("x" * (1 << 20)),),
    "pretty_printed": (
        lambda row: json.dumps(row, indent=2).encode(),
        lambda row: json.dumps(row, indent="\t").encode(),
    ),
    "row_not_object": (lambda row: b"7", lambda row: b'"text"', lambda row: b"[1, 2]"),
    "duplicate_keys": (
        lambda row: to_line(row)[:-1] + b', "messages": ' + to_line(row["messages"]) + b"}",
        lambda row: to_line(row).replace(b'"role": "user"', b'"role": "user", "role": "user"', 1),
    ),
    "blank_lines": (lambda row: b"\n" + to_line(row), lambda row: b"  \n\n" + to_line(row)),
    "crlf": (lambda row: to_line(row) + b"\r",),
    "missing_messages": (
        changed(lambda row: row.update(messages=[])),
        changed(lambda row: row.update(messages={})),
        changed(lambda row: row.pop("messages")),
    ),
    "unknown_key": (
        changed(lambda row: row.update(id=7)),
        message(-1, score=1),
        message(-2, weight=1),
    ),
    "missing_role": (without(0, "role"), without(-1, "role")),
    "wrong_role": tuple(message(1, role=role) for role in BAD_ROLES),
    "missing_content": (without(-1, "content"), without(-2, "content"), message(-1, content=None)),
    "bad_weight": tuple(message(-1, weight=weight) for weight in BAD_WEIGHTS),
    "last_not_assistant": (
        changed(lambda row: row["messages"].pop()),
        changed(lambda row: row["messages"].append({"role": "user", "content": "And then?"})),
    ),
    "nothing_to_learn": (
        changed(
            lambda row: (
                [each.update(weight=0) for each in row["messages"] if each["role"] == "assistant"]
                and None
            )
        ),
    ),
    "orphan_tool_message": (
        changed(
            lambda row: row["messages"].insert(
                1, {"role": "tool", "tool_call_id": "call_9", "content": "{}"}
            )
        ),
        changed(
            lambda row: row["messages"].insert(1, {"role": "function", "name": "f", "content": ""})
        ),
    ),
    "invalid_tools": (
        changed(lambda row: row.update(tools=[{"type": "function"}])),
        changed(lambda row: row.update(tools={"a": 1})),
        changed(lambda row: row.update(parallel_tool_calls="yes")),
    ),
    "invalid_message": (
        changed(lambda row: row["messages"].insert(0, "text")),
        message(-2, content=7),
        message(-2, content=[{"type": "image_url", "image_url": {"url": "x"}}]),
        message(-2, name=7),
    ),
    "wrong_format": (
        lambda row: {"prompt": "p", "completion": "c"},
        lambda row: {"conversations": [{"from": "human", "value": "x"}]},
    ),
    "empty_content": (message(-1, content=""), message(-2, content=" \n")),
    "no_user_message": (changed(lambda row: row.update(messages=[SYSTEM, row["messages"][-1]])),),
    "special_tokens": tuple(map(text, ("<|im_end|>", "<|endoftext|>", "[INST]", "<|eot_id|>"))),
    "answer_copies_prompt": (
        changed(
            lambda row: (
                [
                    each.update(content="What is the weather like today?")
                    for each in row["messages"][-2:]
                ]
                and None
            )
        ),
    ),
    "secret": tuple(
        map(
            text,
            (
                "sk-" + "proj-a1B2c3D4e5F6g7H8i9J0k1L2",
                "AKIA" + "IOSFODNN7EXAMPLQ",
                "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8",
                "hf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZaBcDeFgH",
                "xoxb" + "-123456789012-abcdefGHIJ",
                "AIza" + "SyA1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q",
                "postgres://bob:hunter2x@db.internal/app",
                "-----BEGIN RSA " + "PRIVATE KEY-----",
                "password = Xk9vQ2mLp7Rt4Z",
                "API_KEY: 9fK2mQx7VbT4zR8w",
            ),
        )
    ),
    "personal_data": tuple(
        map(
            text,
            (
                "Write to jane.doe@gmail.com.",
                "Call +49 30 901820 33 now",
                "Call (415) 555-2671 now",
                "Call 415-555-2671 now",
                "My card is 4111 1111 1111 1111.",
                "It is 5500005555555559 now",
                "IBAN DE89 3704 0044 0532 0130 00, please",
                "From 8.8.8.8 at noon",
            ),
        )
    ),
}

TOOLS: dict[str, tuple[Callable[[Row], Any], ...]] = {
    "arguments_not_json": (
        *(
            called(lambda call, value=value: call.update(arguments=value))
            for value in ARGUMENTS[1:]
        ),
        called(lambda call: call.update(arguments={"a": 1})),
        called(lambda call: call.pop("arguments")),
    ),
    "tool_calls_without_tools": (
        changed(lambda row: row.pop("tools")),
        changed(lambda row: row.update(tools=[])),
    ),
    "unknown_tool": (called(lambda call: call.update(name="no_such_tool")),),
    "unanswered_tool_call": (
        changed(
            lambda row: row["messages"].extend(
                [{"role": "user", "content": "Well?"}, {"role": "assistant", "content": "Done."}]
            )
        ),
    ),
}

PREFERENCE: dict[str, tuple[Callable[[Row], Any], ...]] = {
    "invalid_preference": (
        changed(lambda row: row.update(input=row["input"]["messages"])),
        changed(lambda row: row.update(preferred_output=[])),
        changed(lambda row: row.update(preferred_output=row["preferred_output"] * 2)),
        changed(lambda row: row.pop("non_preferred_output")),
        changed(lambda row: row["preferred_output"][0].update(role="user")),
        changed(
            lambda row: row["input"]["messages"].append({"role": "assistant", "content": "Well"})
        ),
    ),
    "equal_preference": (
        changed(lambda row: row.update(non_preferred_output=row["preferred_output"])),
    ),
}

COMPLETION: dict[str, tuple[Callable[[Row], Any], ...]] = {
    "invalid_completion": (
        changed(lambda row: row.update(prompt=7)),
        changed(lambda row: row.update(completion=None)),
    ),
}
REINFORCEMENT: dict[str, tuple[Callable[[Row], Any], ...]] = {
    "invalid_reinforcement": (
        changed(lambda row: row["messages"].append({"role": "assistant", "content": "x"})),
        changed(lambda row: row.update(messages=[])),
        message(-1, role="nobody"),
    ),
}
EVALS: dict[str, tuple[Callable[[Row], Any], ...]] = {
    "invalid_eval": (changed(lambda row: row.update(item=7)), lambda row: {"item": [1]}),
}


def near_copy(row: Row, rng: random.Random) -> Row:
    """The same but for case, punctuation, and a letter or two."""
    row = copy.deepcopy(row)
    for each in row["messages"]:
        if each["role"] == "system" or not each["content"]:
            continue
        kind = rng.randrange(3)
        words = each["content"].split(" ")
        if kind == 0:
            words = [word.upper() for word in words]
        elif kind == 1:
            words[-1] += " !"
        else:
            words = [word.replace(",", "").replace(".", "") for word in words]
        each["content"] = " ".join(words)
    turn = rng.randrange(1, len(row["messages"]))
    row["messages"][turn]["content"] += " ok"
    return row
