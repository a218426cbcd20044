"""The report on a data file: every finding with its rows, and the figures.

The same engine serves `tunesmith data check`, a job's validation and the API. Nothing that a file
can hold raises.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.data.checks import answers, lengths
from tunesmith.data.checks.whole import (
    file_findings,
    leak_findings,
    row_findings,
    row_numbers,
)
from tunesmith.data.figures import Figures
from tunesmith.data.findings import Finding, by_weight, finding
from tunesmith.data.formats import Limits
from tunesmith.data.kinds import FOREIGN_KINDS, ROW_KINDS, Detected, detect
from tunesmith.data.render import Renderer
from tunesmith.data.scan import Progress, scan
from tunesmith.data.scanned import Scan
from tunesmith.data.scanner import Plan

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


@dataclass(frozen=True)
class Report:
    path: Path
    kind: str
    """As `kinds.Detected.kind`."""
    num_rows: int
    findings: tuple[Finding, ...]
    """The most serious first."""
    figures: dict[str, Any]
    """Counts and distributions."""
    tokens: dict[str, Any] | None = None
    """With a renderer: "total", "trained", "max_tokens" and, for rows that are too long,
    "truncated": a list of {row, line, tokens, lost, lost_trained}. Of a preference pair the prompt
    counts once, and both answers are trained; of a reinforcement row there is its prompt."""
    notebook: Figures | None = None
    """What OpenAI's data preparation notebook prints, if it was asked for; of chat rows."""
    openai_tokens: dict[str, int] | None = None
    """By encoding, if asked for: the file's tokens as OpenAI counts them."""
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
            "notebook": asdict(self.notebook) if self.notebook else None,
            "openai_tokens": self.openai_tokens,
            "validation": self.validation.to_json(max_rows) if self.validation else None,
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
    encodings: tuple[str, ...] | None = None,
) -> Report:
    """Everything there is to say about a training file, and about its validation file.

    `method` is supervised, dpo, reinforcement or evals; None for what the rows are made for.
    `renderer` is the base model's: with it rows are rendered and counted, and held against
    `max_tokens`. Several `processes` read a large file; by default all processors. With
    `encodings` (OpenAI's, or none of them) the notebook's figures are counted as well.
    """
    limits = limits or Limits()
    check = _Check(renderer, method, max_tokens, progress, processes, limits, encodings)
    train = check.file(path)
    if valid is None:
        return train.report()
    other = check.file(valid, is_valid=True)
    if train.scan is None or other.scan is None:
        return train.report(other.report())
    leaks = leak_findings(train.scan, other.scan)
    return train.report(other.report(extra=leaks))


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
            return Report(self.path, self.kind, 0, tuple(found), {}, validation=validation)
        tokens = _tokens(self.scan, self.plan) if self.plan.renderer else None
        counted = self.scan.figures
        return Report(
            self.path,
            self.kind,
            self.scan.num_rows,
            tuple(found),
            _figures(self.scan, found),
            tokens,
            counted.figures() if counted else None,
            dict(counted.totals) if counted and counted.encodings else None,
            validation,
        )


@dataclass(frozen=True)
class _Check:
    renderer: Renderer | None
    method: str | None
    max_tokens: int | None
    progress: Progress | None
    processes: int | None
    limits: Limits
    encodings: tuple[str, ...] | None

    def file(self, path: Path, is_valid: bool = False) -> _Checked:
        detected = detect(path)
        kind = detected.kind if detected.kind in ROW_KINDS else self._kinds()[0]
        if kind == "chat" and self.method == "reinforcement":
            kind = self.method
        plan = Plan(path, kind, self.renderer, self.max_tokens, self.limits, self.encodings)
        name = FILE_CODES.get(detected.kind)
        if name is not None:
            message = f"The file is {_in_words(detected)}. {detected.hint}"
            first = () if name == "empty_file" else (1,)
            problem = finding(name, message, first, first)
            return _Checked(path, detected.kind, plan, None, [problem])
        found = scan(plan, self.progress, self.processes)
        findings = [*row_findings(found), *file_findings(found, plan, is_valid)]
        if self.method is not None and kind not in self._kinds():
            rows = row_numbers(found, np.arange(len(found.columns)))
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
    names = {
        "row": "number",
        "line": "line",
        "tokens": "tokens",
        "lost": "lost",
        "lost_trained": "lost_trained",
    }
    return {
        "total": int(columns["tokens"].sum()),
        "trained": int(columns["trained"].sum()),
        "max_tokens": plan.max_tokens,
        "truncated": [
            {name: int(columns[column][place]) for name, column in names.items()} for place in long
        ],
    }
