"""Rows in tokens, against what the base model can take; answers against each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.formats import ChatRow
from tunesmith.data.render import Example, Renderer, RenderError

# An answer is an outlier if it is this much longer than the median, and long at all.
OUTLIER_FACTOR = 20
MIN_OUTLIER_CHARS = 1000
MIN_ROWS = 10
FEW_ROWS = 50


@dataclass(frozen=True)
class Measured:
    num_tokens: int = 0
    num_trained: int = 0
    num_lost: int = 0
    """Tokens beyond the limit."""
    faults: tuple[tuple[str, str], ...] = ()


NOTHING = Measured()


def measure(row: ChatRow | None, renderer: Renderer | None, max_tokens: int | None) -> Measured:
    """A row's tokens, as they will be trained on."""
    if row is None or renderer is None:
        return NOTHING
    try:
        examples = renderer.examples(row)
    except RenderError as error:
        return Measured(faults=(("cannot_render", f": {error.text}"),))
    longest = max(len(example.ids) for example in examples)
    faults: tuple[tuple[str, str], ...] = ()
    lost = 0
    if max_tokens is not None and longest > max_tokens:
        lost = sum(max(0, len(example.ids) - max_tokens) for example in examples)
        is_cut = any(_answer_starts(example) >= max_tokens for example in examples)
        name = "answer_cut" if is_cut else "too_long"
        faults = ((name, f": {longest} tokens where {max_tokens} fit; {lost} are too many"),)
    num_trained = sum(weight > 0 for example in examples for weight in example.weights)
    return Measured(sum(len(example.ids) for example in examples), num_trained, lost, faults)


def _answer_starts(example: Example) -> int:
    """Where the last run of learned tokens begins."""
    place = len(example.ids)
    while place > 0 and example.weights[place - 1] > 0:
        place -= 1
    return place


def outliers(answer_chars: NDArray[Any]) -> NDArray[Any]:
    """Which answers are far longer than the others."""
    said = answer_chars[answer_chars > 0]
    if len(said) < MIN_ROWS:
        return np.zeros(len(answer_chars), bool)
    limit = max(OUTLIER_FACTOR * float(np.median(said)), MIN_OUTLIER_CHARS)
    return np.asarray(answer_chars > limit)


def distribution(values: NDArray[Any]) -> dict[str, float]:
    """Least, most, mean and the true 5th, 50th and 95th percentiles; zeros for no values."""
    if not len(values):
        return dict.fromkeys(("min", "max", "mean", "median", "p5", "p95"), 0.0)
    low, median, high = np.percentile(values, (5, 50, 95))
    return {
        "min": float(values.min()),
        "max": float(values.max()),
        "mean": float(values.mean()),
        "median": float(median),
        "p5": float(low),
        "p95": float(high),
    }
