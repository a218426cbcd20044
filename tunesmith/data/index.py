"""Where each row of a file is and what it looks like from outside, so that any of 100,000 can be
shown at once: the list is read once, rows are read by their place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tunesmith.data.raw import RawRow, read_raw
from tunesmith.data.render import Renderer
from tunesmith.data.report_page import text_of
from tunesmith.data.rows import as_row, file_kind
from tunesmith.data.sequences import measure
from tunesmith.errors import DataError

Unit = Literal["characters", "tokens"]

MAX_ROW_CHARS = 200_000
# One page; a row that comes after it is not read.
MAX_PAGE_CHARS = 2_000_000
UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Request:
    path: str
    text: str = ""
    """Only rows that hold it, in whatever case."""
    unit: Unit | None = None
    """What rows are measured in; None: they are not."""
    min_length: int = 0
    max_length: int | None = None
    base: str | None = None
    """The directory of the base model whose tokens are counted."""


def make(request: Request) -> dict[str, Any]:
    """Columns, one entry a row: "number", "line", "offset", "bytes", and "shape", a place in
    "shapes": the roles of a row's messages in order, or the names of its keys. Where rows are
    measured, "length", too; a row that has none, since a job would refuse it, is left out."""
    wanted = request.text.casefold()
    length_of = _measure(request)
    columns: dict[str, list[int]] = {
        name: [] for name in ("number", "line", "offset", "bytes", "shape", "length")
    }
    shapes: dict[str, int] = {}
    num_rows = 0
    for row in read_raw(Path(request.path)):
        num_rows = row.number
        if wanted and not _holds(row, wanted):
            continue
        length = 0
        if length_of is not None:
            length = length_of(row)
            longest = length if request.max_length is None else request.max_length
            if not max(1, request.min_length) <= length <= longest:
                continue
        shape = shapes.setdefault(_shape(row), len(shapes))
        values = (row.number, row.line, row.offset, len(row.raw), shape, length)
        for column, value in zip(columns.values(), values, strict=True):
            column.append(value)
    if length_of is None:
        del columns["length"]
    return {"num_rows": num_rows, "shapes": list(shapes), **columns}


def _measure(request: Request) -> Callable[[RawRow], int] | None:
    """How long a row is; 0: it cannot be told."""
    if request.unit != "tokens":
        return None if request.unit is None else lambda row: _num_chars(row.value)
    path, renderer = Path(request.path), Renderer.load(Path(request.base or ""))
    kind = file_kind(path)

    def num_tokens(row: RawRow) -> int:
        try:
            return measure(as_row(path, row, kind), renderer, None).num_tokens
        except DataError:
            return 0

    return num_tokens


def _num_chars(value: Any) -> int:
    """Of the texts that a JSON value holds; keys and roles do not count."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(_num_chars(item) for key, item in value.items() if key != "role")
    return sum(map(_num_chars, value)) if isinstance(value, list) else 0


def read_at(path: Path, offsets: Sequence[int]) -> list[dict[str, Any]]:
    """The rows that begin at these bytes, as many as fit into a page, at least one."""
    rows: list[dict[str, Any]] = []
    num_chars = 0
    for offset in offsets:
        # The first row begins behind a byte order mark; start 0 skips that.
        start = 0 if offset <= 3 else offset
        row = next(read_raw(path, start=start), None)
        if row is None:
            continue
        text, is_cut = text_of(row, MAX_ROW_CHARS)
        num_chars += len(text)
        if rows and num_chars > MAX_PAGE_CHARS:
            break
        problem = row.problem.message if row.problem else None
        rows.append({"offset": offset, "text": text, "is_cut": is_cut, "problem": problem})
    return rows


def _holds(row: RawRow, wanted: str) -> bool:
    if isinstance(row.value, dict):
        return _in_value(row.value, wanted)
    return wanted in row.raw.decode("utf-8", "replace").casefold()


def _in_value(value: Any, wanted: str) -> bool:
    """Whether a text of a JSON value holds it; keys do not count."""
    if isinstance(value, str):
        return wanted in value.casefold()
    if isinstance(value, dict):
        return any(_in_value(item, wanted) for item in value.values())
    return isinstance(value, list) and any(_in_value(item, wanted) for item in value)


def _shape(row: RawRow) -> str:
    if not isinstance(row.value, dict):
        return UNREADABLE
    messages = row.value.get("messages")
    if not isinstance(messages, list):
        return " ".join(sorted(map(str, row.value)))[:100]
    roles = [str(each.get("role")) if isinstance(each, dict) else "?" for each in messages]
    return " ".join(role[:20] for role in roles[:12]) + (" ..." if len(roles) > 12 else "")
