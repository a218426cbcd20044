"""What a row of any kind is in tokens, and how it stands to the longest that a base takes."""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.data.formats import ChatRow
from tunesmith.data.pair_rows import PairRow, unlearned
from tunesmith.data.render import Example, Renderer, RenderError
from tunesmith.data.rows import Row, texts


@dataclass(frozen=True)
class Sequence:
    """One sequence of ids that the row gives the model."""

    name: str
    """preferred, rejected, prompt, a field's name; empty for a conversation."""
    example: Example


def sequences(renderer: Renderer, row: Row) -> list[Sequence]:
    """Raises RenderError.

    Of a preference pair both answers are learned, each behind the prompt; a reinforcement row is
    its prompt, up to where the model begins; of rows without messages only texts are counted.
    """
    if isinstance(row, ChatRow):
        return [Sequence("", example) for example in renderer.examples(row)]
    if row.kind == "preference":
        prompt = unlearned(row.messages)
        preferred, rejected = (
            ChatRow(row.number, row.line, [*prompt, answer], row.tools)
            for answer in row.answers.values()
        )
        pair = renderer.pair(PairRow(row.number, row.line, preferred, rejected))
        return [Sequence(name, each) for name, each in zip(row.answers, pair, strict=True)]
    if row.kind == "reinforcement":
        ids = renderer.prompt(row.messages, row.tools)
        return [Sequence("prompt", Example(ids, [0.0] * len(ids), row.number))]
    found: list[Sequence] = []
    for name, text in texts(row.fields):
        ids = renderer.tokenizer.encode(text, add_special_tokens=False).ids
        # Only a completion is learned; an eval's item is not.
        weights = [float(name == "completion")] * len(ids)
        found.append(Sequence(name, Example(ids, weights, row.number)))
    if row.kind == "completions":
        ids = [number for each in found for number in each.example.ids]
        weights = [weight for each in found for weight in each.example.weights]
        return [Sequence("", Example(ids, weights, row.number))]
    return found


@dataclass(frozen=True)
class Measured:
    num_tokens: int = 0
    """A pair's prompt counts once."""
    num_trained: int = 0
    longest: int = 0
    """Of its sequences; a pair's are prompt and answer."""
    num_lost: int = 0
    """Tokens beyond the limit."""
    num_lost_trained: int = 0
    faults: tuple[tuple[str, str], ...] = ()


NOTHING = Measured()


def measure(row: Row | None, renderer: Renderer | None, max_tokens: int | None) -> Measured:
    """A row's tokens, as they will be trained on."""
    if row is None or renderer is None:
        return NOTHING
    try:
        found = sequences(renderer, row)
    except RenderError as error:
        return Measured(faults=(("cannot_render", f": {error.text}"),))
    return measured(found, max_tokens)


def measured(found: list[Sequence], max_tokens: int | None) -> Measured:
    longest = max((len(each.example.ids) for each in found), default=0)
    faults: tuple[tuple[str, str], ...] = ()
    lost = lost_trained = 0
    if max_tokens is not None and longest > max_tokens:
        # What two sequences share is lost once.
        lost = sum(
            max(0, len(each.example.ids) - max(max_tokens, each.example.num_shared))
            for each in found
        )
        lost_trained = sum(
            weight > 0 for each in found for weight in each.example.weights[max_tokens:]
        )
        is_cut = any(answer_start(each.example) >= max_tokens for each in found)
        name = "answer_cut" if is_cut else "too_long"
        faults = ((name, f": {longest} tokens where {max_tokens} fit; {lost} are too many"),)
    num_trained = sum(len(each.example.weights) - each.example.weights.count(0.0) for each in found)
    num_tokens = sum(each.example.num_counted for each in found)
    return Measured(num_tokens, num_trained, longest, lost, lost_trained, faults)


def answer_start(example: Example) -> int:
    """Where the last run of learned tokens begins."""
    place = len(example.ids)
    while place > 0 and example.weights[place - 1] > 0:
        place -= 1
    return place
