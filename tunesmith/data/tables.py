"""Records in and out of files: JSON lines, JSON arrays, CSV, TSV and Parquet.

A record is an object; what its keys mean is for `shapes.py`. All but Parquet are read as a stream.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tunesmith.data.pieces import Reader
from tunesmith.errors import TunesmithError

if TYPE_CHECKING:
    from _csv import Reader as CsvReader

Container = Literal["jsonl", "json", "csv", "tsv", "parquet"]
SUFFIXES: dict[str, Container] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
}
ROWS_PER_GROUP = 10_000

Record = dict[str, Any]


class TableError(TunesmithError):
    """A file that cannot be read or written as the table it should be."""


def container_of(path: Path) -> Container:
    """By the file's first bytes where they tell, else by its name; else JSON lines."""
    if path.is_file():
        with path.open("rb") as file:
            head = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
        if head.startswith(b"PAR1"):
            return "parquet"
        if head.startswith((b"{", b"[")):
            return "json" if head.startswith(b"[") else "jsonl"
    return SUFFIXES.get(path.suffix.lower(), "jsonl")


def read_records(path: Path, skipped: list[str] | None = None) -> Iterator[tuple[int, Record]]:
    """(line or row number, record) of every record. Raises TableError.

    With `skipped`, table rows that cannot be read are left out and said there.
    """
    container = container_of(path)
    if container == "parquet":
        yield from _read_parquet(path)
    elif container in ("csv", "tsv"):
        yield from _read_csv(path, "\t" if container == "tsv" else None, skipped)
    else:
        yield from _read_json(path)


def write_records(path: Path, records: Iterator[Record], container: Container) -> int:
    """Writes all, and returns how many; the file is there only when the last is written."""
    part = path.with_name(path.name + ".part")
    try:
        num = WRITERS[container](part, records)
        part.replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            part.unlink()
        raise
    return num


def _read_json(path: Path) -> Iterator[tuple[int, Record]]:
    for piece in Reader(path).pieces():
        if not isinstance(piece.value, dict):
            raise TableError(
                f"{path.name}, line {piece.line}: no JSON object. "
                f"`tunesmith data check {path}` says what is wrong with the file."
            )
        yield piece.line, piece.value


def _read_csv(
    path: Path, delimiter: str | None, skipped: list[str] | None
) -> Iterator[tuple[int, Record]]:
    csv.field_size_limit(sys.maxsize)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if delimiter is None:
                header = file.readline()
                delimiter = max(",;\t", key=header.count)
                file.seek(0)
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            names = next(reader, [])
            while (cells := _cells(reader, len(names))) is not None:
                if isinstance(cells, list):
                    yield reader.line_num, dict(zip(names, cells, strict=True))
                elif skipped is None:
                    raise TableError(f"{path.name}, {cells} Or leave such rows out with --skip.")
                else:
                    skipped.append(f"{path.name}, {cells}")
    except (csv.Error, UnicodeDecodeError) as error:
        raise TableError(f"{path.name} is no CSV file in UTF-8: {error}.") from error


def _cells(reader: CsvReader, num_columns: int) -> list[str] | str | None:
    """The next row's cells, or in words what is wrong with it; None at the end."""
    try:
        cells = next((row for row in reader if row), None)
    except csv.Error as error:
        if "expected after" not in str(error):
            raise
        return (
            f"line {reader.line_num}: a quote inside a quoted cell is not doubled. "
            'Write "" for each quote that belongs to the text.'
        )
    if cells is None or len(cells) == num_columns:
        return cells
    return (
        f"line {reader.line_num}: {len(cells)} cells do not fit the {num_columns} columns of the "
        'first line. Put cells that hold commas or line breaks in quotes (").'
    )


def _parquet() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise TableError(
            "Parquet files need one package more: pip install 'tunesmith[parquet]'"
        ) from None
    return pyarrow


def _read_parquet(path: Path) -> Iterator[tuple[int, Record]]:
    pyarrow = _parquet()
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for record in batch.to_pylist():
                    number += 1
                    yield number, _without_nulls(record)
    except (pyarrow.ArrowException, OSError) as error:
        raise TableError(f"{path.name} cannot be read as Parquet: {error}.") from error


def _without_nulls(value: Any) -> Any:
    """A table gives every row every key; those that the row never had are null, and go again.

    A message's content stays, because null says something there.
    """
    if isinstance(value, dict):
        return {
            key: _without_nulls(item)
            for key, item in value.items()
            if item is not None or (key == "content" and "role" in value)
        }
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _write_jsonl(path: Path, records: Iterator[Record]) -> int:
    num = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
            num += 1
    return num


def _write_json(path: Path, records: Iterator[Record]) -> int:
    num = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write("[")
        for num, record in enumerate(records, 1):
            file.write(",\n " if num > 1 else "\n ")
            file.write(json.dumps(record, ensure_ascii=False))
        file.write("\n]\n")
    return num


def _write_csv(delimiter: str) -> Callable[[Path, Iterator[Record]], int]:
    """A writer of text cells: the first record's keys are the columns."""

    def write(path: Path, records: Iterator[Record]) -> int:
        num = 0
        with path.open("w", encoding="utf-8", newline="") as file:
            writer: csv.DictWriter[str] | None = None
            for num, record in enumerate(records, 1):
                if writer is None:
                    writer = csv.DictWriter(file, list(record), delimiter=delimiter)
                    writer.writeheader()
                if set(record) != set(writer.fieldnames) or not _is_flat(record):
                    raise TableError(
                        f"Row {num} does not fit into a CSV table: a cell holds text, and all rows "
                        "have the same columns. Give --to alpaca or --to completions, or write "
                        "JSON lines."
                    )
                writer.writerow(record)
        return num

    return write


def _is_flat(record: Record) -> bool:
    return all(isinstance(value, str) for value in record.values())


def _write_parquet(path: Path, records: Iterator[Record]) -> int:
    pyarrow = _parquet()
    rows = list(records)
    try:
        table = pyarrow.Table.from_pylist(_with_all_keys(rows))
    except (pyarrow.ArrowException, OverflowError) as error:
        raise TableError(f"The rows do not fit into one Parquet table: {error}.") from error
    pyarrow.parquet.write_table(table, path, row_group_size=ROWS_PER_GROUP)
    return len(rows)


def _with_all_keys(rows: list[Record]) -> list[Record]:
    """from_pylist takes the columns of the first row; here every row has them all."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    return [{key: row.get(key) for key in keys} for row in rows]


WRITERS: dict[Container, Callable[[Path, Iterator[Record]], int]] = {
    "jsonl": _write_jsonl,
    "json": _write_json,
    "csv": _write_csv(","),
    "tsv": _write_csv("\t"),
    "parquet": _write_parquet,
}
