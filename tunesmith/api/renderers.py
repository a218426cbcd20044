"""The renderers of the bases in use, loaded on first need and kept while the base is the same."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path

from tunesmith.api.text_stream import TokenBytes
from tunesmith.data.render import Renderer

# A renderer holds a tokenizer: some MB for a small vocabulary, some tens for a large one.
CAPACITY = 8


class Renderers:
    """Safe to call from several threads; a base is loaded once, however many ask for it."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[Renderer, TokenBytes]] = OrderedDict()

    def has(self, fingerprint: str) -> bool:
        """Whether `get` has nothing to load and nobody to wait for."""
        return fingerprint in self._kept and not self._lock.locked()

    def get(self, fingerprint: str, directory: Path) -> tuple[Renderer, TokenBytes]:
        """The renderer of the base in `directory`, whose files have this fingerprint."""
        with self._lock:
            kept = self._kept.get(fingerprint)
            if kept is None:
                renderer = Renderer.load(directory)
                kept = (renderer, TokenBytes(renderer.tokenizer))
                self._kept[fingerprint] = kept
                if len(self._kept) > self._capacity:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(fingerprint)
            return kept
