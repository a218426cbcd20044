"""Near-copies of rows: words changed at random places, case, punctuation, sentences in turn."""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Callable
from typing import Any

Row = dict[str, Any]
MIN_WORDS = 4
SENTENCE = re.compile(r"(?<=[.!?]) ")


def reworded(text: str, share: float, rng: random.Random, vocabulary: list[str]) -> str:
    """The text with a share of its words replaced, left out, or with one put in between."""
    words = text.split(" ")
    places = rng.sample(range(len(words)), max(1, round(share * len(words))))
    for place in sorted(places, reverse=True):
        kind = rng.randrange(4)
        if kind < 2:
            words[place] = rng.choice(vocabulary)
        elif kind == 2:
            words.insert(place, rng.choice(vocabulary))
        else:
            del words[place]
    return " ".join(words)


def reordered(text: str, rng: random.Random) -> str:
    sentences = SENTENCE.split(text)
    rng.shuffle(sentences)
    return " ".join(sentences)


Edit = Callable[[str, random.Random, list[str]], str]
EDITS: dict[str, Edit] = {
    "5 % of the words": lambda text, rng, words: reworded(text, 0.05, rng, words),
    "10 % of the words": lambda text, rng, words: reworded(text, 0.10, rng, words),
    "15 % of the words": lambda text, rng, words: reworded(text, 0.15, rng, words),
    "case": lambda text, rng, words: text.upper(),
    "punctuation": lambda text, rng, words: re.sub(r"[,.;!?']", " ", text),
    "order of sentences": lambda text, rng, words: reordered(text, rng),
    "order, case and 10 %": lambda text, rng, words: reworded(
        reordered(text, rng).lower(), 0.10, rng, words
    ),
}


def near_copy(row: Row, edit: Edit, rng: random.Random, vocabulary: list[str]) -> Row:
    """The row with every message edited that is longer than a few words."""
    row = copy.deepcopy(row)
    for message in row["messages"]:
        text = message.get("content")
        is_text = message["role"] != "system" and isinstance(text, str)
        if is_text and len(text.split()) >= MIN_WORDS:
            message["content"] = edit(text, rng, vocabulary)
    return row


def vocabulary_of(rows: list[Row]) -> list[str]:
    """Words to put in, as frequent as they are in the rows."""
    texts = [message.get("content") for row in rows for message in row["messages"]]
    return [word for text in texts if isinstance(text, str) for word in text.split()]
