"""Many plants in one file are found with row and line; near-copies are found, however edited."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.recall.edits import EDITS
from tests.recall.measure import missed, near_recall, usable
from tests.unit.data.checks.plants import load
from tests.unit.data.checks.test_planted import CORPORA


@pytest.mark.parametrize("corpus", ["sgd", "bfcl", "preference"])
def test_many_plants_of_one_code_are_found_with_row_and_line(corpus: str, tmp_path: Path) -> None:
    make, table, method = CORPORA[corpus]
    rows = make()
    for code, plants in table.items():
        path = tmp_path / "a.jsonl"
        num = len(rows) // 7
        assert list(missed(path, rows, {code: plants}, num, method, seed=3)) == []


@pytest.mark.parametrize("name", ["sgd_chat.jsonl", "banking_labels.jsonl"])
def test_near_copies_are_found_in_one_file_and_across_two(name: str, tmp_path: Path) -> None:
    rows = usable(load(name))
    recalls = near_recall(rows, tmp_path, num=40)
    for recall in recalls[:2]:
        assert recall.keys() == EDITS.keys()
        assert sum(recall.values()) / len(recall) >= 0.99, recall
