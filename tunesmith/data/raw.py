"""The lines of a data file as they are, whatever is wrong with them.

`formats.read_rows` refuses the first wrong row; this reader goes on and tells what is wrong with
each. The rules, limits and parsing are the same. Memory stays within a few lines, and nothing that
a file can hold raises.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from tunesmith.data import fast_json, strict_json
from tunesmith.data.formats import (
    OTHER_KINDS,
    READ_BYTES,
    TYPOGRAPHIC_QUOTES,
    Limits,
    Place,
    parse,
)
from tunesmith.data.mend import mend
from tunesmith.errors import DataError

LIMITS = Limits()
# An object spread over lines is put together again within these bounds, so that a broken file
# costs no more than a constant factor.
MAX_JOINED_LINES = 256
MAX_JOINED_BYTES = 1 << 16
MAX_JOIN_TRIES = 16
PLAIN_QUOTES = str.maketrans("\u201c\u201d\u201e\u00ab\u00bb\u2018\u2019", '"""""\'\'')


@dataclass(frozen=True)
class Problem:
    """Why a line is no row; `code` is one of codes.CODES."""

    code: str
    message: str


class RawRow(NamedTuple):
    number: int
    """Its place among the rows, from 1: the N of "Example N". An object spread over lines is one
    row."""
    line: int
    raw: bytes
    """Without the line's end, at most the limit of a line."""
    value: Any
    """What was parsed; also of an object spread over lines. None beside any other problem."""
    problem: Problem | None = None
    crlf: bool = False
    num_blank: int = 0
    """Blank lines before it."""
    num_lines: int = 1
    offset: int = 0
    """Where it begins in the file, in bytes."""
    duplicates: tuple[str, ...] = ()
    """Keys that are there twice in one object."""
    mended: tuple[str, ...] = ()
    """Codes of what had to be mended to read an object that is spread over lines."""


def read_raw(
    path: Path, *, start: int = 0, end: int | None = None, limits: Limits = LIMITS
) -> Iterator[RawRow]:
    """The rows of a file, or of the lines that begin in bytes `start` to `end`.

    With a `start`, numbers and lines count from there.
    """
    with path.open("rb", READ_BYTES) as file:
        if start == 0 and file.read(3) != codecs.BOM_UTF8:
            file.seek(0)
        if start:
            file.seek(start)
        yield from RawReader(file, end, limits).rows()


class _Line(NamedTuple):
    line: int
    offset: int
    content: bytes
    crlf: bool


