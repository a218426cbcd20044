"""The findings of a scan: faults of rows, rows beside each other, the file as a whole."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.checks import (
    answers,
    duplicates,
    labels,
    language,
    leakage,
    lengths,
    preference,
    systems,
)
from tunesmith.data.findings import Finding, finding
from tunesmith.data.scanned import Columns, Scan
from tunesmith.data.scanner import Plan

NO_ROWS = np.empty(0, np.int64)
PLAIN_CHECKS: tuple[tuple[str, Callable[[Columns], NDArray[np.int64]], str], ...] = (
    ("mixed_json", answers.not_json, "answers do not parse as JSON, nearly all others do"),
    ("mixed_endings", answers.odd_endings, "answers differ in the white space around them"),
    ("refusals", answers.refusals, "answers are refusals"),
    ("answer_copies_prompt", answers.copies, "answers repeat their prompt"),
    ("one_answer", answers.one_answer, "prompts have the same answer"),
    (
        "language_mismatch",
        lambda columns: language.mismatches(columns["languages"]),
        "answers are in another language than their prompt",
    ),
    (
        "length_outlier",
        lambda columns: np.flatnonzero(lengths.outliers(columns["answer_chars"])),
        "answers are far longer than the others",
    ),
)


def row_findings(found: Scan) -> Iterator[Finding]:
    """A finding for each fault that single rows have."""
    for code, fault in found.faults.items():
        num_rows = len(fault.rows)
        more = f" ({num_rows} rows have this)" if num_rows > 1 else ""
        text = f"Example {fault.rows[0]}{fault.text.rstrip('.')}{more}."
        yield finding(code, text, fault.rows, fault.lines)


def file_findings(found: Scan, plan: Plan, is_valid: bool) -> Iterator[Finding]:
    """Too few rows, rows that are alike, answers that do not fit together."""
    if found.num_rows == 0:
        yield finding("empty_file", "The file has no rows.")
    elif found.num_rows < lengths.MIN_ROWS and not is_valid:
        yield finding("too_few_rows", f"The file has {found.num_rows} rows; 10 are needed.")
    elif found.num_rows < lengths.FEW_ROWS and not is_valid:
        yield finding("few_rows", f"The file has {found.num_rows} rows.")
    columns = found.columns
    for code, check, text in PLAIN_CHECKS:
        yield from _found(found, code, check(columns), text)
    rows, num = answers.contradictions(columns) if plan.kind != "preference" else (NO_ROWS, 0)
    yield from _found(found, "contradiction", rows, f"{num} prompts have different answers")
    rows, text = labels.rare_labels(columns)
    yield from _found(found, "label_imbalance", rows, text)
    rows, name = language.minorities(columns["languages"])
    yield from _found(found, "mixed_languages", rows, f"rows in another language than '{name}'")
    yield from _system_findings(found)
    yield from _duplicate_findings(found)
    if plan.kind == "preference":
        text = preference.length_bias(columns)
        if text:
            yield finding("preference_length_bias", text)


def _found(found: Scan, code: str, places: NDArray[np.int64], text: str) -> Iterator[Finding]:
    if len(places):
        rows, lines = row_numbers(found, places)
        count = "" if text[:1].isdigit() else f"{len(rows)} "
        yield finding(code, f"{count}{text}; the first is example {rows[0]}.", rows, lines)


def row_numbers(found: Scan, places: NDArray[np.int64]) -> tuple[array[int], array[int]]:
    """(numbers, lines) of rows by their places in the columns."""
    number, line = (found.columns[name][places].tobytes() for name in ("number", "line"))
    return array("I", number), array("I", line)


def _system_findings(found: Scan) -> Iterator[Finding]:
    column = found.columns["system"]
    known = np.array(list(found.systems), np.uint64)
    hashes, counts = np.unique(column[np.isin(column, known)], return_counts=True)
    of = systems.variants(
        found.systems, Counter(dict(zip(hashes.tolist(), counts.tolist(), strict=True)))
    )
    if of:
        places = np.flatnonzero(np.isin(column, np.array(list(of), np.uint64)))
        text = "rows have a system message that is almost another one"
        yield from _found(found, "system_variants", places, text)


def _duplicate_findings(found: Scan) -> Iterator[Finding]:
    columns = found.columns
    used = np.flatnonzero(columns["whole"])
    copies, num = duplicates.copies(columns["whole"][used])
    text = f"rows are copies of {'another' if num == 1 else f'{num} others'}"
    yield from _found(found, "exact_duplicate", used[copies], text)
    left = columns["normal"] != 0
    left[used[copies]] = False
    alike, num = duplicates.near(found.sketches, np.flatnonzero(left))
    yield from _found(found, "near_duplicate", alike, f"rows in {num} groups are almost the same")


def leak_findings(train: Scan, valid: Scan) -> Iterator[Finding]:
    """Validation rows that are trained on; the rows named are those of the validation file."""
    left, right = train.columns, valid.columns
    texts, prompts = (leakage.same(left[name], right[name]) for name in ("normal", "prompt"))
    same = np.where(texts >= 0, texts, prompts)
    near = np.where(same < 0, leakage.near(train.sketches, valid.sketches), -1)
    for code, others, how in (("leakage", same, "also"), ("near_leakage", near, "almost")):
        places = np.flatnonzero(others >= 0)
        if len(places):
            rows, lines = row_numbers(valid, places)
            first = int(left["number"][others[places[0]]])
            text = (
                f"{len(rows)} of {valid.num_rows} validation rows are {how} in the training "
                f"file; the first is example {rows[0]} (training example {first})."
            )
            yield finding(code, text, rows, lines)
