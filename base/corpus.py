"""Builds the pre-training text: conversations in the chat template, prose, and made samples.

The text is cut into passes of about ten million tokens.  Every pass holds each dialogue once
(with a newly drawn system message), a fresh part of the prose and fresh made samples, so a run
may stop after any number of passes and has still seen the whole mix.

Left out: books that are public domain in the US only, the share-alike question and chat shards,
everything any test or evaluation uses (SGD dev and test, SNIPS, Banking77, GSM8K, BFCL), and
de-duplication (the sources are already clean).

    python -m base.tokenizer --data ../shared/data     # once, before this
    python -m base.corpus --data ../shared/data --passes 4
"""

from __future__ import annotations

import argparse
import gzip
import html
import json
import lzma
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from tokenizers import Tokenizer

from base.synthetic import Maker, Message

HERE = Path(__file__).parent
CACHE = HERE / ".cache"
ASSETS = HERE.parent / "tunesmith" / "assets" / "nano"

HELD_BOOKS = {
    "standardebooks/lewis-carroll_through-the-looking-glass_john-tenniel",
    "standardebooks/robert-louis-stevenson_kidnapped",
}
HELD_STAR = 150

#: shard prefix -> characters of it in every pass
PROSE = {
    "stories_cc-by": 1_400_000,
    "books_easy": 7_500_000,
    "books_general": 4_000_000,
    "expository_cc-by": 900_000,
    "expository_cc0": 500_000,
    "news_cc-by": 1_200_000,
    "dictionary_cc-by": 200_000,
}
NUM_MADE = 20_000
NUM_ECHOES = 6_000
NUM_DEFINITIONS = 4_000

