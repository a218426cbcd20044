"""What a pass over a data file found; the parts of several processes put together in order."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.checks.sketches import Sketches
from tunesmith.data.figures import FigureCounter

Columns = dict[str, NDArray[Any]]

MAX_ROWS_A_CODE = 1_000_000

TYPES: dict[str, Any] = {
    "number": np.uint32,
    "line": np.uint32,
    "offset": np.uint64,
    "whole": np.uint64,
    "normal": np.uint64,
    "prompt": np.uint64,
    "answer": np.uint64,
    "system": np.uint64,
    "answer_chars": np.uint32,
    "rejected_chars": np.uint32,
    "messages": np.uint16,
    "tokens": np.uint32,
    "longest": np.uint32,
    "trained": np.uint32,
    "lost": np.uint32,
    "lost_trained": np.uint32,
    "languages": np.uint16,
    "flags": np.uint16,
}
"""What is kept of each row. Hashes are 0 where there is no text; `normal` ones leave out case,
punctuation and spacing. `languages` holds the numbers of the prompt's and of the answer's."""


@dataclass
class Fault:
    """The rows with one code."""

    text: str
    """Of the first."""
    rows: array[int] = field(default_factory=lambda: array("I"))
    lines: array[int] = field(default_factory=lambda: array("I"))
    count: int = 0

    def add(self, row: int, line: int) -> None:
        self.count += 1
        if len(self.rows) < MAX_ROWS_A_CODE and (not self.rows or self.rows[-1] != row):
            self.rows.append(row)
            self.lines.append(line)


@dataclass
class Scan:
    """What a pass found."""

    columns: Columns
    sketches: Sketches
    faults: dict[str, Fault]
    systems: dict[int, str]
    """The texts of system messages by their hash; empty if there are too many."""
    num_rows: int
    num_lines: int
    num_bytes: int
    figures: FigureCounter | None = None


def shift(part: Scan, num_rows: int, num_lines: int) -> None:
    """Numbers that counted from the piece's beginning count from the file's."""
    part.columns["number"] += np.uint32(num_rows)
    part.columns["line"] += np.uint32(num_lines)
    for fault in part.faults.values():
        first = fault.rows[0]
        rest = fault.text.removeprefix(f"Example {first}")
        fault.text = f"Example {first + num_rows}{rest}"
        fault.rows = array("I", [row + num_rows for row in fault.rows])
        fault.lines = array("I", [line + num_lines for line in fault.lines])
    part.num_rows += num_rows
    part.num_lines += num_lines


def joined(parts: list[Scan]) -> Scan:
    """One of all, in order. The parts are used up."""
    faults: dict[str, Fault] = {}
    systems: dict[int, str] = {}
    for part in parts:
        systems |= part.systems
        for code, fault in part.faults.items():
            kept = faults.setdefault(code, Fault(fault.text))
            kept.count += fault.count
            room = MAX_ROWS_A_CODE - len(kept.rows)
            kept.rows.extend(fault.rows[:room])
            kept.lines.extend(fault.lines[:room])
    for part in parts[1:]:
        if parts[0].figures is not None and part.figures is not None:
            parts[0].figures.join(part.figures)
    sketches = [part.sketches for part in parts]
    for part in parts:
        part.sketches = part.sketches[:0].copy()
    return Scan(
        joined_columns([part.columns for part in parts]),
        stacked(sketches),
        faults,
        systems,
        parts[-1].num_rows,
        parts[-1].num_lines,
        sum(part.num_bytes for part in parts),
        parts[0].figures,
    )


def joined_columns(parts: list[Columns]) -> Columns:
    """The parts are used up."""
    return {
        name: stacked([np.empty(0, kind), *(part.pop(name) for part in parts)])
        for name, kind in TYPES.items()
    }


def stacked(pieces: list[NDArray[Any]]) -> NDArray[Any]:
    """All one after another. Each piece is let go as it is copied, so that memory holds one of
    everything and not two."""
    end = sum(map(len, pieces))
    result = np.empty((end, *pieces[0].shape[1:]), pieces[0].dtype)
    while pieces:
        piece = pieces.pop()
        result[end - len(piece) : end] = piece
        end -= len(piece)
    return result
