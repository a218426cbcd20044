"""How each family writes calls is read off its template, and what it writes is read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.families import write_family
from tests.tiny_base import NANO
from tunesmith.data import tool_parser
from tunesmith.data.call_text import Scanner
from tunesmith.data.render import Renderer
from tunesmith.data.template import ChatTemplate
from tunesmith.data.tool_parser import Arguments, Broken, CallParser, CallStart, Event, Text
from tunesmith.data.tool_syntax import ID, CallSyntax, probe_calls

FORMS = {"qwen2.5", "qwen3", "llama3", "mistral-tools", "nano"}
NAMES = ("get_weather", "now")
PYTHON = CallSyntax("python", "[", "]", ", ")
DEEP = CallSyntax(
    "named",
    "<|calls|><|call|>function<|sep|>",
    "\n```<|end|><|done|>",
    "\n```<|end|>\n<|call|>function<|sep|>",
    after_name="\n```json\n",
)
# Templates that write calls otherwise, as the tail of a plain one.
PLAIN = "{% for m in messages %}{{ '<' + m.role + '>' + (m.content or '') }}"
END = "{{ '</s>' }}{% endfor %}{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
NAMED = (
    PLAIN + "{% for c in m.tool_calls or [] %}{{ '[TOOL_CALLS]' + c.function.name + '[ARGS]' + "
    "c.function.arguments | tojson }}{% endfor %}" + END
)
PYTHONIC = (
    PLAIN + "{% if m.tool_calls %}[{% for c in m.tool_calls %}{{ c.function.name + '(' }}"
    "{% for k, v in c.function.arguments.items() %}{{ k + '=' + v | tojson }}"
    "{% if not loop.last %}, {% endif %}{% endfor %}){% if not loop.last %}, {% endif %}"
    "{% endfor %}]{% endif %}" + END
)
NESTED = (
    PLAIN + "{% for c in m.tool_calls or [] %}{{ '<call>' + "
    '{"id": c.id, "type": "function", "function": c.function} | tojson }}{% endfor %}' + END
)


def renderer_of(name: str, directory: Path) -> Renderer:
    return Renderer.load(NANO if name == "nano" else write_family(name, directory))


def syntax_of(name: str, directory: Path) -> CallSyntax:
    syntax = renderer_of(name, directory).call_syntax
    assert syntax is not None
    return syntax


def objects(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Arguments as objects, as a dialect that knows them gives them to the template."""
    text = json.dumps(messages)
    read: list[dict[str, Any]] = json.loads(
        text,
        object_hook=lambda each: (
            each | ({"arguments": json.loads(each["arguments"])} if "arguments" in each else {})
        ),
    )
    return read


def call(name: str, **arguments: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"id": "call_x", "type": "function", "function": function}


def read(
    syntax: CallSyntax, pieces: list[str], *, many: bool = True, cut: bool = False
) -> list[Event]:
    parser = CallParser(syntax, NAMES, many=many)
    events = [event for piece in pieces for event in parser.push(piece)]
    return events + parser.flush(cut=cut)


def summary(events: list[Event]) -> tuple[str, list[tuple[str, str]]]:
    """Text and calls, as a whole answer shows them."""
    text, calls = "", {}
    for event in events:
        if isinstance(event, Text):
            text += event.text
        elif isinstance(event, CallStart):
            calls[event.index] = (event.name, "")
        elif isinstance(event, Arguments):
            name, arguments = calls[event.index]
            calls[event.index] = (name, arguments + event.text)
        else:
            assert isinstance(event, Broken)
            del calls[event.index]
            text += event.raw
    return text, list(calls.values())


@pytest.mark.parametrize("name", sorted(FORMS))
def test_what_a_template_writes_is_read_back(name: str, tmp_path: Path) -> None:
    renderer = renderer_of(name, tmp_path)
    syntax = renderer.call_syntax
    assert syntax is not None
    tools = [
        {"type": "function", "function": {"name": each, "description": "x", "parameters": {}}}
        for each in NAMES
    ]
    calls = [call("get_weather", city='Oslo "{}" \\', days=[1, {"a": None}]), call("now")]
    for number in (1, 2) if syntax.between else (1,):
        user = {"role": "user", "content": "hi"}
        answer = {"role": "assistant", "content": "", "tool_calls": calls[:number]}
        after = renderer.prompt([user, answer, user], tools)
        text = renderer.tokenizer.decode(after, skip_special_tokens=False)
        written = text[text.index(syntax.head + syntax.before_name, text.index("hi")) :]
        stop = next(t for t in ("<|im_end|>", "<|eot_id|>", "</s>", "<|end|>") if t in written)
        shown, found = summary(read(syntax, [written[: written.index(stop)]]))
        assert shown == ""
        expected = [(c["function"]["name"], c["function"]["arguments"]) for c in calls[:number]]
        assert [(each, json.loads(text)) for each, text in found] == [
            (each, json.loads(text)) for each, text in expected
        ]


def test_families_without_tools_have_no_syntax(tmp_path: Path) -> None:
    assert renderer_of("smollm", tmp_path).call_syntax is None