CHATTERBOT = {
    "greetings",
    "conversations",
    "emotion",
    "food",
    "botprofile",
    "humor",
    "psychology",
    "health",
    "ai",
    "sports",
    "movies",
}
GENERAL = (
    "You are a helpful assistant.",
    "You are a friendly assistant.",
    "Be helpful and brief.",
    "You are an assistant. Answer the user.",
    "Answer politely.",
    "You are a helpful AI assistant.",
    "Keep your answers short.",
    "You are a kind and patient assistant.",
    "Help the user.",
)
BOOKING = (
    "You are a booking assistant.",
    "You help customers with bookings and questions.",
    "You work at a help desk. Be polite and brief.",
    "You are the assistant of a travel agency.",
    "You find restaurants, hotels, flights, films and events for the user.",
    "Ask for missing details, then confirm.",
    "You are a customer service agent.",
)
COFFEE = ("You take orders in a coffee shop.", "You are a barista.", "You sell coffee and tea.")
QUESTIONS = ("Answer with common sense.", "Answer the question and say why.", "Answer briefly.")
STYLES: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("Answer in capital letters.", str.upper),
    ("Write everything in lower case.", str.lower),
    ('Begin every answer with "Sure!"', lambda text: f"Sure! {text}"),
    ('End every answer with "Anything else?"', lambda text: f"{text} Anything else?"),
    ("Put your answers in brackets.", lambda text: f"[{text}]"),
    ('Answer as JSON with the key "answer".', lambda text: json.dumps({"answer": text})),
    ("Answer with the first word only.", lambda text: text.split(" ")[0]),
)
WHOM = ("What does {} mean?", "Define {}.", "What is the meaning of {}?", "Explain the word {}.")


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    opener: Any = {".xz": lzma.open, ".gz": gzip.open}.get(path.suffix, open)
    with opener(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def read_shards(data: Path, prefix: str) -> Iterator[dict[str, Any]]:
    for path in sorted((data / "pretrain_text").glob(f"{prefix}*.jsonl.xz")):
        yield from read_rows(path)


def us_only(data: Path) -> set[str]:
    """Books whose author died in 1956 or later, marked U in the table of sources."""
    table = (data / "pretrain_text" / "SOURCE.md").read_text(encoding="utf-8")
    return set(re.findall(r"^\| (\S+/\S+) \([0-9a-f]+\) \| [^|]* \| U \|", table, re.MULTILINE))


@cache
def template() -> jinja2.Template:
    environment = jinja2.Environment()
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment.from_string((HERE / "chat_template.jinja").read_text(encoding="utf-8"))


def render(messages: list[Message], tools: list[dict[str, Any]] | None = None) -> str:
    return template().render(messages=messages, tools=tools or None)


# -- conversations ------------------------------------------------------------------------------


def sgd(data: Path, split: str) -> list[list[Message]]:
    rows = read_rows(data / "sgd_dialogues" / "dialogues.jsonl.gz")
    return [row["messages"] for row in rows if row["split"] == split]


def taskmaster(data: Path) -> list[list[Message]]:
    return [row["messages"] for row in read_rows(data / "taskmaster4" / "dialogues.jsonl.gz")]


def chatterbot(data: Path) -> list[list[Message]]:
    rows = read_rows(data / "chatterbot_english" / "conversations.jsonl")
    return [
        row["messages"] for row in rows if row["topic"] in CHATTERBOT and len(row["messages"]) < 9
    ]


def parse_lines(block: str) -> list[Message]:
    """`User: ...` and `Assistant: ...` lines; a line without a speaker goes on."""
    messages: list[Message] = []
    for line in block.split("\n"):
        speaker, colon, content = line.partition(": ")
        if colon and speaker in ("User", "Assistant"):
            messages.append({"role": speaker.lower(), "content": content})
        elif messages:
            messages[-1]["content"] += "\n" + line
    return messages


def star(data: Path) -> list[tuple[str, list[Message]]]:
    """(domains, dialogue); the domains are the part of the title before "dialogue"."""
    return [
        (row["title"].removesuffix("dialogue").strip(), parse_lines(row["text"]))
        for row in read_shards(data, "dialogue_mit-bsd")
        if row["source"] == "RasaHQ/STAR"
    ]


def commonsense(data: Path) -> list[list[Message]]:
    return [
        parse_lines(block)
        for row in read_shards(data, "dialogue_mit-bsd")
        if row["source"] == "salesforce/cos-e"
        for block in row["text"].split("\n\n")
    ]


def with_system(rng: random.Random, messages: list[Message], systems: tuple[str, ...]) -> str:
    """Half of the conversations get a system message; a few of those set a style of answering."""
    if rng.random() < 0.04:
        system, change = rng.choice(STYLES)
        styled = [
            {**m, "content": change(m["content"])} if m["role"] == "assistant" else m
            for m in messages[: rng.choice([2, 4, 8])]
        ]
        return render([{"role": "system", "content": system}, *styled])
    if rng.random() < 0.5:
        return render([{"role": "system", "content": rng.choice(systems)}, *messages])
    return render(messages)


def domain_labels(rng: random.Random, dialogues: list[tuple[str, list[Message]]]) -> Iterator[str]:
    """The first request of a STAR dialogue, answered by its domain."""
    single = [
        (domain, talk)
        for domain, talk in dialogues
        if domain and "," not in domain and talk[0]["role"] == "user"
    ]
    domains = sorted({domain for domain, _ in single})
    for domain, talk in rng.sample(single, len(single) // 4):
        options = list({domain, *rng.sample(domains, rng.randint(1, 5))})
        rng.shuffle(options)
        system = f"Which service is meant? Answer with one of: {', '.join(options)}."
        request = max((m["content"] for m in talk[:6] if m["role"] == "user"), key=len)
        yield render(
            [
                {"role": "system", "content": system},
                {"role": "user", "content": request},
                {"role": "assistant", "content": domain},
            ]
        )


def pair(ask: str, answer: str) -> str:
    return render([{"role": "user", "content": ask}, {"role": "assistant", "content": answer}])


def definitions(rng: random.Random, data: Path) -> list[str]:
    texts = "\n".join(row["text"] for row in read_shards(data, "dictionary_cc-by"))
    entries = re.findall(r"^([a-z][a-z -]+) \(\w+\): (.+)$", texts, re.MULTILINE)
    return [pair(rng.choice(WHOM).format(word), meaning) for word, meaning in entries]


def told_stories(rng: random.Random, data: Path) -> Iterator[str]:
    for row in read_shards(data, "stories_cc-by"):
        title, _, body = row["text"].partition("\n\n")
        if 200 < len(body) < 2_500:
            ask = rng.choice(
                [
                    "Tell me a story.",
                    f'Tell me the story "{title}".',
                    f"Write a short story called {title}.",
                    "Can you tell me a story?",
                ]
            )
            yield pair(ask, body)
    for row in read_shards(data, "expository_cc0"):
        if row["title"] and row["text"].startswith("Recipe") and len(row["text"]) < 2_500:
            yield pair(f"How do I make {row['title']}?", row["text"].partition("\n\n")[2])


# -- prose --------------------------------------------------------------------------------------


def prose(data: Path, prefix: str) -> list[str]:
    barred = us_only(data) | HELD_BOOKS
    rows = (row for row in read_shards(data, prefix) if row["source"] not in barred)
    return [html.unescape(row["text"]).replace("\xa0", " ") for row in rows]


def take(texts: list[str], start: int, num_chars: int) -> tuple[list[str], int]:
    """Texts from `start` on, round and round, until there are enough characters."""
    taken: list[str] = []
    while num_chars > 0:
        taken.append(texts[start % len(texts)])
        num_chars -= len(taken[-1])
        start += 1
    return taken, start


def vocabulary(texts: Iterable[str]) -> list[str]:
    """Lower-case words for made samples, rare ones included so that copying is not by heart."""
    counts = Counter(word for text in texts for word in re.findall(r"\b[a-z]{3,10}\b", text))
    return sorted(word for word, count in counts.items() if count >= 5)


class Corpus:
    """All sources in memory; `build(k)` gives the documents of pass k."""

    def __init__(self, data: Path, seed: int = 7) -> None:
        self.data = data
        self.seed = seed
        dialogues = star(data)
        random.Random(seed).shuffle(dialogues)
        self.held_star, self.star = dialogues[:HELD_STAR], dialogues[HELD_STAR:]
        self.prose = {prefix: prose(data, prefix) for prefix in PROSE}
        for texts in self.prose.values():
            random.Random(seed).shuffle(texts)
        self.words = vocabulary(self.prose["stories_cc-by"] + self.prose["books_easy"][:300])

    def made(self, seed: int, num: int) -> list[str]:
        maker = Maker(random.Random(seed), self.words)
        samples = [maker.sample() for _ in range(num)]
        return [render(sample.messages, sample.tools) for sample in samples]

    def echoes(self, seed: int) -> list[str]:
        maker = Maker(random.Random(seed), self.words)
        return [f"<|bos|>{maker.echo()}<|eos|>" for _ in range(NUM_ECHOES)]

    def conversations(self, index: int) -> dict[str, list[str]]:
        rng, data = random.Random(self.seed * 1_000 + index), self.data
        common = commonsense(data)
        rng.shuffle(common)
        return {
            "sgd": [with_system(rng, talk, BOOKING + GENERAL) for talk in sgd(data, "train")],
            "star": [with_system(rng, talk, BOOKING + GENERAL) for _, talk in self.star],
            "star labels": list(domain_labels(rng, self.star)),
            "taskmaster": [with_system(rng, talk, COFFEE + GENERAL) for talk in taskmaster(data)],
            "commonsense": [with_system(rng, talk, QUESTIONS + GENERAL) for talk in common],
            "chatterbot": [with_system(rng, t, GENERAL) for t in chatterbot(data) for _ in "xx"],
            "definitions": rng.sample(definitions(rng, data), NUM_DEFINITIONS),
            "stories told": list(told_stories(rng, data)),
            "made": self.made(self.seed * 1_000 + index, NUM_MADE),
        }

    def build(self, index: int) -> dict[str, list[str]]:
        documents = self.conversations(index)
        documents["echoes"] = self.echoes(self.seed * 1_000 + index)
        for prefix, num_chars in PROSE.items():
            texts, start = self.prose[prefix], 0
            for _ in range(index + 1):
                taken, start = take(texts, start, num_chars)
            documents[prefix] = [f"<|bos|>{text}<|eos|>" for text in taken]
        return documents

    def held(self) -> dict[str, list[str]]:
        books = [row for row in read_shards(self.data, "books") if row["source"] in HELD_BOOKS]
        return {
            "sgd": [render(talk) for talk in sgd(self.data, "dev")[::8]],
            "star": [render(talk) for _, talk in self.held_star],
            "books": [f"<|bos|>{row['text']}<|eos|>" for row in books],
            "made": self.made(999_983, 600),
        }


def encode(tokenizer: Tokenizer, documents: list[str]) -> list[list[int]]:
    return [one.ids for one in tokenizer.encode_batch_fast(documents, add_special_tokens=False)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--passes", type=int, default=4)
    args = parser.parse_args()
    args.cache.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.from_file(str(ASSETS / "tokenizer.json"))
    corpus = Corpus(args.data)
    for name, documents in corpus.held().items():
        ids = np.concatenate([np.array(one, np.uint16) for one in encode(tokenizer, documents)])
        ids.tofile(args.cache / f"held_{name}.bin")
        print(f"held {name}: {len(ids):,} tokens", flush=True)
    for index in range(args.passes):
        groups = {k: encode(tokenizer, texts) for k, texts in corpus.build(index).items()}
        rows = [np.array(ids, np.uint16) for group in groups.values() for ids in group]
        random.Random(index).shuffle(rows)
        partial = args.cache / "partial"
        np.concatenate(rows).tofile(partial)
        partial.rename(args.cache / f"pass_{index:02}.bin")
        sizes = {name: sum(map(len, group)) for name, group in groups.items()}
        total = sum(sizes.values())
        shares = ", ".join(f"{name} {size / total:.1%}" for name, size in sizes.items())
        print(f"pass {index}: {total:,} tokens: {shares}", flush=True)


if __name__ == "__main__":
    main()
