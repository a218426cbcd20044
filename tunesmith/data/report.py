"""The report on a data file: every finding with its rows, and the figures.

The same engine serves `tunesmith data check`, a job's validation and the API. Nothing that a file
can hold raises.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith import __version__
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
from tunesmith.data.findings import CODES, Finding, by_weight, finding
from tunesmith.data.formats import Limits
from tunesmith.data.raw import FOREIGN_KINDS, ROW_KINDS, Detected, detect
from tunesmith.data.render import Renderer
from tunesmith.data.scan import Plan, Progress, Scan, scan, text_reader

METHOD_KINDS = {
    "supervised": ("chat", "completions"),
    "dpo": ("preference",),
    "reinforcement": ("reinforcement",),
    "evals": ("evals",),
}
FILE_CODES = {
    "empty": "empty_file",
    "json_array": "json_array",
    "csv": "csv_file",
    "binary": "wrong_file_kind",
    "parquet": "wrong_file_kind",
} | dict.fromkeys(FOREIGN_KINDS, "foreign_format")
MAX_TRUNCATED = 1000
# Warnings that change nothing for a job here.
HARMLESS = {"byte_order_mark", "crlf", "blank_lines"}
SARIF_LEVELS = {"error": "error", "warning": "warning", "info": "note"}
MAX_SARIF_PLACES = 100


@dataclass(frozen=True)
class Report:
    path: Path
    kind: str
    """As `raw.Detected.kind`."""
    num_rows: int
    findings: tuple[Finding, ...]
    """The most serious first."""
    figures: dict[str, Any]
    """Counts and distributions, under the names of OpenAI's data preparation notebook."""
    tokens: dict[str, Any] | None = None
    """With a renderer: "total", "trained", "max_tokens" and, for rows that are too long,
    "truncated": a list of {row, line, tokens, lost}."""
    validation: Report | None = None
    """Of the validation file; `leakage` findings are in it and name its rows."""

    @property
    def all_findings(self) -> list[Finding]:
        """Of both files."""
        return [*self.findings, *(self.validation.findings if self.validation else ())]

    def exit_code(self, strict: bool = False) -> int:
        """1 if a job would refuse a file (`strict`: or there is a warning), else 0."""
        failing = ("error", "warning") if strict else ("error",)
        return int(any(each.severity in failing for each in self.all_findings))

    def to_json(self, max_rows: int | None = None) -> dict[str, Any]:
        """JSON values; at most `max_rows` rows are named for each finding."""
        return {
            "file": self.path.name,
            "kind": self.kind,
            "num_rows": self.num_rows,
            "ok": self.exit_code() == 0,
            "findings": [each.to_json(max_rows) for each in self.findings],
            "figures": self.figures,
            "tokens": self.tokens,
            "validation": self.validation.to_json(max_rows) if self.validation else None,
        }

    def to_sarif(self) -> dict[str, Any]:
        """SARIF 2.1.0, for CI; of each finding the first places."""
        reports = [self, *([self.validation] if self.validation else [])]
        return {
            "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
            "version": "2.1.0",
            "runs": [
                {
                    "tool": {
                        "driver": {
                            "name": "tunesmith",
                            "version": __version__,
                            "rules": [_rule(code) for code in CODES],
                        }
                    },
                    "results": [
                        _result(each, report.path) for report in reports for each in report.findings
                    ],
                }
            ],
        }


def report(
    path: Path,
    *,
    valid: Path | None = None,
    renderer: Renderer | None = None,
    method: str | None = "supervised",
    max_tokens: int | None = None,
    progress: Progress | None = None,
    processes: int | None = None,
    limits: Limits | None = None,
) -> Report:
    """Everything there is to say about a training file, and about its validation file.

    `method` is supervised, dpo, reinforcement or evals; None for what the rows are made for.
    `renderer` is the base model's: with it rows are rendered and counted, and held against
    `max_tokens`. Several `processes` read a large file; by default all processors.
    """
    check = _Check(renderer, method, max_tokens, progress, processes, limits or Limits())
    train = check.file(path)
    if valid is None:
        return train.report()
    other = check.file(valid, is_valid=True)
    return train.report(other.report(extra=_leaks(train, other)))