def test_special_tokens_of_a_call_are_known_by_id(tmp_path: Path) -> None:
    assert renderer_of("nano", tmp_path).call_tokens == {"<|tool_call|>": 9}
    mistral = renderer_of("mistral-tools", tmp_path)
    assert mistral.call_tokens == {"[TOOL_CALLS]": mistral.tokenizer.token_to_id("[TOOL_CALLS]")}
    assert renderer_of("qwen2.5", tmp_path / "q").call_tokens.keys() == {
        "<tool_call>",
        "</tool_call>",
    }


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (NAMED, CallSyntax("named", "[TOOL_CALLS]", "", "[TOOL_CALLS]", after_name="[ARGS]")),
        (PYTHONIC, PYTHON),
    ],
)
def test_other_forms_are_found(source: str, expected: CallSyntax) -> None:
    assert (
        probe_calls(ChatTemplate({"default": source}, {}), objects, frozenset({"</s>"})) == expected
    )


def test_a_name_within_an_inner_object_is_found_in_it() -> None:
    syntax = probe_calls(ChatTemplate({"default": NESTED}, {}), objects, frozenset({"</s>"}))
    assert syntax is not None
    assert syntax.form == "object"
    assert ID in syntax.head + syntax.before_name or "callid001" in syntax.head


def test_a_template_that_leaves_calls_out_has_no_syntax() -> None:
    template = ChatTemplate({"default": PLAIN + END}, {})
    assert probe_calls(template, objects, frozenset({"</s>"})) is None


HERMES = (
    'Let me see.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
)
ONE = [("get_weather", '{"city": "Oslo"}')]


@pytest.mark.parametrize(
    ("family", "text", "shown", "calls"),
    [
        ("qwen2.5", HERMES, "Let me see.", ONE),
        ("qwen2.5", HERMES.replace("\n", "").replace("see.", "see. "), "Let me see.", ONE),
        ("qwen2.5", HERMES + HERMES.removeprefix("Let me see."), "Let me see.", ONE * 2),
        ("qwen2.5", HERMES.removesuffix("</tool_call>"), "Let me see.", ONE),
        ("qwen2.5", HERMES + "\nDone.", "Let me see.\nDone.", ONE),
        ("qwen2.5", HERMES.replace("get_weather", "rm"), None, []),
        ("qwen2.5", HERMES.replace('"Oslo"', "Oslo"), None, []),
        ("qwen2.5", HERMES.replace('{"city": "Oslo"}', "[1]"), None, []),
        ("qwen2.5", "a <tool_call>b</tool_call> c", None, []),
        ("qwen2.5", "a < b <tool_cal", None, []),
        ("qwen2.5", "  indented\n\ntext\n", None, []),
        ("qwen2.5", HERMES.replace('"name"', '"nam"'), None, []),
        (
            "qwen2.5",
            '<tool_call>{"arguments": {"city": "Oslo"}, "name": "get_weather"}</tool_call>',
            "",
            ONE,
        ),
        (
            "qwen2.5",
            '<tool_call>{"name":"get_weather","arguments":"{\\"city\\": \\"Oslo\\"}"}</tool_call>',
            "",
            ONE,
        ),
        ("qwen2.5", '<tool_call>{"name": "now"}</tool_call>', "", [("now", "{}")]),
        ("llama3", '{"name": "get_weather", "parameters": {"city": "Oslo"}}', "", ONE),
        ("llama3", '\n{"name":"get_weather","parameters":{"city": "Oslo"}}\n', "", ONE),
        ("llama3", 'Use {"name": "now", "parameters": {}}', None, []),
        ("llama3", '{"answer": 42}', None, []),
        ("llama3", '{"name": "Jo", "parameters": {}}', None, []),
        (
            "mistral-tools",
            '[TOOL_CALLS][{"name": "now", "arguments": {}}]',
            "",
            [("now", "{}")],
        ),
        (
            "mistral-tools",
            '[TOOL_CALLS] [{"name": "now", "arguments": {}, "id": "abc123def"}, '
            '{"name": "get_weather", "arguments": {"city": "Oslo"}, "id": "x}]y"}]',
            "",
            [("now", "{}"), *ONE],
        ),
        (
            "nano",
            '<|tool_call|>{"name": "now", "arguments": {}}<|tool_call|>'
            '{"name": "get_weather", "arguments": {"city": "Oslo"}}',
            "",
            [("now", "{}"), *ONE],
        ),
        ("nano", 'Hi<|tool_call|>{"name": "now", "arguments": {}}', "Hi", [("now", "{}")]),
    ],
)
def test_calls_are_calls_and_the_rest_is_text(
    family: str, text: str, shown: str | None, calls: list[tuple[str, str]], tmp_path: Path
) -> None:
    events = read(syntax_of(family, tmp_path), [text])
    found, names = summary(events)
    assert names == calls
    assert found == (text if shown is None else shown)