class RawReader:
    """Reads an open file from where it stands to the first line that begins at `end` or later."""

    def __init__(self, file: BinaryIO, end: int | None, limits: Limits) -> None:
        self._file = file
        self._end = end
        self._limits = limits
        self._offset = file.tell()
        self._ahead: list[_Line] = []
        self.num_lines = 0
        self._tried = 0  # the last line that a search for the rest of an object has looked at
        self.num_blank_at_end = 0

    def rows(self) -> Iterator[RawRow]:
        number = num_blank = 0
        while (line := self._next()) is not None:
            if not line.content.strip() and len(line.content) <= self._limits.num_line_bytes:
                num_blank += 1
                continue
            row = self._row(number + 1, line, num_blank)
            number += 1
            num_blank = 0
            yield row
        self.num_blank_at_end = num_blank

    def _next(self) -> _Line | None:
        if self._ahead:
            line = self._ahead[0]
            if self._end is not None and line.offset >= self._end:
                self.num_lines = line.line - 1
                return None
            return self._ahead.pop(0)
        if self._end is not None and self._offset >= self._end:
            return None
        return self._read()

    def _read(self) -> _Line | None:
        offset = self._offset
        most = self._limits.num_line_bytes + 3
        raw = self._file.readline(most)
        if not raw:
            return None
        self.num_lines += 1
        self._offset += len(raw)
        if not raw.endswith(b"\n"):
            while (rest := self._file.readline(most)) and not rest.endswith(b"\n"):
                pass
            self._offset = self._file.tell()
        return _Line(self.num_lines, offset, raw.rstrip(b"\r\n"), raw.endswith(b"\r\n"))

    def _row(self, number: int, line: _Line, num_blank: int) -> RawRow:
        content = line.content
        if len(content) <= self._limits.num_line_bytes:
            value = fast_json.conversation(content) or fast_json.loads(content)
            if type(value) is dict:
                at, crlf = line.offset, line.crlf
                return RawRow(number, line.line, content, value, None, crlf, num_blank, 1, at)
        return self._odd_row(number, line, num_blank)

    def _odd_row(self, number: int, line: _Line, num_blank: int) -> RawRow:
        duplicates: list[str] = []
        place = Place("training_file", number, line.line, "the file")
        value, problem, num_lines = None, None, 1
        mended: tuple[str, ...] = ()
        try:
            value = parse(place, line.content, self._limits, duplicates)
        except DataError as error:
            found = self._joined(line)
            if found is not None:
                value, num_lines, mended = found
                problem = Problem("pretty_printed", f"spread over {num_lines} lines")
            else:
                problem = _problem(place, line.content, self._limits, error)
        if problem is None and not isinstance(value, dict):
            problem = Problem("row_not_object", "is no JSON object")
        return RawRow(
            number,
            line.line,
            line.content,
            value,
            problem,
            line.crlf,
            num_blank,
            num_lines,
            line.offset,
            tuple(duplicates),
            mended,
        )

    def _joined(self, first: _Line) -> tuple[Any, int, tuple[str, ...]] | None:
        """The object that begins on this line and ends on a later one, how many lines it has, and
        what was mended in it."""
        if first.content.lstrip()[:1] != b"{" or len(first.content) > MAX_JOINED_BYTES:
            return None
        if first.line <= self._tried:
            return None
        parts, size, tries = [first.content], len(first.content), 0
        for count in range(MAX_JOINED_LINES):
            if count == len(self._ahead):
                more = self._read()
                if more is None:
                    return None
                self._ahead.append(more)
            content = self._ahead[count].content
            if content.startswith(b"{"):  # the next example
                return None
            self._tried = self._ahead[count].line
            parts.append(content)
            size += len(content)
            if size > MAX_JOINED_BYTES or tries == MAX_JOIN_TRIES:
                return None
            if content.rstrip()[-1:] != b"}":
                continue
            tries += 1
            # Mending costs its text; it is tried once, where the indentation says that it ends.
            ends = content.rstrip() == first.content[: -len(first.content.lstrip())] + b"}"
            read = self._read_joined(b"\n".join(parts), with_mending=ends)
            if read is not None:
                num_filled = sum(bool(each.content.strip()) for each in self._ahead[: count + 1])
                del self._ahead[: count + 1]
                return read[0], num_filled + 1, read[1]
            if ends:
                return None
        return None

    def _read_joined(self, raw: bytes, with_mending: bool) -> tuple[Any, tuple[str, ...]] | None:
        """(the value, codes of what was mended); None if it cannot be read."""
        try:
            text = raw.decode()
            return strict_json.loads(text), ()
        except UnicodeDecodeError:
            return None
        except strict_json.JsonError:
            if not with_mending:
                return None
        mended, codes = mend(text)
        try:
            return strict_json.loads(mended), tuple(sorted(codes))
        except strict_json.JsonError:
            return None


def _problem(place: Place, content: bytes, limits: Limits, error: DataError) -> Problem:
    reason = error.message.split(" Error: ", 1)[-1].replace(f" (line {place.line})", "", 1)
    if place.number == 1 and any(content.startswith(start) for start, _ in OTHER_KINDS):
        return Problem("wrong_file_kind", reason)
    if len(content) > limits.num_line_bytes:
        return Problem("line_too_long", reason)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return Problem("not_utf8", reason)
    if TYPOGRAPHIC_QUOTES.search(text):
        try:
            strict_json.loads(text.translate(PLAIN_QUOTES))
        except strict_json.JsonError:
            if "typographic" in error.message:
                return Problem("typographic_quotes", reason)
        else:
            return Problem("typographic_quotes", reason)
    return Problem("invalid_json", reason)
