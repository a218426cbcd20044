"""Labelled texts for the moderation classifier, and texts that nobody should flag.

A label is 1, 0, or missing where a source does not say. Only sources with a licence that lets
their weights be given away are read; README.md has the list. What is measured on is never
trained on: `held_back` holds whole sources, and the folds of `train.py` do the rest.
"""

from __future__ import annotations

import csv
import gzip
import html
import json
import lzma
import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: the letters of the evaluation set -> our categories
LETTERS = {
    "S": "sexual",
    "S3": "sexual/minors",
    "H": "hate",
    "H2": "hate/threatening",
    "HR": "harassment",
    "V": "violence",
    "V2": "violence/graphic",
    "SH": "self-harm",
}
LEARNED = (*LETTERS.values(), "illicit", "illicit/violent")

#: what the questions of CatQA ask for; of the other groups nothing is said
ILLICIT = {
    "Illegal Activity",
    "Malware Viruses",
    "Economic Harm",
    "Fraud/Deception",
    "Privacy Violation Activity",
}
VIOLENT = {"Weapon:", "Terrorism and extremism", "Assault and battery", "Weapon making"}
BENIGN_GROUPS = {"Tailored Financial Advice", "Political Campaigning"}
# Of each of their three classes.
MAX_TWEETS = 1000
WINDOW_CHARS = 400


@dataclass(frozen=True)
class Labelled:
    text: str
    labels: dict[str, int]
    source: str
    is_harmless: bool = False
    """Ordinary text: right to leave alone, and no measure of telling apart what is hard."""


def benign(texts: list[str], source: str, is_harmless: bool = True) -> Iterator[Labelled]:
    for text in texts:
        yield Labelled(text, dict.fromkeys(LEARNED, 0), source, is_harmless)


def rows(path: Path) -> Iterator[dict[str, Any]]:
    opener: Any = {".xz": lzma.open, ".gz": gzip.open}.get(path.suffix, open)
    with opener(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def table(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as lines:
        yield from csv.DictReader(lines)


def evaluation(data: Path) -> Iterator[Labelled]:
    for row in rows(data / "moderation_eval_a" / "half_a.jsonl"):
        labels = {name: row[letter] for letter, name in LETTERS.items() if letter in row}
        # A subcategory is a part of its category.
        for name in ("sexual/minors", "hate/threatening", "violence/graphic"):
            if labels.get(name) == 1:
                labels.setdefault(name.split("/")[0], 1)
            elif labels.get(name.split("/")[0]) == 0:
                labels.setdefault(name, 0)
        yield Labelled(row["prompt"], labels, "moderation_eval")


def tweets(data: Path, rng: random.Random) -> Iterator[Labelled]:
    """Coarse words alone say nothing of hate here, and nothing at all of harassment."""
    found = list(table(data / "davidson_hate_offensive" / "labeled_data.csv"))
    rng.shuffle(found)
    num = Counter[str]()
    for row in found:
        num[row["class"]] += 1
        if num[row["class"]] > MAX_TWEETS:
            continue
        text = re.sub(r"https?://\S+|\bRT\b|@\w+:?", " ", html.unescape(row["tweet"])).strip()
        if row["class"] == "0":
            yield Labelled(text, {"hate": 1}, "tweets")
        elif row["class"] == "2":
            yield Labelled(text, {"hate": 0, "hate/threatening": 0, "harassment": 0}, "tweets")
        else:
            yield Labelled(text, {"hate": 0, "hate/threatening": 0}, "tweets")


def questions(data: Path) -> Iterator[Labelled]:
    folder = data / "red_instruct_questions"
    for group, topics in json.loads((folder / "catqa_english.json").read_text()).items():
        for topic, texts in topics.items():
            violent = int(topic in VIOLENT)
            for text in texts:
                if group in BENIGN_GROUPS:
                    yield from benign([text], "red_instruct", is_harmless=False)
                elif violent or group in ILLICIT:
                    labels = {"illicit": 1, "illicit/violent": violent}
                    yield Labelled(text, labels, "red_instruct")
    for text in json.loads((folder / "dangerousqa.json").read_text()):
        yield Labelled(text, {"illicit": 1}, "red_instruct")


def windows(texts: Iterator[str], rng: random.Random, num: int) -> list[str]:
    """Pieces of longer texts, of about the length of a message."""
    found = [
        text[start : start + rng.randrange(60, WINDOW_CHARS)]
        for text in texts
        for start in range(0, len(text), 4 * WINDOW_CHARS)
    ]
    rng.shuffle(found)
    return found[:num]


def shards(data: Path, prefix: str) -> Iterator[str]:
    for path in sorted((data / "pretrain_text").glob(f"{prefix}*.jsonl.xz")):
        yield from (row["text"] for row in rows(path))


def turns(data: Path, prefix: str) -> Iterator[str]:
    for text in shards(data, prefix):
        yield from re.findall(r"(?m)^(?:User|Assistant): (.+)$", text)


def sampled(texts: Iterator[str], rng: random.Random, num: int) -> list[str]:
    found = sorted(set(texts))
    rng.shuffle(found)
    return found[:num]


def harmless(data: Path, rng: random.Random) -> Iterator[Labelled]:
    asked = (row["text"] for row in table(data / "banking77" / "train.csv"))
    yield from benign(sampled(asked, rng, 800), "banking77")
    yield from benign(sampled(turns(data, "dialogue_mit-bsd"), rng, 1000), "dialogues")
    chats = rows(data / "chatterbot_english" / "conversations.jsonl")
    said = (message["content"] for chat in chats for message in chat["messages"])
    yield from benign(sampled(said, rng, 800), "chatterbot")
    seeds = rows(data / "self_instruct_seeds" / "seed_tasks.jsonl")
    yield from benign([row["instruction"] for row in seeds], "self_instruct")
    sums = (row["question"] for row in rows(data / "gsm8k" / "train.jsonl"))
    yield from benign(sampled(sums, rng, 300), "gsm8k")
    for prefix, num in (("expository_cc-by", 700), ("expository_cc0", 300), ("stories", 600)):
        yield from benign(windows(shards(data, prefix), rng, num), prefix)


def training(data: Path, seed: int = 1) -> list[Labelled]:
    rng = random.Random(seed)
    return [*evaluation(data), *tweets(data, rng), *questions(data), *harmless(data, rng)]


def held_back(data: Path, seed: int = 2) -> dict[str, list[str]]:
    """Ordinary texts of sources that are not trained on, for the false alarms."""
    rng = random.Random(seed)
    coffee = rows(data / "taskmaster4" / "dialogues.jsonl.gz")
    asked = rows(data / "mt_bench" / "question.jsonl")
    return {
        "commands (SNIPS)": [row["text"] for row in rows(data / "snips_nlu" / "validate.jsonl")],
        "a bank's customers (Banking77, test)": [
            row["text"] for row in table(data / "banking77" / "test.csv")
        ],
        "sums (GSM8K, test)": [row["question"] for row in rows(data / "gsm8k" / "test.jsonl")],
        "orders (Taskmaster-4)": sampled(
            (message["content"] for row in coffee for message in row["messages"]), rng, 2000
        ),
        "demanding questions (MT-Bench)": [turn for row in asked for turn in row["turns"]],
        "Python manuals": windows(shards(data, "expository_psf"), rng, 1000),
        "news, of wars and crimes too": windows(shards(data, "news"), rng, 2000),
        "novels": windows(shards(data, "books_easy"), rng, 2000),
    }
