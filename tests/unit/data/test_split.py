"""The split: ratio, labels, duplicates on one side, every row once."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tunesmith.data import split as module
from tunesmith.data.report import report
from tunesmith.data.split import Split, SplitError, split

DEMO = Path(module.__file__).parents[1] / "assets/demo/snips_train.jsonl"


def chat(prompt: str, answer: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return {"messages": messages}


def run(path: Path, **options: Any) -> tuple[Split, list[str], list[str]]:
    train, valid = path.with_name("train.jsonl"), path.with_name("valid.jsonl")
    done = split(path, train, valid, **options)
    return done, *(each.read_text(encoding="utf-8").splitlines() for each in (train, valid))


def copied(tmp_path: Path, lines: list[str]) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def test_real_rows_keep_their_order_and_every_label_its_share(tmp_path: Path) -> None:
    lines = DEMO.read_text(encoding="utf-8").splitlines()
    done, train, valid = run(copied(tmp_path, lines), ratio=0.25, seed=3)
    assert sorted(train + valid) == sorted(lines)
    assert [line for line in lines if line in set(train)] == train
    assert (done.num_train, done.num_valid, done.labels) == (903, 301, 7)
    counts = Counter(json.loads(line)["messages"][-1]["content"] for line in valid)
    assert set(counts.values()) == {43}


def test_the_seed_decides(tmp_path: Path) -> None:
    path = copied(tmp_path, DEMO.read_text(encoding="utf-8").splitlines()[:200])
    assert run(path, seed=1)[1:] == run(path, seed=1)[1:]
    assert run(path, seed=1)[1:] != run(path, seed=2)[1:]


def test_what_is_alike_stays_together_and_nothing_leaks(tmp_path: Path) -> None:
    texts = [json.loads(line)["messages"][1]["content"] for line in DEMO.open(encoding="utf-8")]
    rows = []
    for number, text in enumerate(sorted(texts, key=len)[-60:]):
        rows += [chat(text, f"Theorem {number} says {number * 7919}.")]
        rows += [chat(text.upper(), f"Another answer, {number}.")]
        rows += [chat(text + " Now!", f"Theorem {number} says {number * 7919}.")]
    path = copied(tmp_path, [json.dumps(row) for row in rows])
    done, train, valid = run(path, ratio=0.2)
    assert train and valid and done.num_grouped >= len(rows) * 0.9
    found = report(path.with_name("train.jsonl"), valid=path.with_name("valid.jsonl"))
    codes = {each.code for each in found.all_findings}
    assert not codes & {"leakage", "near_leakage"}


def test_files_that_cannot_be_split(tmp_path: Path) -> None:
    same = json.dumps(chat("One question that everybody asks all day long?", "Yes, it is so."))
    with pytest.raises(SplitError, match="one side would be empty"):
        run(copied(tmp_path, [same] * 20))
    with pytest.raises(SplitError, match="one side would be empty"):
        run(copied(tmp_path, []))
    with pytest.raises(SplitError, match=r"line 2: .*data fix"):
        run(copied(tmp_path, [same, "{", same]))
    for ratio in (0, 1, -1, 2):
        with pytest.raises(SplitError, match="between 0 and 1"):
            run(copied(tmp_path, [same]), ratio=ratio)
    assert not (tmp_path / "train.jsonl").exists()
