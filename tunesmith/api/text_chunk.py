"""Chunks of a stream that differ in nothing but their text, which most do."""

from __future__ import annotations

import json
from collections.abc import Callable

# In the place of a text; in no id and no name.
BLANK = "\x00"
_quoted = json.JSONEncoder(ensure_ascii=False).encode


class TextChunks:
    """Writes what `render` would for a choice and any text; it is asked once for each choice."""

    def __init__(self, render: Callable[[int, str], bytes]) -> None:
        self._render = render
        self._around_text: dict[int, list[bytes]] = {}

    def __call__(self, index: int, text: str) -> bytes:
        if index not in self._around_text:
            blank = self._render(index, BLANK)
            self._around_text[index] = blank.split(json.dumps(BLANK).encode())
        before, after = self._around_text[index]
        return before + _quoted(text).encode() + after
