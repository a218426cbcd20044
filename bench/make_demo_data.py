"""Makes the demo's data: a subset of SNIPS as chat rows, for training and for measuring.

The rows come from the public SNIPS intent files (CC0) as two JSONL files, train.jsonl and
validate.jsonl, with `text` and `intent` per row. The shipped subset is balanced over the seven
intents, drawn with a fixed seed, and no held-out text occurs among the training texts (compared
without case, punctuation and spacing). Slots are left out: the demo classifies.

    python bench/make_demo_data.py SNIPS_DIRECTORY
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections import defaultdict
from pathlib import Path

OUT = Path(__file__).resolve().parent.parent / "tunesmith" / "assets" / "demo"
SYSTEM = "Classify the request. Answer with the intent."
SEED = 20170613
TRAIN_PER_INTENT = 172
HELD_OUT_PER_INTENT = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("snips", type=Path, help="directory with train.jsonl and validate.jsonl")
    source = parser.parse_args().snips
    rng = random.Random(SEED)
    held_out = draw(read(source / "validate.jsonl"), HELD_OUT_PER_INTENT, rng, set())
    taken = {key(text) for text, _ in held_out}
    train = draw(read(source / "train.jsonl"), TRAIN_PER_INTENT, rng, taken)
    rng.shuffle(train)
    write(OUT / "snips_train.jsonl", train)
    write(OUT / "snips_heldout.jsonl", held_out)


def read(path: Path) -> list[tuple[str, str]]:
    with path.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [(" ".join(row["text"].split()), row["intent"]) for row in rows]


def key(text: str) -> str:
    return re.sub(r"[\W_]+", "", text.casefold())


def draw(
    rows: list[tuple[str, str]], per_intent: int, rng: random.Random, taken: set[str]
) -> list[tuple[str, str]]:
    """`per_intent` different texts of every intent, the intents in turn; none of `taken`."""
    seen = set(taken)
    by_intent: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for text, intent in rng.sample(rows, len(rows)):
        if key(text) not in seen and len(by_intent[intent]) < per_intent:
            seen.add(key(text))
            by_intent[intent].append((text, intent))
    columns = [by_intent[intent] for intent in sorted(by_intent)]
    return [row for turn in zip(*columns, strict=True) for row in turn]


def write(path: Path, rows: list[tuple[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as out:
        for text, intent in rows:
            messages = [
                {"role": "system", "content": SYSTEM},
                {"role": "user", "content": text},
                {"role": "assistant", "content": intent},
            ]
            out.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
