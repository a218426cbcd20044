"""Repairs of a data file: what is safe by default, what loses something only when it is named.

Rows are written to a new file, each on one line, and those without a fault byte for byte as they
were. Text that no reading fits is kept where it is, so that nothing disappears unseen; a check of
the new file names it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

from tunesmith.data.pieces import Piece, Reader
from tunesmith.data.row_repairs import STEPS, Row, dump, unify_system
from tunesmith.data.systems import same_system

READING_CODES = ("pretty_printed", "json_array", "typographic_quotes", "invalid_json")
"""What the reading of rows mends, before they are looked at."""


@dataclass(frozen=True)
class Repair:
    does: str
    loses: str = ""
    """What is gone afterwards, in words; empty: nothing."""
    by_default: bool = True
    """False: done only when its code is named."""


REPAIRS: Mapping[str, Repair] = {
    "byte_order_mark": Repair("leaves out the byte order mark"),
    "crlf": Repair("ends lines with a line feed"),
    "blank_lines": Repair("leaves out blank lines"),
    "pretty_printed": Repair("writes each object on one line"),
    "json_array": Repair("writes each element on its own line"),
    "typographic_quotes": Repair("puts plain quotes around JSON strings; texts keep theirs"),
    "invalid_json": Repair("mends trailing commas, single quotes, Python words, raw line breaks"),
    "duplicate_keys": Repair("keeps the value that is read today", "the values before it"),
    "unknown_key": Repair("leaves out keys that the format does not know", "them and their values"),
    "wrong_role": Repair("maps common names (human, bot, Assistant) to roles"),
    "bad_weight": Repair('writes true, 1.0 and "1" as 1, false, 0.0 and "0" as 0'),
    "arguments_not_json": Repair("writes arguments that are an object as the JSON text of it"),
    "exact_duplicate": Repair("keeps the first of equal rows", "the copies"),
    "equal_preference": Repair("leaves out rows that prefer an answer to itself", "those rows"),
    "mixed_endings": Repair("strips white space around answers", "that white space", False),
    "system_variants": Repair(
        "gives almost equal system messages the most frequent text", "the variants", False
    ),
    "secret": Repair("puts [GITHUB TOKEN] or the like in its place", "what is masked", False),
    "personal_data": Repair("puts [E-MAIL ADDRESS] or the like there", "what is masked", False),
}
DEFAULT = frozenset(code for code, repair in REPAIRS.items() if repair.by_default)


@dataclass(frozen=True)
class Change:
    """One row that is written otherwise than it stood."""

    line: int
    codes: tuple[str, ...]
    before: str
    after: str | None
    """None: the row is left out."""


@dataclass
class Repaired:
    """What a run did; complete when its changes have been read."""

    num_rows: int = 0
    """Rows written."""
    num_left_out: int = 0
    num_unreadable: int = 0
    """Lines and rows kept as they are: no reading fits, or its repair is not among those named."""
    codes: dict[str, int] = field(default_factory=dict)
    """How many rows, or lines of the file, each repair touched."""

    def count(self, code: str, number: int = 1) -> None:
        self.codes[code] = self.codes.get(code, 0) + number


def repair(
    path: Path, target: BinaryIO | None, only: Set[str] = DEFAULT, result: Repaired | None = None
) -> Iterator[Change]:
    """Reads `path`, writes the repaired rows to `target` (None: nowhere), yields every change.

    `only` are codes of `REPAIRS`. Line ends, byte order mark, blank lines and the reading of rows
    that are spread or damaged belong to writing rows at all and are done whenever rows are written.
    """
    result = Repaired() if result is None else result
    reader = Reader(path)
    mend_row = _mender(path, only)
    seen: set[bytes] = set()
    for piece in reader.pieces():
        if not piece.is_row or not _may_read(piece, only):
            result.num_unreadable += 1
            _write(target, piece.raw or piece.text.encode("utf-8", "surrogatepass"))
            continue
        value, codes = mend_row(piece)
        codes = [*sorted(piece.codes), *codes]
        if value is not None and "exact_duplicate" in only and _is_known(value, seen):
            value, codes = None, [*codes, "exact_duplicate"]
        for code in codes:
            result.count(code)
        after = None if value is None else dump(value) if codes else piece.text
        if after is None:
            result.num_left_out += 1
        else:
            result.num_rows += 1
            _write(target, after.encode())
        if codes:
            yield Change(piece.line, tuple(codes), piece.text, after)
    for code, number in reader.file_codes.items():
        result.count(code, number)


def _may_read(piece: Piece, only: Set[str]) -> bool:
    """Whether a row may be written as it was read; rows that shared a line stand alone already."""
    return piece.codes <= only or piece.text == dump(piece.value)


def _mender(path: Path, only: Set[str]) -> Callable[[Piece], tuple[Any, list[str]]]:
    """Piece -> (its row mended or None, the codes of what was done)."""
    steps: dict[str, Callable[[Row], Any]] = {
        code: step for code, step in STEPS.items() if code in only
    }
    if "system_variants" in only:
        same = same_system(path)
        steps["system_variants"] = lambda row: unify_system(row, same)

    def mend_row(piece: Piece) -> tuple[Any, list[str]]:
        value = piece.value
        codes = (
            ["duplicate_keys"]
            if "duplicate_keys" in only and _repeats_key(piece.text, value)
            else []
        )
        if not isinstance(value, dict):
            return value, codes
        for code, step in steps.items():
            new = step(value)
            if new is None or not _equal(new, value, code):
                codes.append(code)
            if new is None:
                return None, codes
            value = new
        return value, codes

    return mend_row


def _write(target: BinaryIO | None, content: bytes) -> None:
    if target is not None:
        target.write(content + b"\n")


def _is_known(value: Any, seen: set[bytes]) -> bool:
    """Whether an equal row was there before; 16 bytes a row are kept."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    key = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    known = key in seen
    seen.add(key)
    return known


def _equal(one: Any, other: Any, code: str) -> bool:
    """To Python true equals 1, and 1.0 too; where weights are mended that is the difference."""
    return bool(one == other) and (code != "bad_weight" or dump(one) == dump(other))


def _repeats_key(text: str, value: Any) -> bool:
    if dump(value) == text:
        return False
    repeated = False

    def look(pairs: list[tuple[str, Any]]) -> None:
        nonlocal repeated
        repeated = repeated or len({key for key, _ in pairs}) < len(pairs)

    try:
        json.loads(text, object_pairs_hook=look)
    except ValueError:
        return False
    return repeated
