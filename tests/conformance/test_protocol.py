"""What every engine does with a request, below HTTP: token ids in, token ids out."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.conformance.engines import END, Engine
from tests.tiny_base import SPECIAL, tiny_prompt, tiny_tokenizer
from tunesmith.data.answer_grammar import json_grammar
from tunesmith.data.json_schema import enforceable
from tunesmith.errors import AdapterError, TunesmithError
from tunesmith.serve.protocol import (
    MIN_LOGPROB,
    AdapterRef,
    EmbedRequest,
    InvalidGrammar,
    InvalidRequest,
    ScoreRequest,
)

NONE: frozenset[int] = frozenset()
CALL = SPECIAL.index("<|tool_call|>")
NUMBERS = {"type": "array", "items": {"enum": [1, 2, 3]}, "minItems": 2, "maxItems": 4}
RECORD = {
    "type": "object",
    "properties": {
        "id": {"type": "integer", "minimum": 0, "maximum": 99},
        "ok": {"type": "boolean"},
    },
    "required": ["id", "ok"],
}

# Two requests that must be answered alike, token for token.
SAME: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "again": ({}, {}),
    "top_p 0 is greedy": ({}, {"temperature": 1.0, "top_p": 0.0}),
    "top_k 1 is greedy": ({}, {"temperature": 1.0, "top_k": 1}),
    "min_p 1 is greedy": ({}, {"temperature": 1.0, "min_p": 1.0}),
    "greedy needs no seed": ({"seed": 1}, {"seed": 2}),
    "a seed repeats": ({"temperature": 1.0, "seed": 7}, {"temperature": 1.0, "seed": 7}),
    "negative seeds repeat": ({"temperature": 1.0, "seed": -7}, {"temperature": 1.0, "seed": -7}),
    "top_p 1 is none": (
        {"temperature": 1.0, "seed": 7, "top_p": 1.0},
        {"temperature": 1.0, "seed": 7},
    ),
    "logprobs change nothing": ({"top_logprobs": 5}, {}),
    "no bias is none": ({"logit_bias": {5: 0.0}}, {}),
}


@pytest.mark.parametrize("case", SAME)
def test_alike(engine: Engine, case: str) -> None:
    one, other = (engine.request(**options) for options in SAME[case])
    [first], [second] = engine.ask(one), engine.ask(other)
    assert first.error is second.error is None
    assert first.ids[0] == second.ids[0] != []


@pytest.mark.parametrize("case", ["again", "a seed repeats", "min_p 1 is greedy"])
def test_mates_make_no_difference(engine: Engine, case: str) -> None:
    request = engine.request(**SAME[case][0])
    [alone] = engine.ask(request)
    mates = [engine.request("x" * number, temperature=1.5, seed=number) for number in (1, 9, 40)]
    assert engine.ask(*mates, request)[-1].ids == alone.ids


Check = Callable[[dict[int, list[int]]], bool]
# Options -> what must hold of the ids of each choice.
HOLDS: dict[str, tuple[dict[str, Any], Check]] = {
    "one token": ({"max_new_tokens": 1, "stop_ids": NONE}, lambda ids: len(ids[0]) == 1),
    "as many as asked": ({"max_new_tokens": 30, "stop_ids": NONE}, lambda ids: len(ids[0]) == 30),
    "a bias forces": ({"logit_bias": {100: 100.0}}, lambda ids: set(ids[0]) == {100}),
    "a bias forbids": (
        {"logit_bias": dict.fromkeys(range(10, 500), -100.0), "stop_ids": NONE},
        lambda ids: all(number < 10 or number >= 500 for number in ids[0]),
    ),
    "every stop token stops": (
        {"stop_ids": frozenset(range(512))},
        lambda ids: ids == {0: []},
    ),
    "a stop token is not told": (
        {"logit_bias": {END: 100.0}},
        lambda ids: ids == {0: []},
    ),
    "three choices": (
        {"n": 3, "temperature": 1.0, "seed": 3, "stop_ids": NONE},
        lambda ids: len({tuple(each) for each in ids.values()}) == len(ids) == 3,
    ),
    "greedy choices are one": ({"n": 3}, lambda ids: ids[0] == ids[1] == ids[2]),
    "top_k 2 takes two at most": (
        {"n": 16, "max_new_tokens": 1, "temperature": 2.0, "top_k": 2, "stop_ids": NONE, "seed": 1},
        lambda ids: len({tuple(each) for each in ids.values()}) <= 2,
    ),
}


@pytest.mark.parametrize("case", HOLDS)
def test_holds(engine: Engine, case: str) -> None:
    options, check = HOLDS[case]
    [answer] = engine.ask(engine.request(**options))
    assert answer.error is None
    assert check(answer.ids)


@pytest.mark.parametrize("presence, frequency", [(2.0, 0.0), (0.0, 2.0), (-2.0, 0.0), (1.5, -2.0)])
def test_penalties(engine: Engine, presence: float, frequency: float) -> None:
    penalties = {"presence_penalty": presence, "frequency_penalty": frequency}
    request = engine.request(max_new_tokens=40, top_logprobs=20, stop_ids=NONE, **penalties)
    [answer] = engine.ask(request)
    counts: Counter[int] = Counter()
    for token, entry in zip(answer.ids[0], answer.logprobs[0], strict=True):
        scores = {
            other: logprob - counts[other] * frequency - (other in counts) * presence
            for other, logprob in [(token, entry.logprob), *entry.top]
        }
        assert scores[token] >= max(scores.values()) - 1e-3
        counts[token] += 1


FINISH: dict[str, tuple[dict[str, Any], str]] = {
    "cut": ({"max_new_tokens": 3, "stop_ids": NONE}, "length"),
    "a stop token": ({"logit_bias": {END: 100.0}}, "stop"),
    "the end of a grammar": ({"grammar": 'start: "ab"'}, "stop"),
    "cut in a grammar": ({"grammar": 'start: "ab"{50}', "max_new_tokens": 3}, "length"),
}


@pytest.mark.parametrize("case", FINISH)
def test_finish_reasons(engine: Engine, case: str) -> None:
    options, reason = FINISH[case]
    [answer] = engine.ask(engine.request(**options))
    assert answer.finish == {0: reason}


@pytest.mark.parametrize("num_top", [0, 1, 5, 20])
def test_log_probabilities(engine: Engine, num_top: int) -> None:
    [answer] = engine.ask(engine.request(top_logprobs=num_top, stop_ids=NONE))
    assert len(answer.logprobs[0]) == len(answer.ids[0])
    for token, entry in zip(answer.ids[0], answer.logprobs[0], strict=True):
        assert MIN_LOGPROB <= entry.logprob <= 0
        assert len(entry.top) == num_top
        values = [value for _, value in entry.top]
        assert values == sorted(values, reverse=True)
        if num_top:
            assert entry.top[0] == (token, entry.logprob)


def test_log_probabilities_do_not_know_temperature_or_bias(engine: Engine) -> None:
    plain, warm, biased = engine.ask(
        engine.request(max_new_tokens=1, top_logprobs=3, stop_ids=NONE),
        engine.request(max_new_tokens=1, top_logprobs=3, stop_ids=NONE, temperature=1.7, seed=1),
        engine.request(max_new_tokens=1, top_logprobs=3, stop_ids=NONE, logit_bias={9: 100.0}),
    )
    for other in (warm, biased):
        for one, another in zip(plain.logprobs[0][0].top, other.logprobs[0][0].top, strict=True):
            assert one[0] == another[0]
            assert one[1] == pytest.approx(another[1], abs=1e-4)


def test_usage_counts_what_was_generated(engine: Engine) -> None:
    request = engine.request(n=2, stop_ids=NONE, max_new_tokens=5)
    [answer] = engine.ask(request)
    assert answer.done is not None
    assert answer.done.prompt_tokens == len(request.prompt_ids)
    assert answer.done.completion_tokens == 10
    assert 0 <= answer.done.cached_tokens <= answer.done.prompt_tokens


GRAMMARS: dict[str, tuple[str, Callable[[str], bool]]] = {
    "fixed": ('start: "abc"', lambda text: text == "abc"),
    "an alternative": ('start: "yes" | "no"', lambda text: text in ("yes", "no")),
    "a pattern": ("start: /[0-9]{4}-[0-9]{2}/", lambda text: text[4] == "-" and len(text) == 7),
    "an object": (
        json_grammar(enforceable(RECORD)),
        lambda text: sorted(json.loads(text)) == ["id", "ok"],
    ),
    "an array": (
        json_grammar(enforceable(NUMBERS)),
        lambda text: set(json.loads(text)) <= {1, 2, 3},
    ),
    "an enum": (json_grammar({"enum": ["a", None]}), lambda text: json.loads(text) in ("a", None)),
    "a special token": (f'start: <[{CALL}]> "x"', lambda text: text == "<|tool_call|>x"),
    "beyond ASCII": (
        'start: "\u00e4\u6771\U0001f600"',
        lambda text: text == "\u00e4\u6771\U0001f600",
    ),
}


@pytest.mark.parametrize("temperature", [0.0, 1.3])
@pytest.mark.parametrize("case", GRAMMARS)
def test_grammars(engine: Engine, case: str, temperature: float) -> None:
    grammar, check = GRAMMARS[case]
    request = engine.request(
        grammar=grammar, max_new_tokens=60, temperature=temperature, seed=4, n=2
    )
    [answer] = engine.ask(request)
    assert answer.error is None
    for index in (0, 1):
        text = tiny_tokenizer().decode(answer.ids[index], skip_special_tokens=False)
        assert check(text), text
        assert answer.finish[index] == "stop"


REFUSED: dict[str, tuple[dict[str, Any], type[TunesmithError]]] = {
    "a prompt beyond the context": ({"prompt": [5] * 2048}, InvalidRequest),
    "an id beyond the vocabulary": ({"prompt": [1, 512]}, InvalidRequest),
    "a negative id": ({"prompt": [-1]}, InvalidRequest),
    "a bias beyond the vocabulary": ({"logit_bias": {512: 1.0}}, InvalidRequest),
    "a grammar that is none": ({"grammar": "start: %"}, InvalidGrammar),
    "an unknown rule": ({"grammar": "start: nowhere"}, InvalidGrammar),
    "a schema that nothing fits": (
        {"grammar": 'start: %json {"type": "integer", "minimum": 2, "maximum": 1}'},
        InvalidGrammar,
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(engine: Engine, case: str) -> None:
    options, kind = REFUSED[case]
    [answer] = engine.ask(engine.request(**options))
    assert isinstance(answer.error, kind)
    [fine] = engine.ask(engine.request(max_new_tokens=1))
    assert fine.error is None


def test_scores_are_those_of_generation(engine: Engine) -> None:
    request = engine.request(top_logprobs=2, stop_ids=NONE)
    [answer] = engine.ask(request)
    scores = engine.score(ScoreRequest(engine.base, request.prompt_ids, answer.ids[0], None, 2))
    for one, other in zip(scores, answer.logprobs[0], strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-3)
        assert [each for each, _ in one.top] == [each for each, _ in other.top]


def test_a_score_does_not_depend_on_where_prompt_ends(engine: Engine) -> None:
    ids = tiny_prompt("the quick brown fox")
    whole = engine.score(ScoreRequest(engine.base, ids[:1], ids[1:]))
    part = engine.score(ScoreRequest(engine.base, ids[:4], ids[4:]))
    assert [each.logprob for each in whole[3:]] == pytest.approx(
        [each.logprob for each in part], abs=1e-4
    )


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_embeddings(engine: Engine, pooling: Any) -> None:
    if engine.generates_only:
        with pytest.raises(InvalidRequest, match="embeddings"):
            engine.embed(EmbedRequest(engine.base, [[5]], pooling=pooling))
        return
    inputs = [tiny_prompt("the quick"), tiny_prompt("lazy dog"), tiny_prompt("the quick")]
    vectors = engine.embed(EmbedRequest(engine.base, inputs, pooling=pooling))
    assert vectors[0] == pytest.approx(vectors[2], abs=1e-5)
    assert vectors[0] != pytest.approx(vectors[1], abs=1e-3)
    for vector in vectors:
        assert sum(value * value for value in vector) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    "request_of",
    [
        lambda base: EmbedRequest(base, [[5] * 2049]),
        lambda base: EmbedRequest(base, [[512]]),
    ],
)
def test_passes_that_do_not_fit_are_refused(engine: Engine, request_of: Any) -> None:
    with pytest.raises(InvalidRequest):
        engine.embed(request_of(engine.base))


def test_adapters_answer_side_by_side_as_they_do_alone(
    engine: Engine, adapters: list[AdapterRef]
) -> None:
    requests = [engine.request(adapter=each, stop_ids=NONE) for each in (None, *adapters)]
    alone = [engine.ask(request)[0] for request in requests]
    assert all(answer.error is None for answer in alone)
    ids = [tuple(answer.ids[0]) for answer in alone]
    assert len(set(ids)) == 3
    together = engine.ask(*requests, *requests)
    assert [tuple(answer.ids[0]) for answer in together] == ids * 2


def test_an_adapter_that_was_unloaded_is_loaded_again(
    engine: Engine, adapters: list[AdapterRef]
) -> None:
    request = engine.request(adapter=adapters[0])
    [before] = engine.ask(request)
    assert asyncio.run(engine.client.unload(adapter=adapters[0].sha256))
    assert not asyncio.run(engine.client.unload(adapter=adapters[0].sha256))
    [after] = engine.ask(request)
    assert after.ids == before.ids


def test_an_adapter_scores_otherwise(engine: Engine, adapters: list[AdapterRef]) -> None:
    prompt, rest = tiny_prompt("the quick"), tiny_prompt("brown fox")
    values = [
        engine.score(ScoreRequest(engine.base, prompt, rest, each))[0].logprob
        for each in (None, *adapters)
    ]
    assert len({round(value, 3) for value in values}) == 3


def test_other_files_than_asked_for_are_refused(engine: Engine, adapters: list[AdapterRef]) -> None:
    wrong = AdapterRef("0" * 64, adapters[0].path)
    missing = AdapterRef("1" * 64, adapters[0].path / "none")
    for answer in engine.ask(engine.request(adapter=wrong), engine.request(adapter=missing)):
        assert isinstance(answer.error, AdapterError)
    [fine] = engine.ask(engine.request(adapter=adapters[0]))
    assert fine.error is None
