"""A data file against a base model: one pass that renders, counts and refuses.

The validator counts, the trainer keeps what comes by; both read with the same code, so what was
accepted is what is trained on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tunesmith.data.estimate import Method
from tunesmith.data.formats import Limits, because_of, read_rows
from tunesmith.data.pair_rows import PairRow, read_pairs
from tunesmith.data.render import Example, Renderer, RenderError
from tunesmith.errors import DataError

MIN_EXAMPLES = 10
# Over-long examples that are named one by one.
MAX_NAMED = 10


@dataclass
class Dataset:
    """What a pass over a file found; complete when the pass has ended."""

    num_examples: int = 0
    """Rows of the file."""
    num_sequences: int = 0
    """More than rows where a template rewrites history: then each turn is one. Two for a pair."""
    num_tokens: int = 0
    """Of all sequences, each up to its last supervised token; the prompt of a pair counts once."""
    num_supervised: int = 0
    """Tokens that are learned."""
    max_tokens: int = 0
    """Of the longest sequence."""
    warnings: list[str] = field(default_factory=list)

    def add(self, example: Example) -> None:
        self.num_sequences += 1
        self.num_tokens += example.num_counted
        self.num_supervised += sum(weight > 0 for weight in example.weights)
        self.max_tokens = max(self.max_tokens, len(example.ids))


def read_examples(
    path: Path,
    file_id: str,
    param: str,
    renderer: Renderer,
    max_tokens: int,
    min_examples: int = MIN_EXAMPLES,
    limits: Limits | None = None,
    dataset: Dataset | None = None,
    method: Method = "supervised",
) -> Iterator[Example]:
    """The examples of a file as they are read, counted into `dataset`; for "dpo" two a row.

    `param` is "training_file" or "validation_file"; `max_tokens` is the most one sequence may
    have. Memory stays within one line of the file.

    Raises DataError, naming the line, if the file cannot be trained on; errors about the whole
    file (too few examples, some too long) come after the last example. Examples that are too long
    are never cut: they are left out until that error.
    """
    dataset = Dataset() if dataset is None else dataset
    too_long: list[tuple[int, int]] = []
    num_split = 0
    read = read_pairs if method == "dpo" else read_rows
    for row in read(path, param, limits, file_id):
        dataset.num_examples += 1
        try:
            examples = renderer.pair(row) if isinstance(row, PairRow) else renderer.examples(row)
        except RenderError as error:
            raise DataError(
                f"{because_of(param)} Example {row.number}: {error.text} (line {row.line})",
                code="invalid_training_file",
                param=param,
                line=row.line,
            ) from error
        num_split += len(examples) > 1 and method == "supervised"
        longest = max(len(example.ids) for example in examples)
        if longest > max_tokens:
            too_long.append((row.line, longest))
            continue
        for example in examples:
            dataset.add(example)
            yield example
    if too_long:
        raise _too_long(param, too_long, max_tokens)
    if dataset.num_examples < min_examples:
        raise _too_few(path, param, dataset.num_examples, min_examples)
    if num_split:
        dataset.warnings.append(
            f"{num_split} of {dataset.num_examples} examples are trained turn by turn "
            f"({dataset.num_sequences} sequences), because this base model's chat template "
            "rewrites earlier turns as a conversation goes on."
        )


def _too_long(param: str, found: list[tuple[int, int]], max_tokens: int) -> DataError:
    named = ", ".join(f"line {line} ({num} tokens)" for line, num in found[:MAX_NAMED])
    more = f" and {len(found) - MAX_NAMED} more" if len(found) > MAX_NAMED else ""
    return DataError(
        f"{because_of(param)} {len(found)} example(s) are longer than the {max_tokens} tokens that "
        f"this base model can take: {named}{more}. Shorten or split them; a cut example would "
        "lose its answer.",
        code="invalid_training_file",
        param=param,
        line=found[0][0],
    )


def _too_few(path: Path, param: str, num_examples: int, min_examples: int) -> DataError:
    name = param.replace("_", " ").capitalize()
    message = (
        f"{name} has {num_examples} example(s), but must have at least {min_examples} examples"
    )
    if num_examples == 0:
        message += " (the file is empty)" if path.stat().st_size == 0 else " (all lines are blank)"
    return DataError(message, code="invalid_n_examples", param=param)