@pytest.mark.parametrize(
    ("text", "shown", "calls"),
    [
        ('[get_weather(city="Oslo")]', "", ONE),
        ("[get_weather(city='Oslo'), now()]", "", [*ONE, ("now", "{}")]),
        (
            "[get_weather(city='a)\\'(', days=[1, -2.5], deep={'x': None}, ok=true)]",
            "",
            [
                (
                    "get_weather",
                    '{"city": "a)\'(", "days": [1, -2.5], "deep": {"x": null}, "ok": true}',
                )
            ],
        ),
        ("[1, 2, 3]", None, []),
        ("[see](https://example.org)", None, []),
        ("[get_weather(os.system('x'))]", None, []),
        ("[get_weather(city=__import__('os'))]", None, []),
        ("[get_weather(" + "(" * 500, None, []),
        ("text [now()]", None, []),
    ],
)
def test_calls_in_pythons_form(text: str, shown: str | None, calls: list[tuple[str, str]]) -> None:
    assert summary(read(PYTHON, [text])) == (text if shown is None else shown, calls)


def test_calls_with_the_name_before_an_object() -> None:
    second = f'{DEEP.between}get_weather\n```json\n{{"city": "Oslo"}}{DEEP.tail}'
    text = f"{DEEP.head}now\n```json\n{{}}{second}"
    assert summary(read(DEEP, [text])) == ("", [("now", "{}"), *ONE])
    broken = text.replace("now", "x" * 100)
    assert summary(read(DEEP, [broken]))[1] == []


def test_a_cut_call_keeps_what_came_of_its_arguments(tmp_path: Path) -> None:
    syntax = syntax_of("qwen2.5", tmp_path)
    text = HERMES[: HERMES.index("slo")]
    assert summary(read(syntax, [text], cut=True)) == (
        "Let me see.",
        [("get_weather", '{"city": "O')],
    )
    # The model itself ended there: that is no call.
    assert summary(read(syntax, [text])) == (text, [])


def test_one_call_is_enough_where_only_one_is_wanted(tmp_path: Path) -> None:
    parser = CallParser(syntax_of("qwen2.5", tmp_path), NAMES, many=False)
    events = parser.push(HERMES + HERMES)
    assert parser.done
    assert summary(events + parser.flush()) == ("Let me see.", ONE)


def test_arguments_come_as_they_are_written(tmp_path: Path) -> None:
    parser = CallParser(syntax_of("qwen2.5", tmp_path), NAMES)
    deltas = [event for char in HERMES for event in parser.push(char)]
    arguments = [event.text for event in deltas if isinstance(event, Arguments)]
    assert len(arguments) > 10
    assert "".join(arguments) == '{"city": "Oslo"}'


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("python", "[get_weather(city='", "')]"),
        ("llama3", '{"parameters": {"city": "', '"}, "name": "get_weather"}'),
        ("qwen2.5", '<tool_call>{"name": "get_weather", "arguments": "', '"}</tool_call>'),
        ("qwen2.5", '<tool_call>{"name": "', '"}</tool_call>'),
        ("qwen2.5", '<tool_call>{"name": "get_weather", "arguments": {"city": "', '"}}'),
    ],
)
def test_a_long_call_is_read_once_however_it_comes(
    name: str, before: str, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    num_read = 0

    class Counting(Scanner):
        def feed(self, text: str) -> int | None:
            nonlocal num_read
            num_read += len(text)
            return super().feed(text)

    monkeypatch.setattr(tool_parser, "Scanner", Counting)
    text = before + "Oslo " * 400 + after
    parser = CallParser(SYNTAXES[name], NAMES)
    for char in text:
        parser.push(char)
    parser.flush()
    assert num_read <= 2 * len(text)


SAMPLES = st.sampled_from(
    [
        HERMES,
        HERMES * 2,
        HERMES.replace('"Oslo"', "Oslo"),
        '[TOOL_CALLS] [{"name": "now", "arguments": {}}, {"name": "x"}] y',
        '{"name": "now", "parameters": {"a": "}{"}} z',
        "[now(), get_weather(city='Oslo')]  ",
        " plain < text \n\n [TOOL_CALLS] <tool_call> {",
        '<|tool_call|>{"name": "now", "arguments": {}} <|tool_call|> and',
    ]
)
SYNTAXES: dict[str, CallSyntax] = {"python": PYTHON, "deep": DEEP}


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_pieces_make_no_difference_and_nothing_is_lost(data: st.DataObject) -> None:
    text = data.draw(SAMPLES) + data.draw(st.text("<>tol_ca{}\"':[](), n", max_size=20))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    syntax = data.draw(st.sampled_from(list(SYNTAXES.values())))
    whole, split = read(syntax, [text]), read(syntax, pieces)
    assert summary(whole) == summary(split)
    shown, calls = summary(split)
    if not calls:
        assert shown == text


@pytest.fixture(scope="module", autouse=True)
def syntaxes(tmp_path_factory: pytest.TempPathFactory) -> None:
    for name in FORMS:
        SYNTAXES[name] = syntax_of(name, tmp_path_factory.mktemp(name))
