"""Where the bytes of files live. The row in the database always comes last."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

_ID = re.compile(r"[a-z]+[-_][A-Za-z0-9]{8,64}")


class BlobWriter(Protocol):
    """Takes the bytes of one blob. Nothing is visible before finish(); abort() leaves nothing."""

    def write(self, data: bytes) -> None: ...

    def finish(self) -> tuple[int, str]:
        """Makes the blob durable; its size in bytes and its sha256."""
        ...

    def abort(self) -> None: ...


class BlobStore(Protocol):
    def writer(self, file_id: str) -> BlobWriter: ...

    def open(self, file_id: str) -> BinaryIO:
        """Raises FileNotFoundError."""
        ...

    def path(self, file_id: str) -> Path:
        """Where a process of this machine can read it."""
        ...

    def delete(self, file_id: str) -> None:
        """Also of one that is not there."""
        ...

    def ids_older_than(self, age_s: float) -> Iterator[str]: ...

    def sweep_unfinished(self, age_s: float) -> int:
        """Removes what writers that died left longer ago than that; how many."""
        ...


class LocalBlobs:
    """A directory: blobs/<two characters>/<file id>, and .part while being written."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, file_id: str) -> Path:
        """The one place where an id becomes a path. Raises ValueError for what is no id."""
        if not _ID.fullmatch(file_id):
            raise ValueError(f"not a file id: {file_id!r}")
        return self._root / file_id[-2:] / file_id

    def writer(self, file_id: str) -> LocalBlobWriter:
        return LocalBlobWriter(self.path(file_id))

    def open(self, file_id: str) -> BinaryIO:
        handle = os.open(self.path(file_id), os.O_RDONLY | os.O_NOFOLLOW)
        return os.fdopen(handle, "rb")

    def delete(self, file_id: str) -> None:
        self.path(file_id).unlink(missing_ok=True)

    def ids_older_than(self, age_s: float) -> Iterator[str]:
        for path in self._old("*/*", age_s):
            if _ID.fullmatch(path.name):
                yield path.name

    def sweep_unfinished(self, age_s: float) -> int:
        parts = list(self._old("*/*.part", age_s))
        for path in parts:
            path.unlink(missing_ok=True)
        return len(parts)

    def _old(self, pattern: str, age_s: float) -> Iterator[Path]:
        limit = time.time() - age_s
        for path in self._root.glob(pattern):
            try:
                if path.stat().st_mtime < limit:
                    yield path
            except FileNotFoundError:
                continue


class LocalBlobWriter:
    def __init__(self, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        self._target = target
        self._part = target.with_name(target.name + ".part")
        # Unbuffered: pieces are large, and closing must not fail on a full disk.
        self._file = self._part.open("xb", buffering=0)
        self._sha256 = hashlib.sha256()
        self._num_bytes = 0

    def write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            left = left[self._file.write(left) :]
        self._sha256.update(data)
        self._num_bytes += len(data)

    def finish(self) -> tuple[int, str]:
        os.fsync(self._file.fileno())
        self._file.close()
        self._part.rename(self._target)
        # Both the rename and a new two-character directory must survive a power cut.
        for directory in (self._target.parent, self._target.parent.parent):
            handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        return self._num_bytes, self._sha256.hexdigest()

    def abort(self) -> None:
        self._file.close()
        self._part.unlink(missing_ok=True)
