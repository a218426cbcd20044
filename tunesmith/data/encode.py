"""Text to token ids, segment by segment, with what users wrote kept apart from control tokens.

Users' text may spell a control token ("<|end|>"). `Marker` wraps such text in two marks before the
template sees it; the template carries the marks along like any character, and `Encoder` takes what
stands between them as plain text. The marks are noncharacters of Unicode; where users' text holds
one itself, it is wrapped as well, so nothing is lost.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from tokenizers import Tokenizer

START, END = "\ufdd0", "\ufdd1"
# What may stand before a text that is encoded by itself, where the tokenizer treats the beginning
# of a text in a special way (SentencePiece writes a space). The first that does not merge is used.
NEUTRAL = ("\n", ".", "a")


class Marker:
    """Wraps every spelling of one of the `tokens` in a text, so that it stays text."""

    def __init__(self, tokens: Iterable[str]) -> None:
        # The longest first: a token may begin with another.
        spellings = sorted({*tokens, START, END}, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, spellings)))

    def mark(self, value: Any) -> Any:
        """The value with every string in it marked, keys included; lists and objects are copied."""
        if isinstance(value, str):
            return self._pattern.sub(f"{START}\\g<0>{END}", value)
        if isinstance(value, dict):
            return {self.mark(key): self.mark(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.mark(item) for item in value]
        return value


class Encoder:
    """Encodes marked text. A segment's ids depend on it and on the control token before it only."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder().values()
        self._added = tuple(sorted((token.content for token in added), key=len, reverse=True))
        self._added_ids = set(tokenizer.get_added_tokens_decoder())
        # A template may cut a string and part the marks; a lone one still separates.
        spellings = "|".join(map(re.escape, (*self._added, START, END)))
        self._marks = re.compile(f"{START}({spellings}){END}|[{START}{END}]")
        self._sections_stand_alone = not any(token.rstrip for token in added) and all(
            self._ids(before + "hello") == self._ids(before) + self._ids("hello")
            for before in ("\n", *self._added[:1])
        )

    def encode(self, segments: Sequence[str]) -> list[list[int]]:
        """The ids of each segment of one conversation's text, in order."""
        result = []
        before = None
        for segment in segments:
            ids: list[int] = []
            # Text and marked text alternate: [text, marked, text, ...], None for a lone mark.
            for place, piece in enumerate(self._marks.split(segment)):
                if not piece:
                    continue
                if place % 2:
                    ids += self._plain_ids(piece)
                    before = ""
                else:
                    ids += self._ids_after(before, piece)
                    before = piece
            result.append(ids)
        return result

    def first_added(self, text: str) -> str | None:
        """The first added token that the tokenizer finds in unmarked text."""
        for number in self._ids(text):
            if number in self._added_ids:
                return self._tokenizer.id_to_token(number)
        return None

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def _ids_after(self, before: str | None, text: str) -> list[int]:
        if before is None or self._sections_stand_alone:
            return self._ids(text)
        if before.endswith(self._added):
            token = next(token for token in self._added if before.endswith(token))
            return self._ids(token + text)[len(self._ids(token)) :]
        for neutral in NEUTRAL:
            head, ids = self._ids(neutral), self._ids(neutral + text)
            if ids[: len(head)] == head:
                return ids[len(head) :]
        return self._ids(text)

    def _plain_ids(self, text: str) -> list[int]:
        """The ids of a text that spells an added token; never that token's own."""
        for pieces in ([text], list(text)):
            ids = [number for piece in pieces for number in self._model_ids(piece)]
            if self._added_ids.isdisjoint(ids):
                return ids
        return []  # a control token of one character has no other spelling

    def _model_ids(self, text: str) -> list[int]:
        """The ids as if there were no added tokens, in the middle of a text."""
        head, ids = self._model_ids_alone(NEUTRAL[0]), self._model_ids_alone(NEUTRAL[0] + text)
        return ids[len(head) :] if ids[: len(head)] == head else self._model_ids_alone(text)

    def _model_ids_alone(self, text: str) -> list[int]:
        if self._tokenizer.normalizer is not None:
            text = self._tokenizer.normalizer.normalize_str(text)
        pieces = [text]
        if self._tokenizer.pre_tokenizer is not None:
            pieces = [piece for piece, _ in self._tokenizer.pre_tokenizer.pre_tokenize_str(text)]
        return [token.id for piece in pieces for token in self._tokenizer.model.tokenize(piece)]
