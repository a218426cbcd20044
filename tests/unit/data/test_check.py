from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tunesmith.data.check import MIN_EXAMPLES, Dataset, read_examples
from tunesmith.data.render import Renderer
from tunesmith.errors import DataError

Rendering = Callable[[str], tuple[Path, Renderer]]

USER = {"role": "user", "content": "Rain in Oslo?"}
ANSWER = {"role": "assistant", "content": "It will."}


def check_dataset(
    path: Path,
    file_id: str,
    param: str,
    renderer: Renderer,
    max_tokens: int,
    min_examples: int = MIN_EXAMPLES,
) -> Dataset:
    """The counts after a whole pass."""
    dataset = Dataset()
    for _ in read_examples(
        path, file_id, param, renderer, max_tokens, min_examples, dataset=dataset
    ):
        pass
    return dataset


def write(path: Path, *rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in rows))
    return path


def test_counts_what_the_trainer_reads(tmp_path: Path, rendering: Rendering) -> None:
    _, renderer = rendering("ours")
    path = write(tmp_path / "f", *[[USER, ANSWER], [USER, ANSWER, USER, ANSWER]] * 5)
    dataset = Dataset()
    examples = list(read_examples(path, "f", "training_file", renderer, 99, dataset=dataset))
    assert dataset == check_dataset(path, "f", "training_file", renderer, 99)
    assert [example.number for example in examples] == list(range(1, 11))
    assert dataset.num_examples == dataset.num_sequences == 10
    assert dataset.num_tokens == sum(len(example.ids) for example in examples)
    assert dataset.num_supervised == sum(sum(example.weights) for example in examples)
    assert dataset.max_tokens == max(len(example.ids) for example in examples)
    assert dataset.warnings == []


def test_rewritten_history_counts_as_one_example(tmp_path: Path, rendering: Rendering) -> None:
    _, renderer = rendering("qwen3")
    path = write(tmp_path / "f", *[[USER, ANSWER, USER, ANSWER]] * 10)
    dataset = check_dataset(path, "f", "training_file", renderer, 999)
    assert (dataset.num_examples, dataset.num_sequences) == (10, 20)
    (warning,) = dataset.warnings
    assert warning.startswith("10 of 10 examples are trained turn by turn (20 sequences)")


@pytest.mark.parametrize(
    ("content", "num_examples", "message"),
    [
        (b"", 0, "0 example(s), but must have at least 10 examples (the file is empty)"),
        (b"\n \n", 0, "0 example(s), but must have at least 10 examples (all lines are blank)"),
        (None, 7, "7 example(s), but must have at least 10 examples"),
    ],
)
def test_too_few(
    tmp_path: Path, rendering: Rendering, content: bytes | None, num_examples: int, message: str
) -> None:
    _, renderer = rendering("ours")
    path = write(tmp_path / "f", *[[USER, ANSWER]] * num_examples)
    if content is not None:
        path.write_bytes(content)
    for param, name in (("training_file", "Training"), ("validation_file", "Validation")):
        with pytest.raises(DataError) as caught:
            check_dataset(path, "f", param, renderer, 99)
        assert caught.value.message == f"{name} file has {message}"
        assert (caught.value.code, caught.value.param) == ("invalid_n_examples", param)
    if num_examples:
        assert check_dataset(path, "f", "validation_file", renderer, 99, min_examples=1)


def test_too_long_examples_are_named_not_cut(tmp_path: Path, rendering: Rendering) -> None:
    _, renderer = rendering("ours")
    long = {"role": "assistant", "content": "rain " * 100}
    path = write(tmp_path / "f", *[[USER, ANSWER], [USER, long]] * 12)
    with pytest.raises(DataError) as caught:
        check_dataset(path, "f", "training_file", renderer, 50)
    found = caught.value
    # A later prompt opens the next answer, which an example does not.
    length = len(renderer.prompt([USER, long])) - 1
    assert found.message.startswith(
        "The job failed due to an invalid training file. 12 example(s) are longer than the 50 "
        f"tokens that this base model can take: line 2 ({length} tokens), line 4 ({length} tokens)"
    )
    assert "line 20 (" in found.message
    assert "line 22" not in found.message
    assert "and 2 more. Shorten or split them" in found.message
    assert (found.line, found.code) == (2, "invalid_training_file")
    assert check_dataset(path, "f", "training_file", renderer, length).max_tokens == length


def test_what_the_template_cannot_write_is_refused_by_line(
    tmp_path: Path, rendering: Rendering
) -> None:
    _, renderer = rendering("mistral-metaspace")
    path = write(tmp_path / "f", *[[USER, ANSWER]] * 3, [USER, USER, ANSWER])
    with pytest.raises(DataError) as caught:
        check_dataset(path, "f", "validation_file", renderer, 999, min_examples=1)
    assert caught.value.message.startswith(
        "The job failed due to an invalid validation file. Example 4: the base model's chat "
        "template refuses it: Conversation roles must alternate"
    )
    assert caught.value.message.endswith("(line 4)")
    assert (caught.value.param, caught.value.line) == ("validation_file", 4)


def test_pairs_are_two_sequences_whose_prompt_counts_once(
    tmp_path: Path, rendering: Rendering
) -> None:
    _, renderer = rendering("ours")
    row = {
        "input": {"messages": [USER]},
        "preferred_output": [ANSWER],
        "non_preferred_output": [{"role": "assistant", "content": "No idea at all."}],
    }
    path = tmp_path / "f"
    path.write_text((json.dumps(row) + "\n") * 10)
    dataset = Dataset()
    found = list(
        read_examples(path, "f", "training_file", renderer, 99, dataset=dataset, method="dpo")
    )
    assert (dataset.num_examples, dataset.num_sequences, len(found)) == (10, 20, 20)
    prompt = len(renderer.prompt([USER]))
    assert dataset.num_tokens == sum(len(each.ids) for each in found) - 10 * prompt
    assert dataset.warnings == []
    with pytest.raises(DataError, match="longer than the 12 tokens"):
        list(read_examples(path, "f", "training_file", renderer, 12, method="dpo"))
