"""Texts and token ids that requests bring as they are, for completions and embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tunesmith.data.render import Renderer
from tunesmith.errors import BadRequest

Given = str | list[str] | list[int] | list[list[int]]


@dataclass(frozen=True)
class Prompt:
    """One text: its ids, and how many of them the tokenizer put before it."""

    ids: list[int]
    text: str
    num_added: int = 0


def prompts_of(given: Given, renderer: Renderer, *, param: str, most: int) -> list[Prompt]:
    """The texts of a request, one or many. 400 for none, too many, or ids that are no tokens."""
    if isinstance(given, str) or (given and isinstance(given[0], int)):
        return [_prompt(given, renderer, param)]
    many = given
    if not many:
        raise _wrong(param, "must not be empty", "empty_array")
    if len(many) > most:
        raise _wrong(param, f"holds {len(many)} texts; at most {most}", "array_above_max_length")
    return [_prompt(each, renderer, f"{param}[{place}]") for place, each in enumerate(many)]


def _prompt(given: Any, renderer: Renderer, param: str) -> Prompt:
    """`given` is a text, or a list of ids: pydantic has let no mixture pass."""
    if isinstance(given, str):
        ids = renderer.plain_prompt(given)
        bare = renderer.tokenizer.encode(given, add_special_tokens=False).ids
        num_added = len(ids) - len(bare) if ids[len(ids) - len(bare) :] == bare else 0
        if ids:
            return Prompt(ids, given, num_added)
        # A text needs something to begin after; as the public service does, the end of another.
        start = renderer.start_id
        return Prompt([start], given, 1)
    outside = [number for number in given if not 0 <= number < renderer.vocab_size]
    if not given:
        raise _wrong(param, "must not be empty", "empty_array")
    if outside:
        highest = renderer.vocab_size - 1
        raise _wrong(param, f"{outside[0]} is no token id of this model (0 to {highest})")
    return Prompt(given, str(renderer.tokenizer.decode(given, skip_special_tokens=False)))


def _wrong(param: str, text: str, code: str = "invalid_value") -> BadRequest:
    return BadRequest(f"Invalid value for '{param}': {text}.", param=param, code=code)
