from __future__ import annotations

import json

import pytest

from tunesmith.data.sandbox import TemplateRefusedError
from tunesmith.data.template import ChatTemplate

MESSAGES = [{"role": "user", "content": "caf\u00e9 <b>"}]


def render(source: str, messages: object = MESSAGES, **named: str) -> str:
    template = ChatTemplate({"default": source}, named)
    return template.text(messages, None, add_generation_prompt=True)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ bos_token }}{{ messages[0].content }}", "<s>caf\u00e9 <b>"),
        ("{% generation %}{{ messages[0]['role'] }}{% endgeneration %}", "user"),
        ("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        ("{% if add_generation_prompt %}\n  {% set x = 1 %}\nx\n{% endif %}", "x\n"),
        ("{{ messages | tojson }}", json.dumps(MESSAGES, ensure_ascii=False)),
        ("{{ messages[0] | tojson(ensure_ascii=True) }}", json.dumps(MESSAGES[0])),
        ("{{ messages | tojson(indent=2) }}", json.dumps(MESSAGES, indent=2, ensure_ascii=False)),
        ("{% if enable_thinking is false and documents is none %}plain{% endif %}", "plain"),
        ("{{ strftime_now('%d %b %Y') }}", "26 Jul 2024"),
        ("{{ messages[0].items() | list | length }}{{ messages[0].missing }}", "2"),
        ("{% set ns = namespace(n=1) %}{% set ns.n = 2 %}{{ ns.n }}", "2"),
    ],
)
def test_what_templates_use(source: str, text: str) -> None:
    assert render(source, bos_token="<s>") == text


def test_keys_named_like_methods_are_reached_as_transformers_reaches_them() -> None:
    messages = [{"role": "user", "content": "x", "items": "mine"}]
    assert render("{{ messages[0]['items'] }}", messages) == "mine"
    assert "method" in render("{{ messages[0].items }}", messages)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{{ raise_exception('Only one system message!') }}", "Only one system message!"),
        ("{{ messages[0].content + 1 }}", "can only concatenate str"),
        ("{{ messages.append(1) }}", "'append' of 'list' object is unsafe"),
        ("{{ ''.__class__ }}{{ ''.__class__.__mro__[1] }}", "unsafe"),
        ("{{ messages[9].content }}", "no element 9"),
        ("{{ range(10 ** 9) | list }}", "Range too big"),
    ],
)
def test_refusals(source: str, said: str) -> None:
    with pytest.raises(TemplateRefusedError, match=said):
        render(source)


def test_tools_may_have_a_template_of_their_own() -> None:
    template = ChatTemplate({"default": "plain", "tool_use": "with tools"}, {})
    assert template.text(MESSAGES, None, False) == "plain"
    assert template.text(MESSAGES, [{"type": "function"}], False) == "with tools"
