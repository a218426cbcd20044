"""A file's statistics as JSON: figures, and histograms to draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tunesmith.data.figures import Distribution
from tunesmith.data.render import Renderer
from tunesmith.data.rows import read_any
from tunesmith.data.sequences import measure
from tunesmith.data.stats import Stats, balance, histogram

MAX_LABELS = 50
MAX_SYSTEMS = 20
MAX_SYSTEM_CHARS = 200


@dataclass(frozen=True)
class Request:
    path: str
    base: str
    """The base model's directory."""
    method: str | None = None
    max_tokens: int | None = None


def count(path: Path, renderer: Renderer, method: str | None, max_tokens: int | None) -> Stats:
    """The statistics of a file's rows. Raises DataError at the first that is wrong."""
    found = Stats()
    for row in read_any(path, method):
        size = measure(row, renderer, max_tokens)
        is_counted = size.longest > 0
        found.add(row, size.num_tokens if is_counted else None, size.num_trained)
    return found


def figures(found: Stats) -> dict[str, Any]:
    return {
        "num_rows": found.num_rows,
        "kinds": dict(found.kinds),
        "num_tokens": sum(found.tokens),
        "num_trained_tokens": found.trained,
        "num_not_rendered": found.num_not_rendered,
        "tokens": _spread(found.tokens),
        "turns": _spread(found.turns),
        "answer_characters": _spread(found.answer_chars),
        "rejected_characters": _spread(found.rejected_chars),
        "roles": dict(found.roles),
        "fields": dict(found.fields),
        "labels": dict(found.labels.most_common()) if found.labels else None,
        "num_system_messages": len(found.systems),
        "num_with_tools": found.num_with_tools,
    }


def make(request: Request) -> dict[str, Any]:
    """The figures, and what draws them: `histograms`, the most frequent labels and system
    messages."""
    renderer = Renderer.load(Path(request.base))
    found = count(Path(request.path), renderer, request.method, request.max_tokens)
    values = {
        "tokens": found.tokens,
        "turns": found.turns,
        "answer_characters": found.answer_chars,
        "rejected_characters": found.rejected_chars,
    }
    return figures(found) | {
        "max_tokens": request.max_tokens,
        "histograms": {
            name: [asdict(each) for each in histogram(column)] for name, column in values.items()
        },
        "labels": _most(found.labels, MAX_LABELS) if found.labels else [],
        "num_labels": len(found.labels or ()),
        "balance": balance(found.labels.values()) if found.labels else None,
        "systems": _most(found.systems, MAX_SYSTEMS),
    }


def _spread(values: Sequence[int]) -> dict[str, Any] | None:
    of = Distribution.of(values)
    return None if of is None else vars(of)


def _most(counts: Any, most: int) -> list[dict[str, Any]]:
    return [
        {"text": text[:MAX_SYSTEM_CHARS], "count": number}
        for text, number in counts.most_common(most)
    ]
