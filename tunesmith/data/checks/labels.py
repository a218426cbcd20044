"""The balance of labels, where the answers are a few short ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.checks.answers import is_classification, written

# Of the entropy that equal shares would have.
MIN_BALANCE = 0.7
# A label is rare if the most frequent one has this many times its rows.
RARE = 10


def rare_labels(columns: NDArray[Any]) -> tuple[NDArray[np.int64], str]:
    """The rows of rare labels where the balance is bad, and the figures in words."""
    rows = written(columns)
    if not is_classification(columns):
        return rows[:0], ""
    labels = columns["answer"][rows]
    found, counts = np.unique(labels, return_counts=True)
    shares = counts / counts.sum()
    balance = float(-(shares * np.log(shares)).sum() / np.log(len(found)))
    if balance >= MIN_BALANCE:
        return rows[:0], ""
    rare = (
        found[counts * RARE <= counts.max()]
        if (counts * RARE <= counts.max()).any()
        else (found[counts == counts.min()])
    )
    text = (
        f"{len(found)} labels; the most frequent has {counts.max()} of {counts.sum()} rows, "
        f"the rarest {counts.min()}"
    )
    return rows[np.isin(labels, rare)], text
