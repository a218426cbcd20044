"""What may be said of a text: the published categories, and a moderator's verdict on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/intent",
    "self-harm/instructions",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)


@dataclass(frozen=True)
class Verdict:
    """On one text."""

    scores: dict[str, float]
    """From 0 to 1, of the categories that the moderator can tell; of the others it says nothing."""
    flagged: tuple[str, ...]
    """The categories that the text falls under, in the order of CATEGORIES."""


class Moderator(Protocol):
    model: str
    """Its name, as answers show it."""
    max_texts: int
    """How many texts a call should bring at most."""

    def judge(self, texts: Sequence[str]) -> list[Verdict]:
        """A verdict for each text. Raises ModerationError where it cannot be had."""
        ...
