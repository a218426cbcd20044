"""Chunks of a stream that differ in nothing but their text, which most do."""

from __future__ import annotations

import json
from collections.abc import Callable

# In the place of a text; in no id and no name.
BLANK = "\x00"
_quoted = json.JSONEncoder(ensure_ascii=False).encode


class TextChunk:
    """Writes what `render` would for any text, which it is asked once for."""

    def __init__(self, render: Callable[[str], bytes]) -> None:
        self._before, self._after = render(BLANK).split(json.dumps(BLANK).encode())

    def __call__(self, text: str) -> bytes:
        return self._before + _quoted(text).encode() + self._after
