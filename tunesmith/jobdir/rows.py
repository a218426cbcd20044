"""The rows of a job's files, rendered: the same reading for the check and for the training."""

from __future__ import annotations

from collections.abc import Iterator

from tunesmith.data.check import MIN_EXAMPLES, Dataset, read_examples
from tunesmith.data.formats import Limits
from tunesmith.data.render import Example, Renderer
from tunesmith.jobdir.spec import Param, Spec


def rendered(
    spec: Spec, param: Param, renderer: Renderer, max_tokens: int, dataset: Dataset
) -> Iterator[Example]:
    """The file's examples as they are read, counted into `dataset`; none where there is no file.

    Raises DataError.
    """
    file = spec.training_file if param == "training_file" else spec.validation_file
    if file is None:
        return
    yield from read_examples(
        file.path,
        file.id,
        param,
        renderer,
        max_tokens,
        MIN_EXAMPLES if param == "training_file" else 1,
        Limits() if spec.max_line_bytes is None else Limits(spec.max_line_bytes),
        dataset,
        spec.method,
    )