def warnings(found: Report, max_findings: int = 8) -> list[str]:
    """The findings that a job should tell of, a sentence or two each, the most serious first."""
    files = (("", found), ("Validation file: ", found.validation))
    texts = [
        f"{name}{each.message} {each.effect} ({each.code})"
        for name, checked in files
        if checked is not None
        for each in checked.findings
        if each.severity == "warning" and each.code not in HARMLESS
    ]
    more = len(texts) - max_findings
    if more > 0:
        texts[max_findings:] = [f"{more} further findings; `tunesmith data check` shows them."]
    return texts


@dataclass(frozen=True)
class _Checked:
    """A file that was read."""

    path: Path
    kind: str
    plan: Plan
    scan: Scan | None
    findings: list[Finding]

    def report(self, validation: Report | None = None, extra: Iterable[Finding] = ()) -> Report:
        found = by_weight([*self.findings, *extra])
        if self.scan is None:
            return Report(self.path, self.kind, 0, tuple(found), {}, None, validation)
        tokens = _tokens(self.scan, self.plan) if self.plan.renderer else None
        figures = _figures(self.scan, found)
        return Report(
            self.path, self.kind, self.scan.num_rows, tuple(found), figures, tokens, validation
        )


@dataclass(frozen=True)
class _Check:
    renderer: Renderer | None
    method: str | None
    max_tokens: int | None
    progress: Progress | None
    processes: int | None
    limits: Limits

    def file(self, path: Path, is_valid: bool = False) -> _Checked:
        detected = detect(path)
        kind = detected.kind if detected.kind in ROW_KINDS else self._kinds()[0]
        plan = Plan(path, kind, self.renderer, self.max_tokens, self.limits)
        name = FILE_CODES.get(detected.kind)
        if name is not None:
            message = f"The file is {_in_words(detected)}. {detected.hint}"
            first = () if name == "empty_file" else (1,)
            problem = finding(name, message, first, first)
            return _Checked(path, detected.kind, plan, None, [problem])
        found = scan(plan, self.progress, self.processes)
        findings = [*_row_findings(found), *_file_findings(found, plan, is_valid)]
        if self.method is not None and kind not in self._kinds():
            rows = _numbers(found, np.arange(len(found.columns["number"])))
            message = f"The rows are {kind} rows, but method {self.method} is not trained on them."
            findings.append(finding("wrong_format", message, *rows))
        return _Checked(path, detected.kind, plan, found, findings)

    def _kinds(self) -> tuple[str, ...]:
        """The kinds of rows that the method takes; a base with a chat template wants chat."""
        kinds = METHOD_KINDS[self.method or "supervised"]
        return kinds[:1] if self.renderer else kinds


def _in_words(detected: Detected) -> str:
    names = {
        "empty": "empty",
        "json_array": "one JSON array",
        "csv": "a table (CSV)",
        "parquet": "a Parquet file",
        "binary": "not UTF-8 text",
    }
    return names.get(detected.kind, f"in the {detected.kind} format")


def _row_findings(found: Scan) -> Iterator[Finding]:
    for code, fault in found.faults.items():
        num_rows = len(fault.rows)
        more = f" ({num_rows} rows have this)" if num_rows > 1 else ""
        yield finding(code, f"{fault.text.rstrip('.')}{more}.", fault.rows, fault.lines)


def _file_findings(found: Scan, plan: Plan, is_valid: bool) -> Iterator[Finding]:
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
    yield from _duplicate_findings(found, plan)
    if plan.kind == "preference":
        text = preference.length_bias(columns)
        if text:
            yield finding("preference_length_bias", text)


NO_ROWS = np.empty(0, np.int64)
Columns = dict[str, NDArray[Any]]
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


def _found(found: Scan, code: str, places: NDArray[np.int64], text: str) -> Iterator[Finding]:
    if len(places):
        rows, lines = _numbers(found, places)
        count = "" if text[:1].isdigit() else f"{len(rows)} "
        yield finding(code, f"{count}{text}; the first is example {rows[0]}.", rows, lines)


def _numbers(found: Scan, places: NDArray[np.int64]) -> tuple[list[int], list[int]]:
    columns = found.columns
    return columns["number"][places].tolist(), columns["line"][places].tolist()


def _system_findings(found: Scan) -> Iterator[Finding]:
    column = found.columns["system"]
    hashes, counts = np.unique(column[column != 0], return_counts=True)
    of = systems.variants(
        found.systems, Counter(dict(zip(hashes.tolist(), counts.tolist(), strict=True)))
    )
    if of:
        places = np.flatnonzero(np.isin(column, np.array(list(of), np.uint64)))
        text = "rows have a system message that is almost another one"
        yield from _found(found, "system_variants", places, text)


