"""A report as JSON, with a page of rows and the findings of each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.data.openai_tokens import ENCODINGS
from tunesmith.data.raw import RawRow, read_raw
from tunesmith.data.render import Renderer
from tunesmith.data.report import Report, report

MAX_TEXT_CHARS = 4000


@dataclass(frozen=True)
class Request:
    path: str
    valid: str | None = None
    base: str | None = None
    """The base model's directory."""
    method: str | None = None
    max_tokens: int | None = None
    after: int = 0
    """Rows are shown from the one after this example."""
    limit: int = 20
    max_rows: int = 1000
    """Rows named for each finding."""


def make(request: Request, processes: int | None = 1) -> dict[str, Any]:
    """The report, with a page of rows and the codes of each; `processes` as for `report`."""
    base = Path(request.base) if request.base else None
    found = report(
        Path(request.path),
        valid=Path(request.valid) if request.valid else None,
        renderer=Renderer.load(base) if base else None,
        method=request.method,
        max_tokens=request.max_tokens,
        processes=processes,
        encodings=tuple(ENCODINGS),
    )
    rows = _rows(found, request)
    return {
        **found.to_json(request.max_rows),
        "rows": rows,
        "has_more": bool(rows) and rows[-1]["number"] < found.num_rows,
    }


def _rows(found: Report, request: Request) -> list[dict[str, Any]]:
    last = request.after + request.limit
    codes: dict[int, list[str]] = {}
    for each in found.findings:
        for number in each.rows:
            if request.after < number <= last:
                codes.setdefault(number, []).append(each.code)
    if not found.num_rows:
        return []
    rows = []
    for row in read_raw(found.path):
        if row.number > last:
            break
        if row.number > request.after:
            text, is_cut = text_of(row, MAX_TEXT_CHARS)
            rows.append(
                {
                    "number": row.number,
                    "line": row.line,
                    "codes": codes.get(row.number, []),
                    "text": text,
                    "is_cut": is_cut,
                }
            )
    return rows


def text_of(row: RawRow, max_chars: int) -> tuple[str, bool]:
    """(a row's text on one line, whether it is cut)."""
    # Of an object spread over lines, `raw` is the first.
    whole = json.dumps(row.value).encode() if row.num_lines > 1 else row.raw
    text = whole[: max_chars * 4].decode("utf-8", "replace")
    return text[:max_chars], len(text) > max_chars
