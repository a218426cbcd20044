"""Plants in real rows, and how many of them a report finds with their row and line."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.recall.edits import EDITS, near_copy, vocabulary_of
from tests.unit.data.checks.plants import dump
from tunesmith.data.checks.view import normal, view
from tunesmith.data.report import Report, report

Row = dict[str, Any]
Plants = tuple[Callable[[Row], Any], ...]
MIN_CHARS = 40


def places_of(lines: list[bytes]) -> list[tuple[int, int]]:
    """(row, line) of each entry of a file; an entry may be lines, and begin with blank ones."""
    result, line = [], 1
    for number, entry in enumerate(lines, 1):
        parts = entry.split(b"\n")
        blank = next(place for place, part in enumerate(parts) if part.strip())
        result.append((number, line + blank))
        line += len(parts)
    return result


def missed(
    path: Path, clean: list[Row], table: dict[str, Plants], num: int, method: str, seed: int
) -> Iterator[str]:
    """Plants `num` of each code at random places; in words, what is not found where it is."""
    rng = random.Random(seed)
    rows: list[Any] = list(clean)
    codes = [code for code in table for _ in range(num)]
    planted = {}
    for place, code in zip(rng.sample(range(2, len(clean)), len(codes)), codes, strict=True):
        kind = rng.randrange(len(table[code]))
        rows[place] = table[code][kind](clean[place])
        planted[place] = code, kind
    lines = dump(rows)
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    where = places_of(lines)
    found = found_at(report(path, method=method))
    for place, (code, kind) in sorted(planted.items()):
        if (code, *where[place]) not in found:
            yield f"{code}, kind {kind}: row and line {where[place]} not found"


def found_at(found: Report) -> set[tuple[str, int, int]]:
    """(code, row, line) of all findings."""
    return {
        (each.code, row, line)
        for each in found.all_findings
        for row, line in zip(each.rows, each.lines, strict=True)
    }


def text_of(row: Row) -> str:
    seen = view(row, "chat")
    return "" if seen is None else f"{normal(seen.prompt)} {normal(seen.answer)}".strip()


def usable(rows: list[Row]) -> list[Row]:
    """Each text once, and none that is too short to compare."""
    by_text = {text_of(row): row for row in rows}
    return [row for text, row in by_text.items() if len(text) >= MIN_CHARS]


def write(path: Path, rows: list[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def near_recall(
    rows: list[Row], work: Path, num: int, seed: int = 1
) -> tuple[dict[str, float], dict[str, float], int]:
    """(recall of near-duplicates by edit, of leakage by edit, clean rows that were flagged).

    `num` copies for each edit stand after the rows; and in a validation file of their own.
    """
    rng = random.Random(seed)
    vocabulary = vocabulary_of(rng.sample(rows, min(len(rows), 300)))
    kinds = [kind for kind in EDITS for _ in range(num)]
    sources = [rng.choice(rows) for _ in kinds]
    copies = [
        near_copy(row, EDITS[kind], rng, vocabulary)
        for row, kind in zip(sources, kinds, strict=True)
    ]
    train = write(work / "train.jsonl", rows)
    joined = report(write(work / "both.jsonl", [*rows, *copies]))
    twice = named(joined, "near_duplicate") | named(joined, "exact_duplicate")
    leaked = report(train, valid=write(work / "valid.jsonl", copies))
    seen = named(leaked.validation, "near_leakage") | named(leaked.validation, "leakage")
    recalls: list[Counter[str]] = [Counter(), Counter()]
    for number, (kind, row, copy_) in enumerate(zip(kinds, sources, copies, strict=True), 1):
        # Without case and punctuation it may be the same text: that is found by its hash.
        is_same = text_of(row) == text_of(copy_)
        recalls[0][kind] += is_same or len(rows) + number in twice
        recalls[1][kind] += number in seen
    flagged = len(named(leaked, "near_duplicate"))
    near, leak = ({kind: each[kind] / num for kind in EDITS} for each in recalls)
    return near, leak, flagged


def named(found: Report | None, code: str) -> set[int]:
    findings = () if found is None else found.findings
    return {row for each in findings if each.code == code for row in each.rows}