def _duplicate_findings(found: Scan, plan: Plan) -> Iterator[Finding]:
    columns = found.columns
    used = np.flatnonzero(columns["whole"])
    groups = duplicates.exact(columns["whole"][used])
    copies = [int(used[row]) for rows in groups.values() for row in rows[1:]]
    text = f"rows are copies of {'another' if len(groups) == 1 else f'{len(groups)} others'}"
    yield from _found(found, "exact_duplicate", np.array(sorted(copies), np.int64), text)
    left = np.ones(len(columns["whole"]), bool)
    left[copies] = False
    kept = np.flatnonzero(left & (columns["normal"] != 0))
    read = text_reader(plan, columns)
    near = duplicates.near(found.bands[kept], lambda row: read(int(kept[row])))
    alike = [int(kept[row]) for rows in near.values() for row in rows]
    text = f"rows in {len(near)} groups are almost the same"
    yield from _found(found, "near_duplicate", np.array(sorted(alike), np.int64), text)


def _leaks(train: _Checked, valid: _Checked) -> Iterator[Finding]:
    if train.scan is None or valid.scan is None:
        return
    left, right = train.scan.columns, valid.scan.columns
    found = leakage.same(left["normal"], right["normal"])
    for row, other in leakage.same(left["prompt"], right["prompt"]).items():
        found.setdefault(row, other)
    near = leakage.near(
        train.scan.bands,
        valid.scan.bands,
        text_reader(train.plan, left),
        text_reader(valid.plan, right),
    )
    close = {row: other for row, other in near.items() if row not in found}
    for code, pairs, how in (("leakage", found, "also"), ("near_leakage", close, "almost")):
        if pairs:
            places = np.array(sorted(pairs), np.int64)
            rows, lines = _numbers(valid.scan, places)
            first = int(left["number"][pairs[int(places[0])]])
            text = (
                f"{len(rows)} of {valid.scan.num_rows} validation rows are {how} in the training "
                f"file; the first is example {rows[0]} (training example {first})."
            )
            yield finding(code, text, rows, lines)


def _figures(found: Scan, findings: list[Finding]) -> dict[str, Any]:
    columns = found.columns
    flags = columns["flags"]
    errors = {each.code: max(len(each.rows), 1) for each in findings if each.severity == "error"}
    figures: dict[str, Any] = {
        "num_examples": found.num_rows,
        "errors": errors,
        "num_missing_system": int((flags & answers.HAS_SYSTEM == 0).sum()),
        "num_missing_user": int((flags & answers.HAS_USER == 0).sum()),
        "num_messages": lengths.distribution(columns["messages"]),
        "answer_chars": lengths.distribution(columns["answer_chars"]),
    }
    if columns["tokens"].any():
        figures["num_total_tokens"] = lengths.distribution(columns["tokens"])
        figures["num_assistant_tokens"] = lengths.distribution(columns["trained"])
    return figures


def _tokens(found: Scan, plan: Plan) -> dict[str, Any]:
    columns = found.columns
    long = np.flatnonzero(columns["lost"])[:MAX_TRUNCATED]
    names = {"row": "number", "line": "line", "tokens": "tokens", "lost": "lost"}
    return {
        "total": int(columns["tokens"].sum()),
        "trained": int(columns["trained"].sum()),
        "max_tokens": plan.max_tokens,
        "truncated": [
            {name: int(columns[column][place]) for name, column in names.items()} for place in long
        ],
    }


def _rule(code: str) -> dict[str, Any]:
    info = CODES[code]
    return {
        "id": code,
        "shortDescription": {"text": info.title},
        "fullDescription": {"text": info.effect},
        "help": {"text": info.fix},
        "defaultConfiguration": {"level": SARIF_LEVELS[info.severity]},
    }


def _result(found: Finding, path: Path) -> dict[str, Any]:
    places = [
        {
            "physicalLocation": {
                "artifactLocation": {"uri": path.name},
                "region": {"startLine": line},
            }
        }
        for line in (found.lines or (1,))[:MAX_SARIF_PLACES]
    ]
    return {
        "ruleId": found.code,
        "level": SARIF_LEVELS[found.severity],
        "message": {"text": f"{found.message} {found.fix}"},
        "locations": places,
    }
