"""What is wrong with each row, and what is kept of it: some hundred bytes, never its text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.data.checks import answers, language, messages, privacy, shapes
from tunesmith.data.checks.sketches import sketch
from tunesmith.data.checks.templates import control_pattern
from tunesmith.data.checks.view import View, normal, view
from tunesmith.data.codes import CODES
from tunesmith.data.figures import FigureCounter
from tunesmith.data.formats import Limits, Place
from tunesmith.data.kinds import row_kind
from tunesmith.data.raw import LIMITS, RawRow
from tunesmith.data.render import Renderer
from tunesmith.data.rows import Row, prompt_row
from tunesmith.data.scanned import ROW, Fault, Scan
from tunesmith.data.sequences import Measured, measure

MAX_SYSTEM_CHARS = 4096
MAX_PRIVATE_CHARS = 1 << 18
BATCH_ROWS = 256


@dataclass(frozen=True)
class Plan:
    """How to read the rows."""

    path: Path
    kind: str
    renderer: Renderer | None = None
    max_tokens: int | None = None
    limits: Limits = LIMITS
    encodings: tuple[str, ...] | None = None
    """OpenAI's, to count the notebook's figures with; None: they are not counted."""

    def counter(self) -> FigureCounter | None:
        return None if self.encodings is None else FigureCounter(self.kind, self.encodings)


def text_hash(text: str) -> int:
    """8 bytes of a hash, never 0 for a text; 0 for none."""
    if not text:
        return 0
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") or 1


class Scanner:
    """Takes the rows in order."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._control = control_pattern(plan.renderer)
        self._rows: list[dict[str, int]] = []
        self._texts: list[str] = []
        self._found = Scan(plan.counter())

    def fault(self, code: str, text: str, row: int, line: int) -> None:
        """`text` goes on after "Example N"."""
        self._found.faults.setdefault(code, Fault(text)).add(row, line)

    def take(self, row: RawRow) -> None:
        for code, text in _line_faults(row):
            self.fault(code, text, row.number, row.line)
        if self._found.figures is not None and row.value is not None:
            self._found.figures.add(row.value)
        if not isinstance(row.value, dict):
            return
        kind = self._kind(row)
        if kind is None:
            return
        found, checked = _row_faults(row, kind)
        seen = view(row.value, kind)
        if seen is None:
            seen = View("", "", "", "", "", 0, False, False, False, ())
        measured = measure(checked, self._plan.renderer, self._plan.max_tokens)
        for code, text in (*found, *measured.faults, *self._text_faults(seen)):
            self.fault(code, text, row.number, row.line)
        self._keep(row, seen, measured, kind)

    def _kind(self, row: RawRow) -> str | None:
        """The kind to check the row as; None if it is of another one than the file."""
        kind, wanted = row_kind(row.value), self._plan.kind
        if kind in (wanted, "unknown") or {kind, wanted} == {"chat", "reinforcement"}:
            return wanted
        self.fault("wrong_format", f": is a {kind} row among {wanted} rows", row.number, row.line)
        return None

    def _text_faults(self, seen: View) -> Iterator[tuple[str, str]]:
        parts = [text[:MAX_PRIVATE_CHARS] for text in (*seen.texts, seen.rejected)]
        whole = "\0".join(parts)
        is_private, is_control = privacy.may_hold(whole), self._control.search(whole)
        if not is_private and not is_control:
            return
        for part in parts:
            for span in privacy.spans(part) if is_private else ():
                article = "an" if span.kind[0] in "AEIOUaeiou" else "a"
                yield span.code, f": holds what looks like {article} {span.kind}"
            found = self._control.search(part)
            if found:
                yield "special_tokens", f": holds {found[0]} in a text"

    def _keep(self, row: RawRow, seen: View, measured: Measured, kind: str) -> None:
        system = text_hash(seen.system)
        if system and len(seen.system) <= MAX_SYSTEM_CHARS:
            self._found.keep_system(system, seen.system)
        tools = _tools(row.value)
        extra = tools if kind in ("chat", "completions") else repr(row.value)
        prompt, said = normal(seen.prompt), normal(seen.answer)
        content = f"{prompt} {said} {normal(seen.rejected)}".strip()
        asked = f"{seen.system}\0{prompt}\0{tools}"
        whole = "\0".join((seen.system, seen.prompt, seen.answer, extra))
        asked_in, answered_in = language.of_pair(seen.asked, seen.answer)
        self._rows.append(
            {
                "number": row.number,
                "line": row.line,
                "whole": text_hash(whole) if seen.texts else 0,
                "normal": text_hash(content),
                "prompt": text_hash(asked) if seen.prompt else 0,
                "answer": text_hash(said),
                "system": system,
                "answer_chars": len(seen.answer),
                "rejected_chars": len(seen.rejected),
                "messages": min(seen.num_messages, 65535),
                "tokens": measured.num_tokens,
                "longest": measured.longest,
                "trained": measured.num_trained,
                "lost": measured.num_lost,
                "lost_trained": measured.num_lost_trained,
                "languages": language.NUMBERS[asked_in] * 256 + language.NUMBERS[answered_in],
                "flags": answers.flags(seen, said),
            }
        )
        self._texts.append(content)
        if len(self._rows) == BATCH_ROWS:
            self._flush()

    def _flush(self) -> None:
        if not self._rows:
            return
        columns = np.empty(len(self._rows), ROW)
        for name in columns.dtype.names or ():
            columns[name] = [row[name] for row in self._rows]
        self._found.keep(columns, sketch(self._texts))
        self._rows, self._texts = [], []

    def result(self, num_rows: int, num_lines: int, num_bytes: int) -> Scan:
        self._flush()
        found = self._found
        found.num_rows, found.num_lines, found.num_bytes = num_rows, num_lines, num_bytes
        return found


def _tools(value: dict[str, Any]) -> str:
    """What the row may call: the same prompt with other tools is another prompt."""
    tools = value.get("tools") or value.get("functions")
    return repr(tools) if tools else ""


def _line_faults(row: RawRow) -> Iterator[tuple[str, str]]:
    if row.num_blank:
        yield "blank_lines", f": {row.num_blank} blank lines before it"
    if row.crlf:
        yield "crlf", ": its line ends in CRLF"
    if row.duplicates:
        yield "duplicate_keys", f": {len(row.duplicates)} keys are there twice"
    if row.problem is not None:
        yield row.problem.code, f": {row.problem.message}"
    for code in row.mended:
        yield code, f": {CODES[code].title}"


def _row_faults(row: RawRow, kind: str) -> tuple[list[tuple[str, str]], Row | None]:
    if kind == "chat":
        place = Place("training_file", row.number, row.line, "the file")
        return messages.faults(place, row.value)
    found = shapes.faults(row.value, kind)
    if any(CODES[code].severity == "error" for code, _ in found):
        return found, None
    return found, prompt_row(row.value, kind, row.number, row.line)
