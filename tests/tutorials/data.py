"""The sample data of the tutorials, and files made longer from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

TEACHER = (
    "You are teaching assistant for Machine Learning. You should help to user to answer on his "
    "question."
)
# Two of tutorial 000's five rows are printed; the other three are in their manner.
SHAKESPEARE = (
    (
        "What is machine learning?",
        "'Tis but the art of teaching machines to think, to learn from data most fine, and "
        "decisions to link.",
    ),
    (
        "How doth neural networks work?",
        "They're like the brains of yon digital beast, with layers many, and nodes that cease.",
    ),
    (
        "What is overfitting?",
        "To know by heart what once was seen, yet stumble at the new, full keen.",
    ),
    (
        "What is gradient descent?",
        "A wary step down yonder hill, where errors fall and then lie still.",
    ),
    (
        "What is a test set?",
        "Rows kept apart from prying eye, to prove if learning be no lie.",
    ),
)
# As tutorials 001 and 003 print them; the latter over several lines each, which is no JSONL.
MARV = (HERE / "marv.jsonl").read_bytes()
PRETTY_MARV = (HERE / "marv_pretty.json").read_bytes()


def shakespeare(num_rows: int) -> bytes:
    """A file of that many rows: the five again and again."""
    lines = []
    for number in range(num_rows):
        question, answer = SHAKESPEARE[number % len(SHAKESPEARE)]
        messages: list[dict[str, Any]] = [
            {"role": "system", "content": TEACHER},
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
        lines.append(json.dumps({"messages": messages}) + "\n")
    return "".join(lines).encode()
