"""Hundreds of faults planted into real rows, and near-copies by the ten thousand.

    python -m tests.recall [--data DIR]

DIR holds chat rows, or what `tunesmith data convert` makes chat rows of, in files at any depth;
without it the rows of the tests are used. Exit code 1 if a plant is not found with its row and
line, if a clean file has an error, or if fewer than 99 % of near-copies are found.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.recall.measure import Plants, missed, near_recall, usable
from tests.unit.data.checks.test_planted import CORPORA
from tunesmith.data.convert import convert
from tunesmith.data.formats import read_rows
from tunesmith.data.report import report
from tunesmith.errors import DataError, TunesmithError

MIN_RECALL = 0.99
MIN_ROWS = 60
PLANTS_A_CODE = 24
PLANTED_ROWS = 4000
COPIES_AN_EDIT = 200
MAX_ROWS = 100_000

Row = dict[str, Any]


def main() -> int:
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        sets = chat_sets(arguments.data, work) if arguments.data else own_sets()
        wrong = [
            *planted(work, sets),
            *clean(work, sets),
            *near(work, sets, arguments.near_rows),
        ]
    for text in wrong:
        print(f"WRONG {text}")
    return int(bool(wrong))


def own_sets() -> dict[str, list[Row]]:
    return {name: make() for name, (make, _, _) in CORPORA.items() if name in ("snips", "sgd")}


def chat_sets(directory: Path, work: Path) -> dict[str, list[Row]]:
    """The chat rows of each file that holds such."""
    sets = {}
    for path in sorted(directory.rglob("*")):
        if not path.name.removesuffix(".gz").endswith((".jsonl", ".csv")):
            continue
        source, target = work / path.name.removesuffix(".gz"), work / "chat.jsonl"
        raw = path.read_bytes()
        source.write_bytes(gzip.decompress(raw) if path.suffix == ".gz" else raw)
        try:
            convert(source, target, "jsonl", skip=True)
            rows = [json.loads(line) for line in target.read_bytes().splitlines()]
        except TunesmithError as error:
            print(f"{path.name}: left out: {error}")
            continue
        rows = [row for row in rows if "messages" in row]
        if len(rows) >= MIN_ROWS:
            sets[f"{path.parent.name}/{path.name}"] = rows[:MAX_ROWS]
    return sets


def planted(work: Path, sets: dict[str, list[Row]]) -> list[str]:
    """Every code that one row can have, many times in one file."""
    wrong: list[str] = []
    num = 0
    cases: list[tuple[str, list[Row], dict[str, Plants], str]] = [
        (name, rows, {code: plants}, method)
        for name, (make, table, method) in CORPORA.items()
        for rows in [make()]
        for code, plants in table.items()
    ]
    for name, rows in sets.items():
        # The plants name a message by its place: what is asked and what is answered.
        plain = [row for row in rows[:PLANTED_ROWS] if is_plain(row)]
        if len(plain) >= MIN_ROWS:
            cases.append((name, plain, CORPORA["sgd"][1], "supervised"))
    for name, rows, table, method in cases:
        many = max(1, min(PLANTS_A_CODE, len(rows) // (5 * len(table))))
        found = list(missed(work / "planted.jsonl", rows, table, many, method, seed=num))
        wrong += [f"{name}: {text}" for text in found]
        num += many * len(table)
    print(f"{num:,} plants, {len(wrong)} not found")
    return wrong


def is_plain(row: Row) -> bool:
    roles = [message["role"] for message in row["messages"]]
    texts = [message.get("content") for message in row["messages"]]
    has_texts = all(isinstance(text, str) and text.strip() for text in texts)
    return len(roles) >= 3 and roles[-2:] == ["user", "assistant"] and has_texts


def clean(work: Path, sets: dict[str, list[Row]]) -> list[str]:
    """Errors in rows that a job takes; and the share of rows with each warning, for a look."""
    wrong = []
    for name, rows in sets.items():
        path = work / "clean.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        try:
            list(read_rows(path))
        except DataError as error:
            print(f"{name}: not clean by itself: {error}")
            continue
        found = report(path)
        wrong += [
            f"{name}: {each.code} in clean rows, first {each.rows[:3]}"
            for each in found.findings
            if each.severity == "error"
        ]
        shares = ", ".join(f"{each.code} {len(each.rows):,}" for each in found.findings)
        print(f"{name}: {len(rows):,} rows; {shares or 'no findings'}")
    return wrong


def near(work: Path, sets: dict[str, list[Row]], sizes: list[int]) -> list[str]:
    rows = [row for rows in sets.values() for row in rows]
    together = usable(rows)
    if len(together) < max(sizes):
        together = usable([*rows, *(part for row in rows for part in exchanges(row))])
    wrong = []
    for num_rows in sorted({min(len(together), size) for size in sizes}):
        step = len(together) / num_rows
        rows = [together[int(place * step)] for place in range(num_rows)]
        started = cpu_s()
        recalls = near_recall(rows, work, COPIES_AN_EDIT)
        took = cpu_s() - started
        print(f"{num_rows:,} rows, {took:.0f} CPU s; {recalls[2]:,} of them flagged by themselves")
        for what, recall in zip(("near-duplicates", "leakage"), recalls[:2], strict=True):
            print(f"  {what}: {', '.join(f'{kind} {r:.1%}' for kind, r in recall.items())}")
            mean = sum(recall.values()) / len(recall)
            if mean < MIN_RECALL:
                wrong.append(f"{what} among {num_rows:,} rows: {mean:.2%}")
    return wrong


def exchanges(row: Row) -> Iterator[Row]:
    """The turns of a long conversation as rows of their own."""
    for start in range(4, len(row["messages"]) - 3, 4):
        yield {"messages": row["messages"][start : start + 4]}


def cpu_s() -> float:
    """Of this process and of those that it waited for."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument(
        "--near-rows",
        type=int,
        nargs="+",
        default=[10_000, MAX_ROWS],
        help="sizes of the files that near-copies are put into",
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
