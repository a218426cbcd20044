"""Files that are replaced whole, and the records in them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeVar

from tunesmith.jobdir.records import from_json, to_json

Record = TypeVar("Record")


def read_record(kind: type[Record], path: Path) -> Record | None:
    """The record in a file, or None where there is no file. Raises RecordError."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    return from_json(kind, text)


def write_record(record: Any, path: Path) -> None:
    """Replaces a file by the record, atomically and durably."""
    write_atomic(path, to_json(record) + b"\n")


def write_atomic(path: Path, content: bytes) -> None:
    """Either the old content or the new one, also after a power cut.

    One writer at a time: two writers of one file need different process ids.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    fsync_dir(path.parent)


def fsync_dir(directory: Path) -> None:
    """Makes renames and creations in a directory durable."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
