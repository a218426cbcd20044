"""How well a job learned each of its rows, for people to look at.

    rows.npy        (rows, 2), fp32: each row's loss in the first and in the last epoch, or NaN

What a resumed job records again is the same.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tunesmith.jobdir.files import write_atomic
from tunesmith.jobdir.layout import ROWS_FILE

By = Literal["loss", "change"]


class RowLosses:
    """The losses of a job's rows, each as it was when its step began."""

    def __init__(self, job_dir: Path, num_rows: int, num_epochs: int) -> None:
        self._path = job_dir / ROWS_FILE
        self._num_rows = num_rows
        self._num_epochs = num_epochs
        earlier = read_rows(job_dir)
        if earlier is None or earlier.shape != (num_rows, 2):
            earlier = np.full((num_rows, 2), np.nan, np.float32)
        self._losses = earlier

    def record(self, first: int, rows: Sequence[int], losses: Sequence[float]) -> None:
        """Notes the losses of a step whose rows are those from the `first` place of the walk on."""
        for at, (row, loss) in enumerate(zip(rows, losses, strict=True), first):
            epoch = at // self._num_rows
            if epoch == 0:
                self._losses[row, 0] = loss
            elif epoch == self._num_epochs - 1:
                self._losses[row, 1] = loss

    def means(self, rows: Sequence[int]) -> tuple[float, float]:
        """Of these rows, in the first and in the last epoch; NaN where there is one epoch alone."""
        first, last = self._losses[list(rows)].mean(0)
        return float(first), float(last)

    def save(self) -> None:
        content = io.BytesIO()
        np.save(content, self._losses, allow_pickle=False)
        write_atomic(self._path, content.getvalue())


def read_rows(job_dir: Path) -> NDArray[np.float32] | None:
    """(rows, 2), or None where nothing was recorded, or nothing that can be read."""
    try:
        losses = np.load(job_dir / ROWS_FILE, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    is_ours = losses.ndim == 2 and losses.shape[1] == 2 and losses.dtype == np.float32
    return losses if is_ours else None


@dataclass(frozen=True)
class RowLoss:
    row: int
    """Counted from 1, as in the messages about a file."""
    first_loss: float | None
    last_loss: float | None

    @property
    def change(self) -> float | None:
        """Below 0 where the row was learned."""
        if self.first_loss is None or self.last_loss is None:
            return None
        return self.last_loss - self.first_loss


def page(
    losses: NDArray[np.float32], by: By, after: int | None, limit: int
) -> tuple[list[RowLoss], bool]:
    """`limit` rows that follow row `after` in the order, and whether there are more.

    "loss": the highest last loss first (the first loss where there is no last); "change": the rows
    that were learned least, or unlearned, first. Rows without the figure come last.
    """
    first, last = losses[:, 0], losses[:, 1]
    figure = np.where(np.isnan(last), first, last) if by == "loss" else last - first
    order = np.argsort(np.where(np.isnan(figure), np.inf, -figure), kind="stable")
    start = 0 if after is None else int(np.flatnonzero(order == after - 1)[0]) + 1
    chosen = order[start : start + limit]
    rows = [RowLoss(int(row) + 1, _number(first[row]), _number(last[row])) for row in chosen]
    return rows, start + limit < len(order)


def _number(value: np.float32) -> float | None:
    return float(value) if np.isfinite(value) else None
