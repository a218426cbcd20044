"""Which kind of rows a file or a row holds, by what it begins with and by its keys."""

from __future__ import annotations

import codecs
import csv
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.data.formats import OTHER_KINDS, PREFERENCE_KEYS, ROW_KEYS
from tunesmith.data.raw import read_raw

NUM_DETECT_ROWS = 100
DETECT_BYTES = 1 << 18


@dataclass(frozen=True)
class Detected:
    """What a file seems to be."""

    kind: str
    """chat, completions, preference, reinforcement, evals: rows of a training or eval file.
    sharegpt, alpaca, hf_preference, stored_completions, csv, json_array, pretty_printed, parquet:
    what `tunesmith data convert` or `data fix` can turn into such rows. binary, empty, unknown."""
    confidence: float
    """The share of the rows looked at that are of this kind."""
    hint: str
    """The next step, in a sentence; empty where nothing is to be done."""


ROW_KINDS = ("chat", "completions", "preference", "reinforcement", "evals")
FOREIGN_KINDS = ("sharegpt", "alpaca", "hf_preference", "stored_completions")
CONVERT = "Turn it into chat rows: `tunesmith data convert`."


def row_kind(value: Any) -> str:
    """The kind of one row by its keys."""
    if not isinstance(value, dict):
        return "unknown"
    keys = value.keys()
    if PREFERENCE_KEYS & keys:
        return "preference"
    if "messages" in keys:
        messages = value["messages"]
        last = messages[-1] if isinstance(messages, list) and messages else None
        role = last.get("role") if isinstance(last, dict) else None
        return "reinforcement" if role == "user" and keys - ROW_KEYS else "chat"
    for kind, needed in KEYS_OF_KINDS.items():
        if needed <= keys:
            return kind
    return "unknown"


KEYS_OF_KINDS = {
    "completions": {"prompt", "completion"},
    "sharegpt": {"conversations"},
    "alpaca": {"instruction", "output"},
    "hf_preference": {"chosen", "rejected"},
    "stored_completions": {"choices", "object"},
    "evals": {"item"},
}


def detect(path: Path) -> Detected:
    """What the file is, by its beginning."""
    with path.open("rb") as file:
        head = file.read(DETECT_BYTES)
    if head.startswith(b"PAR1"):
        return Detected("parquet", 1.0, CONVERT)
    if any(head.startswith(start) for start, _ in OTHER_KINDS):
        return Detected("binary", 1.0, "Save the data as UTF-8 text, one JSON object a line.")
    text = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if not text:
        return Detected("empty", 1.0, "Add examples, one JSON object a line.")
    if _is_array(text):
        return Detected("json_array", 1.0, "Write each element on its own line: `data fix`.")
    if text[:1] != b"{" and _is_csv(text):
        return Detected("csv", 0.9, CONVERT)
    return _by_rows(path)


def _by_rows(path: Path) -> Detected:
    kinds: Counter[str] = Counter()
    num_joined = 0
    for row, _ in zip(read_raw(path), range(NUM_DETECT_ROWS), strict=False):
        kinds[row_kind(row.value)] += 1
        num_joined += row.num_lines > 1
    known = Counter({kind: count for kind, count in kinds.items() if kind != "unknown"})
    if not known:
        return Detected("unknown", 1.0, "Write each row as one JSON object on one line.")
    kind, count = known.most_common(1)[0]
    share = count / kinds.total()
    if num_joined * 2 > kinds.total() and kind in ROW_KINDS:
        return Detected("pretty_printed", share, "Write each example on one line: `data fix`.")
    return Detected(kind, share, CONVERT if kind in FOREIGN_KINDS else "")


def _is_array(text: bytes) -> bool:
    """Whether it is one array of objects; not rows that are an array each."""
    if text[:1] != b"[" or text[1:].lstrip()[:1] not in (b"{", b"]", b""):
        return False
    first, _, rest = text.partition(b"\n")
    return not (first.rstrip().endswith(b"]") and rest.lstrip()[:1] == b"[")


def _is_csv(text: bytes) -> bool:
    """Whether it begins with a header of two or more names and a row of as many cells."""
    lines = text.decode("utf-8", "replace").split("\n", 20)
    if len(lines) < 2:
        return False
    delimiter = max(",;\t", key=lines[0].count)
    try:
        rows = [row for row in csv.reader(lines[:20], delimiter=delimiter) if row]
    except csv.Error:
        return False
    names = [name.strip() for name in rows[0]] if rows else []
    return (
        len(names) >= 2
        and all(name and len(name) <= 64 and "{" not in name for name in names)
        and len(set(names)) == len(names)
        and len(rows) > 1
        and len(rows[1]) == len(names)
    )
