"""Files made to cost more than their size: `python -m tests.fuzz.scaling [SHAPE ...]`.

Each shape goes through every step of the surface at doubling sizes. Twice the bytes may take less
than three times the time (processor time, the best of several runs), and a bound for each byte;
more makes the exit code 1.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

from tests.fuzz.mutations import load
from tests.fuzz.surface import Surface
from tunesmith.bases import embedded_directory
from tunesmith.data.render import Renderer
from tunesmith.errors import TunesmithError

MAX_RATIO = 3.0
# Below this, a start-up or a cache decides.
MIN_S = 0.2
# The most is a line of two bytes that is no JSON: each is a row with an error.
MAX_PER_BYTE_S = 60e-6
NUM_RUNS = 2
SIZES = tuple(25_000 << place for place in range(7))
# A step that takes longer is not tried with twice the bytes.
ENOUGH_S = 0.6


def repeated(part: str | bytes) -> Callable[[int], bytes]:
    raw = part.encode() if isinstance(part, str) else part
    return lambda size: raw * (size // len(raw) + 1)


def around(start: str, part: str, end: str) -> Callable[[int], bytes]:
    return lambda size: start.encode() + repeated(part)(size) + end.encode()


def answer(part: str) -> Callable[[int], bytes]:
    """Rows whose user says it, 200,000 bytes each."""
    start, end = '{"messages": [{"role": "user", "content": "', '"}, {"role": "assistant", '
    make = around(start, part, end + '"content": "Yes."}]}\n')

    def rows(size: int) -> bytes:
        row = make(min(size, 200_000))
        return row * round(size / len(row))

    return rows


def numbered(template: str) -> Callable[[int], bytes]:
    """Rows that differ in a number only."""

    def make(size: int) -> bytes:
        num = size // len(template) + 1
        return "".join(template.replace("@", str(number)) + "\n" for number in range(num)).encode()

    return make


def shuffled(size: int) -> bytes:
    """Rows that are near-duplicates of few others, in groups of all sizes."""
    rng = random.Random(1)
    rows = [row["messages"] for row in load("sgd_chat.jsonl")]
    lines, written = [], 0
    while written < size:
        messages = [dict(each) for each in rows[int(rng.paretovariate(0.5)) % len(rows)]]
        words = messages[-1]["content"].split()
        rng.shuffle(words)
        messages[-1]["content"] = " ".join(words)
        lines.append(json.dumps({"messages": messages}))
        written += len(lines[-1])
    return "\n".join(lines).encode()


PAIR = '{"messages": [{"role": "user", "content": "%s"}, {"role": "assistant", "content": "%s"}]}'
SHAPES: dict[str, Callable[[int], bytes]] = {
    "opening brackets": repeated("["),
    "opening braces by line": repeated("{\n"),
    "closing braces by line": around('{"a":\n', "}\n", ""),
    "half objects": repeated('{"a": 1,\n"b": 2\n'),
    "whole objects in an open one": around('{"a": [\n', '{"b": 1}\n', ""),
    "cut objects": repeated('{"a": {"b": "c"}\n{"d": 1}\n'),
    "one long line": around('{"messages": "', "x", ""),
    "empty objects on one line": repeated("{}"),
    "empty objects in an array": around("[", "{},", "{}]"),
    "objects in an array by line": around("[\n", '{"a": 1},\n', '{"a": 1}\n]'),
    "one key many times": around("{", '"a": 1, ', '"a": 2}'),
    "unfinished strings": repeated('{"a": "b\n'),
    "typographic quotes": repeated("\u201c\u201d, "),
    "opening quotes": repeated("\u201c"),
    "plain after typographic": repeated('{"a\u201d: \u201cb"}, "'),
    "single quotes": repeated("{'a': 'b, "),
    "quotes": repeated('"'),
    "backslashes": around('{"a": "', "\\", ""),
    "commas": repeated(","),
    "blanks after commas": repeated("{, " + " " * 1000),
    "blank lines": repeated("\n"),
    "carriage returns": repeated("\r"),
    "nul bytes": repeated(b"\x00"),
    "not utf-8": repeated(b'{"a": "\xff"}\n'),
    "a number": around('{"a": ', "9", "}"),
    "table with an open quote": around('a,b\nx,"', "y,z\n", ""),
    "table of short rows": around("prompt,completion\n", "one,two\n", ""),
    "table of many columns": around("a,b", ",c", "\n1,2\n"),
    "marks": answer("\u0301\u0316"),
    "ligatures": answer("\ufdfa"),
    "tokens that almost match": answer("-eyJ+1-1-a@a.1(1 pwd=://a:a sk-AKIA xox"),
    "addresses": answer("a.a.a@a.a.a@"),
    "numbers and dots": answer("1.1-1 (1) "),
    "control tokens": answer("<|im_"),
    "equal rows": repeated(PAIR % ("What is the weather like?", "It rains.") + "\n"),
    "rows that differ in a number": numbered(PAIR % ("What will the weather be on day @?", "Dry.")),
    "system messages": numbered(
        '{"messages": [{"role": "system", "content": "You help @ people with their mail."},'
        ' {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "@"}]}'
    ),
    "near-duplicates": shuffled,
}


def measured(surface: Surface, path: Path, step: str) -> float:
    """Processor time of a step: the least of several runs that choose the same options."""
    times = []
    for _ in range(NUM_RUNS):
        started = time.process_time()
        try:
            surface.steps[step](path, random.Random(3))
        except TunesmithError as error:
            assert str(error)
        times.append(time.process_time() - started)
        if times[-1] < MIN_S:
            break
    return min(times)


def slow(surface: Surface, path: Path, name: str) -> Iterator[str]:
    """The steps that take more than linear time for a shape, in words."""
    contents = {size: SHAPES[name](size) for size in SIZES}
    for step in surface.steps:
        took: list[float] = []
        for content in contents.values():
            path.write_bytes(content)
            took.append(measured(surface, path, step))
            if took[-1] > ENOUGH_S:
                break
        ratios = [now / before for before, now in pairwise(took) if before >= MIN_S]
        per_byte = took[-1] / len(content)
        text = f"{name}, {step}: {', '.join(f'{each:.2f}' for each in took)} s"
        if max(ratios, default=0) >= MAX_RATIO:
            yield f"{text}: twice the bytes take {max(ratios):.1f} times the time"
        elif per_byte > MAX_PER_BYTE_S and took[-1] >= MIN_S:
            yield f"{text}: {per_byte * 1e6:.0f} us a byte"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("shapes", nargs="*", help="by default all")
    arguments = parser.parse_args()
    base = embedded_directory()
    num_slow = 0
    with tempfile.TemporaryDirectory() as work:
        surface = Surface(Renderer.load(base), base, Path(work))
        for name in arguments.shapes or SHAPES:
            started = time.process_time()
            found = list(slow(surface, Path(work) / "file.jsonl", name))
            num_slow += len(found)
            print(f"{name}: {time.process_time() - started:.1f} s", flush=True)
            for text in found:
                print(f"  SLOW {text}", flush=True)
    print(f"{num_slow} steps take more than linear time")
    return int(num_slow > 0)


if __name__ == "__main__":
    sys.exit(main())
