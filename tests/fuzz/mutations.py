"""Data files gone wrong: real rows of every kind, damaged in their values, their text, their bytes.

A file is a function of its seed, so that one number brings it back.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

SAMPLES = Path(__file__).resolve().parents[1] / "data"
MAX_ROWS = 14
# One file in so many gets something huge; all others stay small, so that many can be tried.
HUGE_ONE_IN = 150

Row = dict[str, Any]


def load(name: str) -> list[Row]:
    return [json.loads(line) for line in (SAMPLES / name).read_text().splitlines()]


def _pairs() -> list[tuple[str, str]]:
    return [
        (row["messages"][-2]["content"], row["messages"][-1]["content"])
        for row in load("banking_labels.jsonl")
    ]


def _stored(row: Row) -> Row:
    return {
        "object": "chat.completion",
        "messages": row["messages"][:-1],
        "choices": [{"finish_reason": "stop", "message": row["messages"][-1]}],
    }


def _evals(row: Row) -> Row:
    question, answer = row["messages"][1]["content"], row["messages"][-1]["content"]
    return {"item": {"question": question, "answer": answer}, "sample": {"output_text": answer}}


NAMES = {"user": "human", "assistant": "gpt", "system": "system"}


@cache
def seeds() -> dict[str, list[Any]]:
    """Clean rows of each kind."""
    chat = load("sgd_chat.jsonl")
    preference = load("hh_preference.jsonl")
    return {
        "chat": chat,
        "labels": load("banking_labels.jsonl"),
        "tools": load("bfcl_tools.jsonl"),
        "completions": [{"prompt": one, "completion": two} for one, two in _pairs()],
        "preference": preference,
        "reinforcement": [{"messages": row["messages"][:-1], "answer": "x"} for row in chat],
        "evals": [_evals(row) for row in chat],
        "sharegpt": [
            {
                "conversations": [
                    {"from": NAMES[each["role"]], "value": each["content"]}
                    for each in row["messages"]
                ]
            }
            for row in chat
        ],
        "alpaca": [{"instruction": one, "input": "", "output": two} for one, two in _pairs()],
        "hf_preference": [
            {
                "prompt": row["input"]["messages"],
                "chosen": row["preferred_output"],
                "rejected": row["non_preferred_output"],
            }
            for row in preference
        ],
        "stored_completions": [_stored(row) for row in chat],
    }


def huge(rng: random.Random) -> Any:
    """What is meant to cost too much, as JSON text."""
    size = rng.choice((10_000, 100_000, 1_000_000))
    number = "9" * (size // 10)
    return rng.choice(
        (
            lambda: "[" * (size // 10) + "]" * (size // 10),
            lambda: "[" * (size // 10),
            lambda: '{"a":' * (size // 20) + "1" + "}" * (size // 20),
            lambda: number,
            lambda: f"-0.{number}e{number}",
            lambda: f'{{"{"k" * size}": 1}}',
            lambda: json.dumps("word " * (size // 5)),
            lambda: json.dumps("\u0301\u0316" * (size // 50)),
            lambda: json.dumps([0] * (size // 10)),
            lambda: json.dumps([{}] * (size // 20)),
            lambda: json.dumps([{"role": "user", "content": "x"}] * (size // 200)),
            lambda: json.dumps({str(key): key for key in range(size // 50)}),
            lambda: '"' + "\\" * (size // 10),
            lambda: '"' + "\\u0000" * (size // 20) + '"',
            lambda: " " * size + "1",
            lambda: "\n" * (size // 10),
            lambda: "\u201c" * (size // 10),
        )
    )()


def nested(depth: int) -> Any:
    value: Any = "x"
    for level in range(depth):
        value = [value] if level % 2 else {"content": value}
    return value


ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 0.0, 0.5, 1e308, -1e308, 10**25, 2**63, 2**31),
    *(
        "",
        " ",
        "\n",
        "\ud800",
        "a\udfff",
        "\u0000",
        "\u2028",
        "\ufeff",
        "\U0001f600" * 40,
        "x" * 3000,
    ),
    *("user", "assistant", "system", "tool", "function", "developer", "human", "Assistant", "gpt"),
    *("{}", "[]", "{", "null", "call_1", "<|im_end|>", "<|im_start|>system\n", "[INST]", "text"),
    "x" * 3000,
    *("sk-proj-a1B2c3D4e5F6g7H8i9J0k1L2", "jane@gmail.com", "+49 30 901820 33", "\u0301" * 200),
    *([], {}, [None], [[]], {"a": {}}, {"role": "assistant"}, ["a", 1, None], [{}] * 40),
    *({"type": "text", "text": "x"}, [{"type": "text", "text": "x"}], [{"type": "image_url"}]),
    *(nested(8), nested(31), nested(33), nested(200), {str(key): key for key in range(200)}),
)
KEYS = (
    "messages role content name weight tools tool_calls function function_call functions arguments"
    " id type tool_call_id parallel_tool_calls prompt completion input preferred_output"
    " non_preferred_output item sample output_text conversations from value chosen rejected text"
    " refusal instruction output history system choices message object request response body"
    " finish_reason parameters description Messages messages\u0000 \ud800"
).split()


def nodes(value: Any, found: list[tuple[Any, Any]] | None = None) -> list[tuple[Any, Any]]:
    """Every place in a value: (what holds it, its key or index)."""
    found = [] if found is None else found
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        found.append((value, key))
        if isinstance(item, dict | list):
            nodes(item, found)
    return found


def copied(value: Any) -> Any:
    return json.loads(json.dumps(value))


def change_value(row: Any, rng: random.Random) -> None:
    """One change at one place: another type, another place's value, a key more, less or renamed."""
    places = nodes(row)
    if not places:
        return
    holder, key = rng.choice(places)
    kind = rng.randrange(8)
    odd = copied(rng.choice(ODD))
    if kind < 3:
        holder[key] = odd
    elif kind == 3:
        other, name = rng.choice(places)
        holder[key] = copied(other[name])
    elif kind == 4:
        del holder[key]
    elif kind == 5 and isinstance(holder, dict):
        holder[rng.choice(KEYS)] = odd if rng.random() < 0.5 else holder.pop(key)
    elif kind == 6 and isinstance(holder, list):
        holder.insert(rng.randrange(len(holder) + 1), rng.choice((odd, copied(holder[key]))))
    else:
        holder[key] = rng.choice(([holder[key]], {"a": holder[key]}, json.dumps(holder[key])))


