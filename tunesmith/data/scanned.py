"""What a pass over a data file found; what several processes found is put together in order."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.checks.sketches import SKETCH, Sketches
from tunesmith.data.figures import FigureCounter

Columns = NDArray[Any]
"""(rows,) of ROW."""

MAX_ROWS_A_CODE = 1_000_000
MAX_SYSTEMS = 512

ROW = np.dtype(
    [
        ("number", np.uint32),
        ("line", np.uint32),
        ("whole", np.uint64),
        ("normal", np.uint64),
        ("prompt", np.uint64),
        ("answer", np.uint64),
        ("system", np.uint64),
        ("answer_chars", np.uint32),
        ("rejected_chars", np.uint32),
        ("tokens", np.uint32),
        ("longest", np.uint32),
        ("trained", np.uint32),
        ("lost", np.uint32),
        ("lost_trained", np.uint32),
        ("messages", np.uint16),
        ("languages", np.uint16),
        ("flags", np.uint16),
    ],
)
"""What is kept of each row, 82 bytes. Hashes are 0 where there is no text; `normal` ones leave out
case, punctuation and spacing. `languages` holds the numbers of the prompt's and of the answer's."""


@dataclass
class Fault:
    """The rows with one code."""

    text: str
    """What is wrong with the first, after "Example N"."""
    rows: array[int] = field(default_factory=lambda: array("I"))
    lines: array[int] = field(default_factory=lambda: array("I"))

    def add(self, row: int, line: int) -> None:
        if len(self.rows) < MAX_ROWS_A_CODE and (not self.rows or self.rows[-1] != row):
            self.rows.append(row)
            self.lines.append(line)


class Growing:
    """An array that others are put behind, in place: memory never holds two of it."""

    # A little more than is needed, so that rows that come one by one are not copied each time.
    SLACK = 1 / 32

    def __init__(self, kind: np.dtype[Any]) -> None:
        self._room = np.empty(0, kind)
        self._num = 0

    def add(self, more: NDArray[Any]) -> None:
        start, self._num = self._num, self._num + len(more)
        if self._num > len(self._room):
            self._room.resize(self._num + int(self._num * self.SLACK), refcheck=False)
        self._room[start : self._num] = more

    @property
    def array(self) -> NDArray[Any]:
        """A view, good until more is added."""
        return self._room[: self._num]


class Scan:
    """What a pass found; at first nothing."""

    def __init__(self, figures: FigureCounter | None) -> None:
        self._columns, self._sketches = Growing(ROW), Growing(SKETCH)
        self.faults: dict[str, Fault] = {}
        self.systems: dict[int, str] = {}
        """The texts of the first different system messages by their hash."""
        self.num_rows = self.num_lines = self.num_bytes = 0
        self.figures = figures

    @property
    def columns(self) -> Columns:
        return self._columns.array

    @property
    def sketches(self) -> Sketches:
        return self._sketches.array

    def keep_system(self, name: int, text: str) -> None:
        if len(self.systems) < MAX_SYSTEMS:
            self.systems.setdefault(name, text)

    def keep(self, columns: Columns, sketches: Sketches) -> None:
        """Puts rows behind those that are there."""
        self._columns.add(columns)
        self._sketches.add(sketches)

    def join(self, part: Scan) -> None:
        """Puts behind this what was found in the bytes after it, which is used up."""
        columns = part.columns
        columns["number"] += np.uint32(self.num_rows)
        columns["line"] += np.uint32(self.num_lines)
        self.keep(columns, part.sketches)
        for code, fault in part.faults.items():
            kept = self.faults.setdefault(code, Fault(fault.text))
            for row, line in zip(fault.rows, fault.lines, strict=True):
                kept.add(row + self.num_rows, line + self.num_lines)
        for name, text in part.systems.items():
            self.keep_system(name, text)
        self.num_rows += part.num_rows
        self.num_lines += part.num_lines
        self.num_bytes += part.num_bytes
        if self.figures is not None and part.figures is not None:
            self.figures.join(part.figures)
