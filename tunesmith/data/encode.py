"""Text to token ids, segment by segment, with what users wrote kept apart from control tokens.

Users' text may spell a control token ("<|end|>"). `Marker` wraps such text in two marks before the
template sees it; the template carries the marks along like any character, and `Encoder` takes what
stands between them as plain text. The marks are noncharacters of Unicode; where users' text holds
one itself, it is wrapped as well, so nothing is lost.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any

from tokenizers import Tokenizer

from tunesmith.data.cuts import piece_pattern

START, END = "\ufdd0", "\ufdd1"
# What may stand before a text that is encoded by itself, where the tokenizer treats the beginning
# of a text in a special way (SentencePiece writes a space). The first that does not merge is used.
NEUTRAL = ("\n", ".", "a")

# A longer text is not kept; together they stay within some 16 MB.
MAX_KEPT_CHARS = 8192
MAX_ALL_CHARS = 4 << 20
# What an entry costs beside its characters, counted as such.
ENTRY_CHARS = 64


def _any_of(spellings: set[str]) -> str:
    """A pattern for one of them; the longest first, because one may begin with another."""
    longest_first = sorted(spellings, key=lambda each: (-len(each), each))
    return "|".join(map(re.escape, longest_first)) or "(?!)"


class Marker:
    """Wraps every spelling of one of the `tokens` in a text, so that it stays text."""

    def __init__(self, tokens: Iterable[str]) -> None:
        spellings = {*tokens, START, END}
        self._pattern = re.compile(_any_of(spellings))
        self._beginnings = tuple({spelling[0] for spelling in spellings if spelling})

    def mark(self, value: Any) -> Any:
        """The value with every string in it marked, keys included; lists and objects are copied."""
        if isinstance(value, str):
            for beginning in self._beginnings:
                if beginning in value:
                    return self._pattern.sub(f"{START}\\g<0>{END}", value)
            return value
        if isinstance(value, dict):
            return {self.mark(key): self.mark(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.mark(item) for item in value]
        return value


class KeptIds(dict[str, tuple[int, ...]]):
    """The ids of texts, found when first asked for. When they are too many, all are forgotten."""

    def __init__(self, ids_of: Callable[[str], Sequence[int]]) -> None:
        self._ids_of = ids_of
        self._num_chars = 0

    def __missing__(self, text: str) -> tuple[int, ...]:
        ids = tuple(self._ids_of(text))
        if len(text) <= MAX_KEPT_CHARS:
            if self._num_chars > MAX_ALL_CHARS:
                self.clear()
                self._num_chars = 0
            self[text] = ids
            self._num_chars += len(text) + ENTRY_CHARS
        return ids


class Encoder:
    """Encodes marked text. A segment's ids depend on it and on the control token before it only."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder().values()
        self._added = tuple(sorted((token.content for token in added), key=len, reverse=True))
        self._added_ids = {
            token.content: number for number, token in tokenizer.get_added_tokens_decoder().items()
        }
        # A template may cut a string and part the marks; a lone one still separates.
        spelling = _any_of({*self._added, START, END})
        self._marks = re.compile(f"{START}({spelling}){END}|[{START}{END}]")
        self._greedy = tuple(token.content for token in added if token.rstrip)
        # The tokenizer looks for these first, before it normalises.
        found_first = {token.content for token in added if not token.normalized}
        self._whole = re.compile(f"({_any_of(found_first)})")
        self._kept = KeptIds(self._ids)
        self._sections_stand_alone = not any(
            token.lstrip or token.rstrip or token.single_word for token in added
        ) and all(
            self._ids(before + "hello") == self._ids(before) + self._ids("hello")
            for before in ("\n", *self._added[:1])
        )
        pattern = piece_pattern(tokenizer)
        self._pieces = pattern.findall if pattern else lambda text: [text]
        self._kept_inside = self._kept if self._sections_stand_alone else KeptIds(self._ids_inside)

    def encode(self, segments: Sequence[str]) -> list[list[int]]:
        """The ids of each segment of one conversation's text, in order."""
        result = []
        before = None
        for segment in segments:
            ids: list[int] = []
            # Text and marked text alternate: [text, marked, text, ...], None for a lone mark.
            is_marked = START in segment or END in segment
            for place, piece in enumerate(self._marks.split(segment) if is_marked else (segment,)):
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
            if number in self._added_ids.values():
                return self._tokenizer.id_to_token(number)
        return None

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def _ids_after(self, before: str | None, text: str) -> list[int]:
        if self._sections_stand_alone:
            return self._ids_by_section(text)
        first, *others = self._pieces(text)
        inside = map(self._kept_inside.__getitem__, others)
        return [*self._first_ids(before, first), *chain.from_iterable(inside)]

    def _first_ids(self, before: str | None, text: str) -> Sequence[int]:
        if before is None:
            return self._kept[text]
        # Some tokens swallow the white space after them, and so are still the neighbour behind it.
        stripped = before.rstrip()
        token = next((token for token in self._greedy if stripped.endswith(token)), None)
        token = token or next((token for token in self._added if before.endswith(token)), None)
        if token is not None:
            return self._kept[token + text][len(self._kept[token]) :]
        for neutral in NEUTRAL:
            head, ids = self._kept[neutral], self._kept[neutral + text]
            if ids[: len(head)] == head:
                return ids[len(head) :]
        return self._kept[text]

    def _ids_by_section(self, text: str) -> list[int]:
        """The same ids, added tokens and the text between them each by itself."""
        ids: list[int] = []
        for place, section in enumerate(self._whole.split(text)):
            if place % 2:
                ids.append(self._added_ids[section])
            elif section:
                ids.extend(chain.from_iterable(map(self._kept.__getitem__, self._pieces(section))))
        return ids

    def _ids_inside(self, text: str) -> list[int]:
        """The ids of a piece that is not the first of its text."""
        return self._ids(NEUTRAL[-1] + text)[len(self._kept[NEUTRAL[-1]]) :]

    def _plain_ids(self, text: str) -> list[int]:
        """The ids of a text that spells an added token; never that token's own."""
        for pieces in ([text], list(text)):
            ids = [number for piece in pieces for number in self._model_ids(piece)]
            if not set(ids) & set(self._added_ids.values()):
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