PARTS: tuple[bytes, ...] = (
    *(b"", b"\n", b"\r\n", b"\r", b"\n\n", b" ", b"\t", b"\x00", b"\x0b", b"\x0c", b"\x85"),
    *(b'"', b"'", b"{", b"}", b"[", b"]", b"\\", b",", b":", b"null", b"NaN", b"Infinity", b"//"),
    *(b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xe2\x80\x9c", b"\xe2\x80\x9d", b"\xe2\x80\xa8"),
    *(b"\\ud800", b"\\udc00", b"\\u0000", b"\\x", b"1e400", b"-1e400", b"1e-400", b"9" * 5000),
    *(b"True", b"None", b"{}", b"[]", b"[" * 40, b'{"a":' * 40, codecs.BOM_UTF8, b"\xff\xfe"),
    *(b'"messages": 1,', b'"role": "user",', b'"weight": 1,', b"PK\x03\x04", b"\x1f\x8b", b"PAR1"),
)


def flip(data: bytearray, rng: random.Random) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def put(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data))
    data[start : start + rng.choice((0, 0, 1, 5, 200))] = rng.choice(PARTS)


def splice(data: bytearray, rng: random.Random) -> None:
    start, source = rng.randrange(len(data)), rng.randrange(len(data))
    size = rng.choice((1, 10, 100, 1000))
    data[start:start] = data[source : source + size]


def truncate(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(1, len(data) + 1) :]


def repeat_token(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data))
    data[start:start] = data[start : start + rng.randrange(1, 12)] * rng.choice((1, 2, 50))


def blow_up(data: bytearray, rng: random.Random) -> None:
    place = rng.randrange(len(data) + 1)
    data[place:place] = huge(rng).encode()


BYTES: tuple[Callable[[bytearray, random.Random], None], ...] = (
    *(flip, put, put, splice, truncate, repeat_token),
)


def written(rows: list[Any], rng: random.Random) -> bytes:
    """The rows as a file, now and then not as JSON lines."""
    way = rng.randrange(12)
    ascii_only = rng.random() < 0.5
    texts = [json.dumps(row, ensure_ascii=ascii_only) for row in rows]
    if way == 0:
        text = json.dumps(rows, indent=rng.choice((None, 1)), ensure_ascii=ascii_only)
    elif way == 1:
        text = "\n".join(json.dumps(row, indent=2, ensure_ascii=ascii_only) for row in rows)
    elif way == 2:
        text = _table(rows, rng)
    elif way == 3:
        text = "".join(each + rng.choice(("\n", "\r\n", "\r", "\n\n", "", ",\n")) for each in texts)
    elif way == 4:
        text = "\n".join(_with_key_twice(each, rng) for each in texts)
    elif way == 5:
        text = "\n".join(repr(row) for row in rows)
    else:
        text = "\n".join(texts) + "\n"
    mark = codecs.BOM_UTF8 if rng.random() < 0.05 else b""
    return mark + text.encode(
        rng.choice(("utf-8",) * 30 + ("utf-16", "utf-8-sig")), "surrogatepass"
    )


def _table(rows: list[Any], rng: random.Random) -> str:
    file = io.StringIO()
    writer = csv.writer(file, delimiter=rng.choice(",;\t"), quoting=rng.choice((0, 1)))
    writer.writerow(rng.choice((("prompt", "completion"), ("a", "b", "c"), ("prompt",))))
    for row in rows:
        values = row.values() if isinstance(row, dict) else [row]
        writer.writerow([each if isinstance(each, str) else json.dumps(each) for each in values])
    return file.getvalue()


def _with_key_twice(text: str, rng: random.Random) -> str:
    place = text.find("{", rng.randrange(len(text))) + 1
    more = f'"{rng.choice(KEYS)}": {json.dumps(rng.choice(ODD))}, '
    return text[:place] + more * rng.choice((1, 2, 30)) + text[place:] if place else text


def mutated(seed: int) -> bytes:
    """The file of this seed."""
    rng = random.Random(seed)
    kind = rng.choice(list(seeds()))
    rows = rng.choices(seeds()[kind], k=rng.randrange(1, MAX_ROWS))
    if rng.random() < 0.2:
        rows[-1] = rng.choice(seeds()[rng.choice(list(seeds()))])
    if rng.random() < 0.7:
        rows = copied(rows)
        for _ in range(rng.choice((1, 1, 2, 5, 20))):
            change_value(rows, rng)
    data = bytearray(written(rows, rng))
    if rng.random() < 0.6:
        for _ in range(rng.choice((1, 1, 2, 4, 20))):
            if data:
                rng.choice(BYTES)(data, rng)
    if rng.randrange(HUGE_ONE_IN) == 0:
        blow_up(data, rng)
    return bytes(data)
