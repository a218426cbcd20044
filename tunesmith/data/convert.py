"""Training data of other tools to chat rows, and chat rows to what other tools read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tunesmith.data import pairs, shapes
from tunesmith.data.shapes import ColumnError, Options, Record, ShapeError
from tunesmith.data.tables import Container, read_records, write_records
from tunesmith.errors import TunesmithError

# Rows that could not be converted and are named one by one.
MAX_NAMED = 5


class ConvertError(TunesmithError):
    """A file that cannot be converted; says which row and why."""


@dataclass(frozen=True)
class Shape:
    title: str
    read: Callable[[Record, Options], list[Record]]
    write: Callable[[Record, Options], Record] | None = None


SHAPES: dict[str, Shape] = {
    "chat": Shape("OpenAI or Hugging Face messages", shapes.read_chat, shapes.write_chat),
    "sharegpt": Shape("ShareGPT conversations", shapes.read_sharegpt, shapes.write_sharegpt),
    "alpaca": Shape("Alpaca instruction, input, output", shapes.read_alpaca, shapes.write_alpaca),
    "completions": Shape(
        "prompt and completion", shapes.read_completions, shapes.write_completions
    ),
    "columns": Shape("columns of a table", shapes.read_columns, shapes.write_columns),
    "preference": Shape("OpenAI preference pairs", pairs.keep_preference, shapes.write_chat),
    "hf_preference": Shape(
        "prompt, chosen, rejected", pairs.read_preference, pairs.write_hf_preference
    ),
    "stored_completions": Shape("stored chat completions", pairs.read_stored),
}
READABLE = tuple(SHAPES)
WRITABLE = tuple(name for name, shape in SHAPES.items() if shape.write)


def detect_shape(record: Record) -> str | None:
    """The shape of a record by its keys; None if it has none of them."""
    keys = record.keys()
    if {"preferred_output", "non_preferred_output"} & keys:
        return "preference"
    if {"chosen", "rejected"} <= keys:
        return "hf_preference"
    if isinstance(record.get("messages"), list) and "choices" not in keys:
        return "chat"
    if isinstance(record.get("conversations") or record.get("conversation"), list):
        return "sharegpt"
    if {"instruction", "output"} <= keys:
        return "alpaca"
    if "choices" in keys or {"request", "response"} <= keys or {"item", "sample"} <= keys:
        return "stored_completions"
    if {"prompt", "completion"} <= keys:
        return "completions"
    if record and all(isinstance(value, str) for value in record.values()):
        return "columns"
    return None


@dataclass
class Converted:
    """What a conversion did."""

    source: str = ""
    """The shape that was read."""
    num_records: int = 0
    num_rows: int = 0
    num_unfinished: int = 0
    """Stored completions left out because their answer was cut off or filtered."""
    dropped_keys: dict[str, int] = field(default_factory=dict)
    """Columns that a chat row has no place for -> how many records had them."""
    skipped: list[str] = field(default_factory=list)
    """Why records were left out, each with its line; only where the caller allowed it."""


def convert(
    source: Path,
    target: Path,
    container: Container,
    *,
    read_as: str | None = None,
    write_as: str | None = None,
    options: Options | None = None,
    skip: bool = False,
    limit: int | None = None,
) -> Converted:
    """Writes `target` from `source`. Raises ConvertError or TableError; then nothing is written.

    The shape to read is found by the first record unless given; the one to write is chat rows,
    preference rows for pairs, or columns for a CSV table. With `skip`, records that do not fit are
    left out and told.
    """
    result = Converted(read_as or "")
    options = options or Options()
    rows = _rows(source, result, options, skip)
    if limit is not None:
        rows = (row for row, _ in zip(rows, range(limit), strict=False))
    tabular = container in ("csv", "tsv")
    name = write_as or ("columns" if tabular else "")
    records = _records(rows, source, result, name, options, skip)
    result.num_rows = write_records(target, records, container)
    return result


def _rows(
    source: Path, result: Converted, options: Options, skip: bool
) -> Iterator[tuple[int, Record]]:
    for line, record in read_records(source, result.skipped if skip else None):
        result.source = result.source or _detected(source, line, record)
        result.num_records += 1
        with _Skipping(source, line, result, skip):
            rows = SHAPES[result.source].read(record, options)
            result.num_unfinished += result.source == "stored_completions" and not rows
            _note_dropped(record, result)
            for row in rows:
                yield line, row


def _records(
    rows: Iterator[tuple[int, Record]],
    source: Path,
    result: Converted,
    name: str,
    options: Options,
    skip: bool,
) -> Iterator[Record]:
    for line, row in rows:
        writer = SHAPES[name or ("preference" if "preferred_output" in row else "chat")].write
        if writer is None:
            raise ConvertError(f"{name} can be read, but not written.")
        with _Skipping(source, line, result, skip):
            yield writer(row, options)


class _Skipping:
    """Names the line of a record that does not fit; leaves it out where that is allowed."""

    def __init__(self, source: Path, line: int, result: Converted, skip: bool) -> None:
        self._where = f"{source.name}, line {line}"
        self._result = result
        self._skip = skip

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, ShapeError | KeyError | TypeError | AttributeError):
            return False
        if isinstance(error, ColumnError):
            raise ConvertError(f"{self._where}: {error.message}") from error
        text = error.message if isinstance(error, ShapeError) else f"a part is missing ({error})"
        if not self._skip:
            raise ConvertError(
                f"{self._where}: {text}. Correct it, or leave such rows out with --skip."
            ) from error
        self._result.skipped.append(f"{self._where}: {text}")
        return True


def _detected(source: Path, line: int, record: Record) -> str:
    name = detect_shape(record)
    if name is None:
        raise ConvertError(
            f"{source.name}, line {line}: a record with {', '.join(list(record)[:8]) or 'no keys'} "
            f"has no shape that is known. Say which with --from: {', '.join(READABLE)}."
        )
    return name


KEPT = {
    "chat": {"messages", "tools", "parallel_tool_calls", "functions"},
    "sharegpt": {"conversations", "conversation", "system", "tools"},
    "alpaca": {"instruction", "input", "output", "system", "history"},
    "completions": {"prompt", "completion", "system", "tools"},
    "hf_preference": {"prompt", "chosen", "rejected"},
}


def _note_dropped(record: Record, result: Converted) -> None:
    for key in record.keys() - KEPT.get(result.source, record.keys()):
        result.dropped_keys[key] = result.dropped_keys.get(key, 0) + 1
