"""Answers stay in their grammar whatever the model wants; a bad grammar ends only its request."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.engine_harness import Harness, greedy, running_engine, save_adapter
from tests.tiny_base import SPECIAL, tiny_tokenizer
from tunesmith.serve import grammar
from tunesmith.serve.protocol import Done, InvalidGrammar

STOP = frozenset({SPECIAL.index("<|end|>")})
PERSON = {
    "type": "object",
    "properties": {
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "ok": {"type": "boolean"},
    },
    "required": ["age", "ok"],
    "additionalProperties": False,
    "x-guidance": {"whitespace_flexible": False},
}
LARK = "start: %json " + json.dumps(PERSON)


def text(ids: list[int]) -> str:
    return str(tiny_tokenizer().decode(ids, skip_special_tokens=False))


@pytest.mark.parametrize("temperature", [0.0, 1.0, 2.0])
def test_answers_are_in_the_language_and_end_where_it_does(
    engine: Harness, base: Path, temperature: float
) -> None:
    request = greedy(
        base, "x", 64, stop_ids=STOP, grammar=LARK, temperature=temperature, seed=3, n=4
    )
    answer = engine.ask(request)
    assert isinstance(answer.end, Done)
    for index in range(4):
        person = json.loads(text(answer.ids[index]))
        assert 0 <= person["age"] <= 130
        assert isinstance(person["ok"], bool)
        assert answer.finish[index] == "stop"


def test_a_constrained_answer_does_not_depend_on_its_mates(engine: Harness, base: Path) -> None:
    alone = greedy(base, "x", 64, stop_ids=STOP, grammar=LARK, temperature=1.0, seed=5)
    expected = engine.ask(alone)
    mates = [greedy(base, "y", 40, temperature=1.0, seed=seed) for seed in range(4)]
    tickets = [engine.submit(request) for request in (*mates, alone)]
    assert engine.wait(*tickets)[-1].ids == expected.ids


def test_a_tuned_model_keeps_to_the_grammar_too(
    engine: Harness, base: Path, tmp_path: Path
) -> None:
    request = greedy(base, "x", 64, stop_ids=STOP, grammar=LARK)
    tuned = replace(request, adapter=save_adapter(base, tmp_path / "adapter", seed=1))
    plain, answer = engine.wait(engine.submit(request), engine.submit(tuned))
    assert plain.ids != answer.ids
    assert set(json.loads(text(answer.ids[0]))) == {"age", "ok"}


def test_a_cut_answer_ends_by_length(engine: Harness, base: Path) -> None:
    answer = engine.ask(greedy(base, "x", 3, stop_ids=STOP, grammar=LARK))
    assert answer.finish[0] == "length"
    assert len(answer.ids[0]) == 3


def test_log_probabilities_are_those_of_the_model(engine: Harness, base: Path) -> None:
    """A forced token shows how little the model wanted it."""
    answer = engine.ask(greedy(base, "x", 2, stop_ids=STOP, grammar='start: "zq"', top_logprobs=1))
    assert text(answer.ids[0]) == "zq"
    first = answer.logprobs[0][0]
    assert first.top[0][1] > first.logprob


def test_special_tokens_are_part_of_a_grammar_only_by_their_id(engine: Harness, base: Path) -> None:
    call = SPECIAL.index("<|tool_call|>")
    answer = engine.ask(greedy(base, "x", 9, stop_ids=STOP, grammar=f'start: <[{call}]> "a"'))
    assert answer.ids[0][0] == call
    assert text(answer.ids[0][1:]) == "a"


@pytest.mark.parametrize(
    ("lark", "says"),
    [
        ("start: nothing", "nothing"),
        ('start: %json {"uniqueItems": true, "type": "array"}', "uniqueItems"),
        ('start: %json {"type": "string", "pattern": "(?=a)"}', "look-around"),
        ('start: %json {"$ref": "http://example.org/x"}', "http://example.org/x"),
        ('start: "' + "a" * (1 << 20) + '"', "characters"),
        ('start: %json {"$ref": "#"}', "No answer can ever fit"),
    ],
)
def test_a_bad_grammar_is_refused_and_says_why(
    engine: Harness, base: Path, lark: str, says: str
) -> None:
    end = engine.ask(greedy(base, "x", 8, stop_ids=STOP, grammar=lark)).end
    assert isinstance(end, InvalidGrammar)
    assert says in end.message
    assert len(end.message) < 300
    assert isinstance(engine.ask(greedy(base, "x", 4)).end, Done)


def test_a_grammar_without_a_stop_token_is_refused(engine: Harness, base: Path) -> None:
    assert isinstance(engine.ask(greedy(base, "x", 8, grammar=LARK)).end, InvalidGrammar)


def test_a_compiler_that_takes_too_long_costs_its_request_only(
    engine: Harness, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grammar, "COMPILE_S", 0.0)
    # Large enough that compiling takes longer than a timer that has run out already.
    properties = {
        f"p{number}": {"enum": [f"v{each}" for each in range(50)]} for number in range(300)
    }
    lark = "start: %json " + json.dumps({"type": "object", "properties": properties})
    end = engine.ask(greedy(base, "x", 8, stop_ids=STOP, grammar=lark)).end
    assert isinstance(end, InvalidGrammar)
    assert "to compile" in end.message
    assert isinstance(engine.ask(greedy(base, "x", 4)).end, Done)


def test_waiting_for_the_compiler_is_no_reason_to_refuse(
    engine: Harness, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_quickly = grammar.LLMatcher

    def compile_slowly(*given: Any, **named: Any) -> grammar.LLMatcher:
        time.sleep(0.15)
        return compile_quickly(*given, **named)

    monkeypatch.setattr(grammar, "LLMatcher", compile_slowly)
    monkeypatch.setattr(grammar, "COMPILE_S", 1.5)
    requests = [
        greedy(base, "x", 1, stop_ids=STOP, grammar=f'start: "a{number}"') for number in range(24)
    ]
    answers = engine.wait(*[engine.submit(request) for request in requests])
    assert {type(answer.end) for answer in answers} == {Done}


def test_a_grammar_that_becomes_too_complex_ends_its_answer_only(
    engine: Harness, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tight = grammar.LLParserLimits(max_lexer_states=40)
    monkeypatch.setattr(grammar, "LIMITS", tight)
    lark = "start: A\nA: /([a-f]{3,9}x|[b-g]{2,8}y|(ab|bc|cd){4,9}z){9,20}/"
    mate = engine.submit(greedy(base, "y", 30))
    end = engine.ask(greedy(base, "x", 60, stop_ids=STOP, grammar=lark, temperature=2.0)).end
    assert isinstance(end, InvalidGrammar)
    assert end.message == "The grammar is too complex to follow."
    assert isinstance(engine.wait(mate)[0].end, Done)


def test_the_wish_to_end_closes_what_is_open(engine: Harness, base: Path) -> None:
    """A model that only wants to stop writes the shortest string there is."""
    wish = {next(iter(STOP)): 100.0}
    schema = {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "string"}}}}
    schema |= {"required": ["a"], "additionalProperties": False}
    lark = "start: %json " + json.dumps(schema | {"x-guidance": {"whitespace_flexible": False}})
    answer = engine.ask(greedy(base, "x", 32, stop_ids=STOP, grammar=lark, logit_bias=wish))
    assert text(answer.ids[0]) == '{"a": []}'.replace(" ", "")
    string = 'start: %json {"type": "string"}'
    answer = engine.ask(greedy(base, "x", 32, stop_ids=STOP, grammar=string, logit_bias=wish))
    assert text(answer.ids[0]) == '""'


def test_a_preempted_answer_keeps_its_place_in_the_grammar(base: Path) -> None:
    with running_engine() as whole:
        request = greedy(base, "x", 64, stop_ids=STOP, grammar=LARK, temperature=1.0, seed=9, n=8)
        expected = whole.ask(request).ids
        budget = whole.stats()["model_bytes"]
    with running_engine(memory_bytes=budget + (1 << 18)) as tight:
        assert tight.ask(request).ids == expected
