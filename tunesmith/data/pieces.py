"""A damaged file read piece by piece: each a row that it holds, or text that no reading fits.

Rows may be spread over lines, stand in one array, share a line, or need mending. Every byte of the
file is in exactly one piece, so that a repair can leave nothing out by mistake. Memory stays within
one piece; the cost is linear in the file.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from tunesmith.data import strict_json
from tunesmith.data.mend import INVALID, mend

# A row spread over lines that is longer is not looked for; nor a longer line.
MAX_PIECE_BYTES = 16 << 20
DECODER = json.JSONDecoder()
# Brackets outside of strings; strings in plain or typographic quotes, also unfinished ones.
TOKENS = re.compile(
    r'"(?:[^"\\\n]++|\\.)*+"?|[\u201c\u201e](?:[^\u201d\u201c\\\n]++|\\.)*+[\u201d\u201c]?|[\[{]|[\]}]'
)


@dataclass(frozen=True)
class Piece:
    """A row with what was mended to read it, or a text without a value."""

    line: int
    """Where it begins, from 1."""
    text: str
    """As it stands in the file, without the line end; of rows in one array, each row's own."""
    value: Any = None
    codes: frozenset[str] = frozenset()
    raw: bytes | None = None
    """The bytes of a text that is not UTF-8."""
    is_row: bool = True


@dataclass
class Reader:
    """Reads pieces and keeps what is wrong with the file around them."""

    path: Path
    file_codes: dict[str, int] = field(default_factory=dict)
    """Code -> how many lines; of what belongs to no row: BOM, CRLF, blank lines, array brackets."""

    def pieces(self) -> Iterator[Piece]:
        block: list[tuple[int, str]] = []
        depth = size = 0
        for line, raw in self._lines():
            text = self._decode(raw)
            if text is None:
                yield from _broken(block)
                yield Piece(line, "", raw=raw, is_row=False)
                block = []
                continue
            if block and not _begins_anew(text, block[0][1]):
                block.append((line, text))
                depth, size = depth + _depth(text), size + len(raw)
                if size > MAX_PIECE_BYTES:
                    yield from _broken(block)
                    block = []
                elif depth <= 0:
                    yield from _block(block)
                    block = []
                continue
            yield from _broken(block)
            block = []
            found = self._line(line, text)
            if found is None:
                block, depth, size = [(line, text)], _depth(text), len(raw)
            else:
                yield from found
        yield from (_block(block) if depth <= 0 else _broken(block))

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """Lines that hold something, without their ends."""
        with self.path.open("rb") as file:
            start = 0
            # More than one where files were put together.
            while file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8:
                self._count("byte_order_mark")
                start = file.tell()
            file.seek(start)
            for line, raw in enumerate(_read(file), 1):
                content = raw.removesuffix(b"\n")
                if content.endswith(b"\r"):
                    self._count("crlf")
                    content = content.rstrip(b"\r")
                if content.strip():
                    yield line, content
                else:
                    self._count("blank_lines")

    def _decode(self, raw: bytes) -> str | None:
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return None

    def _line(self, line: int, text: str) -> list[Piece] | None:
        """The rows of one line; None if it may be the beginning of more."""
        if text.strip() in ("[", "]", "],"):
            self._count("json_array")
            return []
        rows = read_rows(text)
        if rows is not None:
            return [Piece(line, each, value, frozenset(codes)) for each, value, codes in rows]
        return None if _depth(text) > 0 else [Piece(line, text, is_row=False)]

    def _count(self, code: str) -> None:
        self.file_codes[code] = self.file_codes.get(code, 0) + 1


def read_rows(text: str) -> list[tuple[str, Any, set[str]]] | None:
    """(text, value, what was mended) of each row in a text; None if no reading fits."""
    for candidate, codes in _candidates(text):
        values = _values(candidate)
        # A text that was mended could become anything; a row is an object.
        if values is None or (codes and not isinstance(values[0], dict | list)):
            continue
        if len(values) == 1 and not isinstance(values[0], list):
            return [(text, values[0], codes)]
        if len(values) == 1 and all(isinstance(value, dict) for value in values[0]):
            values, codes = values[0], codes | {"json_array"}
        else:
            codes = codes | {INVALID}
        return [(json.dumps(value, ensure_ascii=False), value, codes) for value in values]
    return None


def _candidates(text: str) -> Iterator[tuple[str, set[str]]]:
    yield text, set()
    stripped = text.strip()
    element = {"json_array"} if stripped.endswith(",") else set()
    stripped = stripped.removesuffix(",")
    if element:
        yield stripped, element
    mended, codes = mend(stripped)
    if codes:
        yield mended, codes | element


def _values(text: str) -> list[Any] | None:
    """The JSON values that stand one after another in a text, commas between them or not."""
    try:
        return [strict_json.loads(text)]
    except strict_json.JsonError as error:
        if not str(error).startswith("Extra data"):
            return None
    values: list[Any] = []
    place = 0
    while place < len(text):
        try:
            value, end = DECODER.raw_decode(text, place)
            values.append(strict_json.loads(text[place:end]))
        except ValueError:
            return None
        if not isinstance(value, dict):
            return None
        found = re.compile(r"\s*,?\s*").match(text, end)
        place = found.end() if found else end
    return values if len(values) > 1 else None


def _begins_anew(text: str, first: str) -> bool:
    """Whether a line is a row of its own, so that the block before it was cut off."""
    if text[:1] != "{" or first[:1] != "{" or not text.rstrip().endswith("}"):
        return False
    return read_rows(text) is not None


def _block(block: list[tuple[int, str]]) -> list[Piece]:
    if not block:
        return []
    text = "\n".join(text for _, text in block)
    rows = read_rows(text)
    if rows is None:
        return _broken(block)
    spread = {"pretty_printed"} if len(block) > 1 else set()
    line = block[0][0]
    return [Piece(line, each, value, frozenset(codes | spread)) for each, value, codes in rows]


def _broken(block: list[tuple[int, str]]) -> list[Piece]:
    return [Piece(line, text, is_row=False) for line, text in block]


def _depth(text: str) -> int:
    """How many more brackets a line opens than it closes."""
    depth = 0
    for found in TOKENS.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(found[0], 0)
    return depth


def _read(file: BinaryIO) -> Iterator[bytes]:
    while raw := file.readline(MAX_PIECE_BYTES):
        yield raw
