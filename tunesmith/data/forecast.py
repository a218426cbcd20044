"""What tuning on a file takes: tokens, steps and hyperparameters, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.data.estimate import Hyperparameters, num_steps, resolve
from tunesmith.data.formats import Limits, read_rows
from tunesmith.data.render import Example, Renderer

# Examples kept to measure with.
NUM_KEPT = 64


@dataclass(frozen=True)
class Forecast:
    num_examples: int
    num_sequences: int
    """More than examples where the template makes each turn a sequence."""
    num_tokens: int
    """Of one epoch."""
    num_supervised: int
    """Of these, the tokens that are learned."""
    longest: int
    num_too_long: int
    """Examples that a job would refuse; their tokens are not counted."""
    hyperparameters: Hyperparameters
    num_steps: int
    kept: tuple[Example, ...]
    """Some examples, spread over the file's beginning."""

    @property
    def trained_tokens(self) -> int:
        """Over all epochs: what a job reports, and what is charged."""
        return self.num_tokens * self.hyperparameters.n_epochs


def forecast(
    path: Path,
    renderer: Renderer,
    max_tokens: int | None,
    requested: Mapping[str, Any],
    limits: Limits | None = None,
) -> Forecast:
    """Reads the whole file. Raises DataError and RenderError as a job would, and JobError."""
    num_examples = num_sequences = num_tokens = num_supervised = longest = num_too_long = 0
    kept: list[Example] = []
    for row in read_rows(path, limits=limits):
        examples = renderer.examples(row)
        num_examples += 1
        most = max(len(example.ids) for example in examples)
        longest = max(longest, most)
        if max_tokens is not None and most > max_tokens:
            num_too_long += 1
            continue
        num_sequences += len(examples)
        num_tokens += sum(len(example.ids) for example in examples)
        num_supervised += sum(weight > 0 for each in examples for weight in each.weights)
        if len(kept) < NUM_KEPT:
            kept += examples
    hyper = resolve(requested, num_examples)
    steps = num_steps(num_examples, hyper.n_epochs, hyper.batch_size)
    return Forecast(
        num_examples,
        num_sequences,
        num_tokens,
        num_supervised,
        longest,
        num_too_long,
        hyper,
        steps,
        tuple(kept[:NUM_KEPT]),
    )
