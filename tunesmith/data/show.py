"""A row as the model will see it: pieces of text, each with what training does to it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from tunesmith.data.render import Example, Renderer

REPLACEMENT = "\ufffd"


@dataclass(frozen=True)
class Token:
    """One token, or the few that together spell one character."""

    text: str
    ids: tuple[int, ...]
    trained: bool
    special: bool
    """A control token, not text that somebody wrote."""
    beyond: bool
    """Behind the longest sequence that the base model takes."""


def tokens(renderer: Renderer, example: Example, max_tokens: int) -> list[Token]:
    """An example's tokens in order; their ids together are exactly the example's."""
    special = {
        number
        for number, token in renderer.tokenizer.get_added_tokens_decoder().items()
        if token.special or number in renderer.stop_ids
    }
    result: list[Token] = []
    pending: list[int] = []
    for place, (number, weight) in enumerate(zip(example.ids, example.weights, strict=True)):
        pending.append(number)
        text = renderer.tokenizer.decode(pending, skip_special_tokens=False)
        last = place + 1 == len(example.ids) or (example.weights[place + 1] > 0) != (weight > 0)
        # A character may be spelled by up to four tokens.
        if REPLACEMENT in text and not last and len(pending) < 4 and number not in special:
            continue
        beyond = place >= max_tokens
        result.append(Token(text, tuple(pending), weight > 0, number in special, beyond))
        pending = []
    return result


@dataclass(frozen=True)
class Span:
    """Neighbouring tokens of one kind."""

    tokens: tuple[Token, ...]
    trained: bool


def spans(shown: list[Token]) -> list[Span]:
    return [
        Span(tuple(group), trained) for trained, group in groupby(shown, lambda each: each.trained)
    ]
