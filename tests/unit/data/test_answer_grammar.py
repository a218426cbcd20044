"""The grammar of a family's calls takes what its template writes, and nothing that is no call."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from llguidance import LLMatcher, LLTokenizer

from tests.families import write_family
from tests.tiny_base import NANO
from tunesmith.data.answer_grammar import Tool, call_grammar, json_grammar
from tunesmith.data.json_schema import enforceable
from tunesmith.data.render import Renderer
from tunesmith.data.tool_syntax import CallSyntax

FAMILIES = ("qwen2.5", "llama3", "mistral-tools", "nano")
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city"],
}
NONE: dict[str, Any] = {"type": "object", "properties": {}}
TOOLS = [Tool("get_weather", enforceable(CITY)), Tool("now", enforceable(NONE))]
WEATHER = ("get_weather", {"city": "Oslo", "days": 3})
PYTHON = CallSyntax("python", "[", "]", ", ")


class Base:
    """A family's renderer, and its tokens as the grammar engine sees them."""

    def __init__(self, directory: Path) -> None:
        self.renderer = Renderer.load(directory)
        assert self.renderer.call_syntax is not None
        self.syntax = self.renderer.call_syntax
        text = (directory / "tokenizer.json").read_text("utf-8")
        self.tokenizer = LLTokenizer(
            text, n_vocab=self.renderer.vocab_size, eos_token=sorted(self.renderer.stop_ids)
        )

    def grammar(self, **options: Any) -> str:
        options = {"many": True, "forced": True} | options
        return call_grammar(self.syntax, TOOLS, self.renderer.call_tokens, **options)

    def takes(self, grammar: str, text: str) -> bool:
        """Whether the text is a whole answer of the grammar."""
        matcher = LLMatcher(self.tokenizer, grammar, log_level=0)
        assert not matcher.is_error(), matcher.get_error()
        ids = self.renderer.tokenizer.encode(text, add_special_tokens=False).ids
        return matcher.validate_tokens(ids) == len(ids) and (
            matcher.consume_tokens(ids) and matcher.is_accepting()
        )

    def written(self, *calls: tuple[str, dict[str, Any]], content: str = "") -> str:
        """A message with calls as the syntax has it."""
        syntax = self.syntax
        texts = [
            syntax.before_name
            + name
            + syntax.after_name
            + json.dumps(arguments)
            + syntax.after_arguments.replace("\ufdd2", "abc123XYZ")
            for name, arguments in calls
        ]
        return content + syntax.head + (syntax.between or "").join(texts) + syntax.tail


@pytest.fixture(scope="module", params=FAMILIES)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Base:
    name = request.param
    return nano() if name == "nano" else Base(write_family(name, tmp_path_factory.mktemp(name)))


@cache
def nano() -> Base:
    return Base(NANO)


def test_what_the_template_writes_is_taken(base: Base) -> None:
    """Rendered by the template itself, not by our idea of it."""
    arguments = json.dumps(WEATHER[1])
    function = {"name": WEATHER[0], "arguments": arguments}
    call = {"id": "abc123XYZ", "type": "function", "function": function}
    user = {"role": "user", "content": "hi"}
    tool = {"type": "function", "function": {"name": WEATHER[0], "parameters": CITY}}
    answer = {"role": "assistant", "content": "", "tool_calls": [call]}
    ids = base.renderer.prompt([user, answer, user], [tool])
    text = base.renderer.tokenizer.decode(ids, skip_special_tokens=False)
    start = text.rindex(base.syntax.head + base.syntax.before_name + WEATHER[0])
    stops = [base.renderer.tokenizer.id_to_token(number) for number in base.renderer.stop_ids]
    end = min(text.index(stop, start) for stop in stops if stop in text[start:])
    assert base.takes(base.grammar(), text[start:end].rstrip())


def test_a_forced_answer_is_calls_and_nothing_else(base: Base) -> None:
    forced = base.grammar()
    assert base.takes(forced, base.written(WEATHER))
    assert base.takes(forced, base.written(("now", {})))
    for wrong in (
        "",
        "Hello",
        base.written(("rm", {})),
        base.written(("now", {"x": 1})),
        base.written(("get_weather", {"days": 3})),
        base.written(("get_weather", {"city": 3})),
        base.written(WEATHER) + "!",
    ):
        assert not base.takes(forced, wrong), wrong


def test_several_calls_only_where_they_may_be(base: Base) -> None:
    two = base.written(WEATHER, ("now", {}))
    assert base.takes(base.grammar(), two) == (base.syntax.between is not None)
    assert not base.takes(base.grammar(many=False), two)


def test_by_choice_text_is_free_but_a_call_is_none_but_a_right_one(base: Base) -> None:
    free = base.grammar(forced=False)
    for text in ("", "Hello", "2 < 3 {x}", 'the "name" is [x]', base.written(WEATHER)):
        assert base.takes(free, text), text
    assert not base.takes(free, base.written(("get_weather", {"city": 3})))
    if not base.syntax.only_at_start:
        assert base.takes(free, base.written(WEATHER, content="Let me see.\n"))
        assert not base.takes(free, base.written(("rm", {}), content="Let me see.\n"))


def test_calls_or_an_answer_of_a_schema(base: Base) -> None:
    answer = enforceable({"enum": ["yes", "no"]})
    either = base.grammar(forced=False, answer=answer, lead=base.renderer.answer_lead)
    assert base.takes(either, '"yes"')
    assert base.takes(either, base.written(WEATHER))
    assert not base.takes(either, "yes")


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ('[get_weather(city="Oslo", days=3)]', True),
        ('[get_weather(city="Oslo"), now()]', True),
        ("[now()]", True),
        ("[get_weather()]", False),
        ('[get_weather(days=3, city="Oslo")]', False),
        ("[now(x=1)]", False),
        ("now()", False),
    ],
)
def test_calls_in_pythons_form(text: str, right: bool) -> None:
    grammar = call_grammar(PYTHON, TOOLS, {}, many=True, forced=True)
    assert nano().takes(grammar, text) is right


def test_optional_arguments_in_pythons_form() -> None:
    keys = {key: {"type": "integer", "minimum": 0, "maximum": 9} for key in "abc"}
    tool = Tool("f", enforceable({"type": "object", "properties": keys, "required": ["b"]}))
    grammar = call_grammar(PYTHON, [tool], {}, many=False, forced=True)
    base = nano()
    for text in ("[f(b=1)]", "[f(a=1, b=1)]", "[f(b=1, c=1)]", "[f(a=1, b=1, c=1)]"):
        assert base.takes(grammar, text), text
    for text in ("[f()]", "[f(a=1)]", "[f(, b=1)]", "[f(c=1, b=1)]", "[f(b=1 c=1)]"):
        assert not base.takes(grammar, text), text


def test_a_name_before_its_object() -> None:
    plain = call_grammar(
        CallSyntax("named", "CALL ", ".", "; ", after_name=" "), TOOLS, {}, many=True, forced=True
    )
    assert nano().takes(plain, 'CALL get_weather {"city": "Oslo"}; now {}.')


@pytest.mark.parametrize(
    "text", ['{"city": "Oslo"}', '{"city":"Oslo"}', '{"city":"Oslo","days":3}']
)
def test_json_is_written_with_spaces_or_without(text: str) -> None:
    base = nano()
    grammar = json_grammar(enforceable(CITY))
    assert base.takes(grammar, text)
    for wrong in (text + " ", " " + text, text.replace(":", " :"), text.replace("{", "{ ")):
        assert not base.takes(grammar, wrong)
