"""Rows for the browser to bring: real ones, some with faults, some with what must not run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LABELS = Path(__file__).parents[1] / "data" / "banking_labels.jsonl"
# Each sets window.hacked where it becomes part of a page.
IMAGE = "<img src=x onerror=window.hacked=1>"
SCRIPT = "<script>window.hacked=1</script>"
SVG = "<svg onload=window.hacked=1></svg>"


def labels(number: int) -> list[dict[str, Any]]:
    lines = LABELS.read_text().splitlines()[:number]
    return [json.loads(line) for line in lines]


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


def with_faults(number: int) -> bytes:
    """Rows that no job takes as they are, and that can be repaired without loss."""
    rows = labels(number)
    rows[5]["messages"][1]["role"] = "human"
    return lines(rows) + b"\n"


def with_payloads(number: int) -> bytes:
    rows = labels(number)
    for row, payload in zip(rows, (IMAGE, SCRIPT, SVG) * number, strict=False):
        for message in row["messages"]:
            message["content"] = f"{payload} {message['content']}"
    return lines(rows)
