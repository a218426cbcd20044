"""One pass over a data file; over a large one in pieces, by several processes."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from tunesmith.data.openai_tokens import load_encoding
from tunesmith.data.raw import RawReader
from tunesmith.data.scanned import Scan
from tunesmith.data.scanner import Plan, Scanner
from tunesmith.errors import TunesmithError

Progress = Callable[[int, int], None]
"""Called with the bytes read and the bytes of the file."""

PIECE_BYTES = 2 << 20
MIN_BYTES_FOR_PROCESSES = 16 << 20


class ScanError(TunesmithError):
    """The reading broke off, through no fault of the file."""


def scan_piece(
    plan: Plan, start: int, end: int, progress: Callable[[int], None] | None = None
) -> Scan:
    """The rows that begin in these bytes; numbers count from the first."""
    scanner = Scanner(plan)
    num_rows, read = 0, start
    with plan.path.open("rb") as file:
        mark = file.read(3) == b"\xef\xbb\xbf" and start == 0
        file.seek(3 if mark else start)
        if mark:
            scanner.fault("byte_order_mark", ": a byte order mark before it", 1, 1)
        reader = RawReader(file, end, plan.limits)
        for row in reader.rows():
            scanner.take(row)
            num_rows = row.number
            if progress and row.offset - read > 1 << 20:
                progress(row.offset - read)
                read = row.offset
        if reader.num_blank_at_end and end < plan.path.stat().st_size:
            text = f": {reader.num_blank_at_end} blank lines before it"
            scanner.fault("blank_lines", text, num_rows + 1, reader.num_lines + 1)
        elif reader.num_blank_at_end:
            text = f": {reader.num_blank_at_end} blank lines after it"
            scanner.fault("blank_lines", text, max(num_rows, 1), reader.num_lines)
    if progress:
        progress(end - read)
    return scanner.result(num_rows, reader.num_lines, end - start)


def scan(plan: Plan, progress: Progress | None = None, processes: int | None = None) -> Scan:
    """The whole file, by several processes where it is large."""
    size = plan.path.stat().st_size
    num_processes = processes or min(len(os.sched_getaffinity(0)), 8)
    done = 0

    def tell(num_bytes: int) -> None:
        nonlocal done
        done += num_bytes
        if progress:
            progress(min(done, size), size)

    if size < MIN_BYTES_FOR_PROCESSES or num_processes == 1:
        return scan_piece(plan, 0, size, tell)
    pieces = list(_pieces(plan, size))
    found = Scan(plan.counter())
    # Forked, so that the renderer and the encodings are there without being loaded again.
    for name in plan.encodings or ():
        load_encoding(name)
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(num_processes, context, _hold, (plan,)) as pool:
        try:
            for part in pool.map(_scan_held, pieces):
                tell(part.num_bytes)
                found.join(part)
        except BrokenProcessPool:
            raise ScanError(
                "A process that read the file was ended from outside, most likely because memory "
                "ran out. Check the file in parts, or on a machine with more memory."
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)
    return found


_held: list[Plan] = []


def _hold(plan: Plan) -> None:
    _held[:] = [plan]


def _scan_held(piece: tuple[int, int]) -> Scan:
    return scan_piece(_held[0], *piece)


def _pieces(plan: Plan, size: int) -> Iterator[tuple[int, int]]:
    """Ranges that end where a line ends and one begins that looks like a row."""
    start = 0
    with plan.path.open("rb") as file:
        while start < size:
            end = min(start + PIECE_BYTES, size)
            file.seek(end)
            while line := file.readline(plan.limits.num_line_bytes):
                end += len(line)
                if line.endswith(b"\n") and file.peek(1)[:1] == b"{":
                    break
            yield start, end
            start = end
