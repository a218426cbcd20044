"""The lengths of answers beside each other."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# An answer is an outlier if it is this much longer than the median, and long at all.
OUTLIER_FACTOR = 20
MIN_OUTLIER_CHARS = 1000
MIN_ROWS = 10
FEW_ROWS = 50


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
