"""Requests about uploaded data files; most answers are the data tools' own JSON."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from tunesmith.wire.files import FileObject
from tunesmith.wire.requests import RequestBody

Method = Literal["supervised", "dpo", "reinforcement", "evals"]
MAX_OFFSET = 1 << 40
MAX_LENGTH = 1 << 40


class ReportRequest(RequestBody):
    file: str
    validation_file: str | None = None
    base: str | None = None
    """A model's name: rows are counted with its tokenizer and held against its context."""
    method: Method | None = None
    """None: what the rows are made for."""
    after: Annotated[int, Field(ge=0)] = 0
    limit: Annotated[int, Field(ge=0, le=100)] = 20


class IndexRequest(RequestBody):
    file: str
    text: Annotated[str, Field(max_length=1000)] = ""
    unit: Literal["characters", "tokens"] | None = None
    """What rows are measured in; None: they are not."""
    min_length: Annotated[int, Field(ge=0, le=MAX_LENGTH)] = 0
    max_length: Annotated[int, Field(ge=0, le=MAX_LENGTH)] | None = None
    base: str | None = None
    """Whose tokens are counted."""


class RowsRequest(RequestBody):
    file: str
    offsets: Annotated[
        list[Annotated[int, Field(ge=0, le=MAX_OFFSET)]], Field(min_length=1, max_length=200)
    ]


class TokensRequest(RequestBody):
    file: str
    offset: Annotated[int, Field(ge=0, le=MAX_OFFSET)]
    base: str
    method: Method | None = None
    max_tokens: Annotated[int, Field(ge=1, le=1 << 30)] | None = None
    """None: the base's context."""


class StatsRequest(RequestBody):
    file: str
    base: str
    method: Method | None = None


class FixRequest(RequestBody):
    file: str
    codes: list[str] | None = None
    """None: the repairs that lose nothing and a few that are plainly meant."""
    dry_run: bool = False


class SplitRequest(RequestBody):
    file: str
    ratio: Annotated[float, Field(gt=0, lt=1)] = 0.1
    seed: Annotated[int, Field(ge=0, le=1 << 31)] = 0
    dry_run: bool = False


class Index(BaseModel):
    """Columns with an entry for each row that passes; `shape` is a place in `shapes`."""

    object: Literal["tunesmith.data.index"] = "tunesmith.data.index"
    file: str
    num_rows: int
    shapes: list[str]
    number: list[int]
    line: list[int]
    offset: list[int]
    bytes: list[int]
    shape: list[int]
    length: list[int] | None = None
    """In the unit that was asked for."""


class RowAt(BaseModel):
    offset: int
    text: str
    is_cut: bool
    problem: str | None


class Rows(BaseModel):
    object: Literal["tunesmith.data.rows"] = "tunesmith.data.rows"
    file: str
    rows: list[RowAt]


class ShownToken(BaseModel):
    text: str
    ids: list[int]
    trained: bool
    special: bool
    beyond: bool


class ShownSequence(BaseModel):
    name: str
    num_tokens: int
    num_trained: int
    num_beyond: int
    num_beyond_trained: int
    tokens: list[ShownToken]


class Tokens(BaseModel):
    object: Literal["tunesmith.data.tokens"] = "tunesmith.data.tokens"
    file: str
    base: str
    max_tokens: int
    is_cut: bool
    """Whether tokens were left out here, as there are too many to show."""
    sequences: list[ShownSequence]


class Bin(BaseModel):
    low: int
    high: int
    count: int


class Counted(BaseModel):
    text: str
    count: int


class Spread(BaseModel):
    min: int
    max: int
    mean: float
    median: float
    p10: float
    p90: float


class Stats(BaseModel):
    object: Literal["tunesmith.data.stats"] = "tunesmith.data.stats"
    file: str
    base: str
    max_tokens: int
    num_rows: int
    kinds: dict[str, int]
    num_tokens: int
    num_trained_tokens: int
    num_not_rendered: int
    tokens: Spread | None
    turns: Spread | None
    answer_characters: Spread | None
    rejected_characters: Spread | None
    roles: dict[str, int]
    fields: dict[str, int]
    num_system_messages: int
    num_with_tools: int
    histograms: dict[str, list[Bin]]
    labels: list[Counted]
    num_labels: int
    balance: float | None
    systems: list[Counted]


class ShownChange(BaseModel):
    line: int
    codes: list[str]
    before: str
    after: str | None
    """None: the row is left out."""
    is_cut: bool


class RepairInfo(BaseModel):
    does: str
    loses: str
    by_default: bool


class Fixed(BaseModel):
    object: Literal["tunesmith.data.fix"] = "tunesmith.data.fix"
    file: str
    num_rows: int
    num_changes: int
    num_left_out: int
    num_unreadable: int
    codes: dict[str, int]
    changes: list[ShownChange]
    """The first 200."""
    repairs: dict[str, RepairInfo]
    fixed_file: FileObject | None
    """The new file; null of a dry run."""


class Parted(BaseModel):
    object: Literal["tunesmith.data.split"] = "tunesmith.data.split"
    file: str
    num_train: int
    num_valid: int
    num_groups: int
    num_grouped: int
    labels: int
    train_bytes: int
    valid_bytes: int
    training_file: FileObject | None
    validation_file: FileObject | None
    """The new files; null of a dry run."""


class Finding(BaseModel):
    code: str
    severity: Literal["error", "warning", "info"]
    num_rows: int
    rows: list[int]
    lines: list[int]
    message: str
    effect: str
    fix: str
    repairable: bool


class ReportRow(BaseModel):
    number: int
    line: int
    codes: list[str]
    text: str
    is_cut: bool


class Truncated(BaseModel):
    row: int
    line: int
    tokens: int
    lost: int
    lost_trained: int


class TokenCounts(BaseModel):
    total: int
    trained: int
    max_tokens: int | None
    truncated: list[Truncated]


class FileReport(BaseModel):
    file: str
    kind: str
    num_rows: int
    ok: bool
    findings: list[Finding]
    figures: dict[str, Any]
    tokens: TokenCounts | None
    notebook: dict[str, Any] | None
    openai_tokens: dict[str, int] | None
    validation: FileReport | None


class Report(FileReport):
    object: Literal["tunesmith.data.report"] = "tunesmith.data.report"
    base: str | None
    method: str | None
    rows: list[ReportRow]
    has_more: bool
