"""What tuning on a file takes: tokens, steps and hyperparameters, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from tunesmith.data.codes import CODES
from tunesmith.data.estimate import Hyperparameters, num_steps, resolve
from tunesmith.data.formats import Limits
from tunesmith.data.render import Example, Renderer
from tunesmith.data.rows import file_kind, read_any
from tunesmith.data.scan import Progress, scan
from tunesmith.data.scanner import Plan
from tunesmith.data.sequences import sequences

# Examples kept to measure with.
NUM_KEPT = 64
# Errors that are told with the estimate, not raised.
TOLD = {"too_long", "answer_cut"}


@dataclass(frozen=True)
class Forecast:
    kind: str
    """Of the rows: chat, preference, reinforcement, ..."""
    num_examples: int
    num_tokens: int
    """Of one epoch; of pairs prompt and both answers, of reinforcement rows the prompts."""
    num_supervised: int
    """Of these, the tokens that are learned."""
    longest: int
    num_too_long: int
    """Examples that a job would refuse; their tokens are not counted."""
    hyperparameters: Hyperparameters
    num_steps: int
    openai_tokens: Mapping[str, int]
    """Of one epoch, by encoding."""
    kept: tuple[Example, ...]
    """Some examples from the file's beginning."""

    @property
    def trained_tokens(self) -> int:
        """Over all epochs: what a job reports, and what is charged."""
        return self.num_tokens * self.hyperparameters.n_epochs


def forecast(
    path: Path,
    renderer: Renderer,
    max_tokens: int | None,
    requested: Mapping[str, Any],
    *,
    method: str | None = None,
    encodings: tuple[str, ...] = (),
    progress: Progress | None = None,
    limits: Limits | None = None,
) -> Forecast:
    """Reads the whole file. Raises DataError and RenderError as a job would, and JobError."""
    limits = limits or Limits()
    kind = file_kind(path, method)
    found = scan(Plan(path, kind, renderer, max_tokens, limits, encodings), progress)
    if any(CODES[code].severity == "error" for code in found.faults.keys() - TOLD):
        # Read again up to the first wrong row, which raises.
        for row in read_any(path, method, limits):
            sequences(renderer, row)
    columns = found.columns
    fits = columns["lost"] == 0
    kept = [
        each.example
        for row in islice(read_any(path, method, limits), NUM_KEPT)
        for each in sequences(renderer, row)
        if max_tokens is None or len(each.example.ids) <= max_tokens
    ]
    hyper = resolve(requested, found.num_rows, "dpo" if kind == "preference" else "supervised")
    return Forecast(
        kind,
        found.num_rows,
        int(columns["tokens"][fits].sum()),
        int(columns["trained"][fits].sum()),
        int(columns["longest"].max(initial=0)),
        int((~fits).sum()),
        hyper,
        num_steps(found.num_rows, hyper.n_epochs, hyper.batch_size),
        dict(found.figures.totals) if found.figures else {},
        tuple(kept[:NUM_KEPT]),
    )
