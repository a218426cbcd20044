"""A conversation put together from a skeleton is the text that the template writes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.families import FAMILIES, TEMPLATES
from tunesmith.bases import embedded_directory
from tunesmith.data.sandbox import TemplateRefusedError
from tunesmith.data.skeleton import MAX_ALL_CHARS, MAX_MESSAGES, Skeletons
from tunesmith.data.template import ChatTemplate

NAMED = {"bos_token": "<s>", "eos_token": "</s>"}
SOURCES = {
    name: (TEMPLATES / f"{name}.jinja").read_text()
    for name in sorted({family.template for family in FAMILIES.values()})
}
SOURCES["ours"] = (embedded_directory() / "chat_template.jinja").read_text()

content = st.text(max_size=12) | st.sampled_from(
    [
        *("", " ", "\n", " padded ", "\n\nx", "x\n", "plain words"),
        *("<think>\n\n</think>\n\n", "a</think>b", "</think>", "<think>", "so\n</think>\n\n\nthen"),
        *(
            "<tool_response>x</tool_response>",
            "<tool_response>",
            "</tool_response>",
            "\ufdd0</s>\ufdd1",
        ),
        *("{{ x }}", "%s", "'", '"', "\\", "\u2028", "\u00a0x\u00a0"),
    ]
)
messages = st.lists(
    st.tuples(st.sampled_from(["user", "assistant", "system", "developer"]), content),
    min_size=1,
    max_size=7,
)
dialogue = st.builds(
    lambda system, turns: [
        *([("system", system)] if system is not None else []),
        *(
            pair
            for question, answer in turns
            for pair in (("user", question), ("assistant", answer))
        ),
    ],
    st.none() | content,
    st.lists(st.tuples(content, content), min_size=1, max_size=4),
)


def straight(template: ChatTemplate, talk: list[tuple[str, str]], prompt: bool) -> str | None:
    try:
        return template.text([{"role": role, "content": text} for role, text in talk], None, prompt)
    except TemplateRefusedError:
        return None


def filled(template: ChatTemplate, talk: list[tuple[str, str]], prompt: bool) -> str | None:
    roles, contents = zip(*talk, strict=True)
    return template.filled(roles, contents, prompt)


TEMPLATES_MADE = {name: ChatTemplate({"default": text}, NAMED) for name, text in SOURCES.items()}


@settings(max_examples=100, deadline=None)
@given(talk=dialogue | messages, prompt=st.booleans())
@pytest.mark.parametrize("name", SOURCES)
def test_families(name: str, talk: list[tuple[str, str]], prompt: bool) -> None:
    template = TEMPLATES_MADE[name]
    found = filled(template, talk, prompt)
    assert found in (None, straight(template, talk, prompt))


@pytest.mark.parametrize("name", SOURCES)
def test_ordinary_conversations_need_no_template(name: str) -> None:
    template = TEMPLATES_MADE[name]
    talk = [("user", "Rain in Oslo?"), ("assistant", "It will."), ("user", "And <then>?")]
    for prompt in (False, True):
        found = filled(template, talk, prompt)
        assert found is not None and found == straight(template, talk, prompt)


# What looks at contents in some way, each written for two different contents.
CURIOUS = [
    "{{ m.content | upper }}",
    "{{ m.content | length }}",
    "{{ m.content | tojson }}",
    "{{ m | tojson }}",
    "{{ m }}",
    "{{ messages }}",
    "{{ m.content[:2] }}",
    "{{ m.content[0] }}",
    "{{ m.content.split('a') }}",
    "{{ m.content.split }}",
    "{{ m.content.__class__ }}",
    "{{ m.content ~ 'x' }}",
    "{{ '%s' % m.content }}",
    "{{ '%s' | format(m.content) }}",
    "{{ '{}'.format(m.content) }}",
    "{{ ','.join([m.content]) }}",
    "{{ [m.content] | join(',') }}",
    "{{ messages | map(attribute='content') | join }}",
    "{{ m.content | replace('a', 'b') }}",
    "{{ m.content | int }}",
    "{{ m.content | float }}",
    "{{ m.content | first }}",
    "{{ m.content | last }}",
    "{{ m.content | list }}",
    "{{ m.content | reverse }}",
    "{{ m.content | sort }}",
    "{{ m.content | unique | list }}",
    "{{ m.content | wordcount }}",
    "{{ m.content | string | upper }}",
    "{{ m.content | escape }}",
    "{{ m.content | indent }}",
    "{{ m.content | default('x', true) }}",
    "{{ m.content * 2 }}",
    "{{ (m.content + 'x') | trim }}",
    "{{ (m.content + 'x').strip() }}",
    "{{ m.content | trim('a') }}",
    "{{ m.content.lstrip('a') }}",
    "{{ m.content.rstrip() }}",
    "{{ m.content.removeprefix('a') }}",
    "{% if 'a' in m.content %}yes{% endif %}",
    "{% if m.content in 'abc' %}yes{% endif %}",
    "{% if m.content in ['a'] %}yes{% endif %}",
    "{% if m.content in {'a': 1} %}yes{% endif %}",
    "{% if m.content == 'a' %}yes{% endif %}",
    "{% if 'a' != m.content %}yes{% endif %}",
    "{% if m.content > 'a' %}yes{% endif %}",
    "{% if m.content + 'b' == 'ab' %}yes{% endif %}",
    "{% if 'ab' in m.content + 'b' %}yes{% endif %}",
    "{% if m.content == messages[0].content %}yes{% endif %}",
    "{% if m == messages[-1] %}yes{% endif %}",
    "{% if m.content %}yes{% endif %}",
    "{% if m.content and not m.content.startswith('a') %}yes{% endif %}",
    "{% if m.content.endswith(('a', 'b')) %}yes{% endif %}",
    "{% if m.content is lower %}yes{% endif %}",
    "{% if m.content is string and m.content is not mapping %}yes{% endif %}",
    "{% if m.content is sequence %}yes{% endif %}",
    "{% if m.content is iterable %}yes{% endif %}",
    "{% if m.content is sameas('a') %}yes{% endif %}",
    "{% if m.content is none or m.content is number %}yes{% endif %}",
    "{% for c in m.content %}-{% endfor %}",
    "{% set x %}{{ m.content }}{% endset %}{{ x | upper }}",
    "{% macro f(x) %}<{{ x }}>{% endmacro %}{{ f(m.content) | upper }}",
    "{% macro f(x) %}{% if 'a' in x %}yes{% endif %}{% endmacro %}{{ f(m.content) }}",
    "{% filter upper %}{{ m.content }}{% endfilter %}",
    "{% set ns = namespace(x='') %}{% set ns.x = ns.x + m.content %}{{ ns.x | length }}",
    "{% if loop.changed(m.content) %}yes{% endif %}",
    "{% for k, v in m.items() %}{{ k }}={{ v }}{% endfor %}",
    "{{ m.values() | list }}",
    "{{ {'a': 'b'}[m.content] }}",
    "{{ raise_exception(m.content) }}",
    "{{ messages | selectattr('content') | list | length }}",
    "{{ messages | rejectattr('content', 'equalto', 'a') | list | length }}",
    "{{ messages | groupby('content') | length }}",
    "{{ m.content if m.role == 'user' else '' }}{{ m.content }}",
]
ASKED = ["a", "b", "ab", "abba", "", " ", " a ", "A", "1", "0.5", "x\ny", "<a>", "{}"]


@pytest.mark.parametrize("asks", CURIOUS)
def test_templates_that_look_at_contents(asks: str) -> None:
    loop = f"{{% for m in messages %}}[{asks}]{{% endfor %}}"
    template = ChatTemplate({"default": loop}, {})
    for first in ASKED:
        for second in ASKED:
            talk = [("user", first), ("assistant", second)]
            assert filled(template, talk, False) in (None, straight(template, talk, False))


def test_what_is_asked_is_answered_by_each_content() -> None:
    trims = "{% if '#' in m.content %}!{% else %}{{ m.content | trim }}{% endif %}"
    loop = f"{{% for m in messages %}}{trims}{{% endfor %}}"
    template = ChatTemplate({"default": loop}, {})
    assert filled(template, [("user", "a"), ("user", "b c")], False) == "ab c"
    assert filled(template, [("user", "a"), ("user", "b#")], False) is None
    assert filled(template, [("user", "a"), ("user", " b")], False) is None


def test_long_and_large_ones_are_left_to_the_template() -> None:
    copies = ChatTemplate({"default": "{% for m in messages %}{{ m.content }}{% endfor %}"}, {})
    talk = [("user", "x")] * (MAX_MESSAGES + 1)
    assert filled(copies, talk, False) is None
    assert filled(copies, talk[1:], False) == "x" * MAX_MESSAGES
    grows = "{% for i in range(90000) %}{{ 'x' * 1000 }}{% endfor %}"
    assert filled(ChatTemplate({"default": grows}, {}), talk[:1], False) is None


def test_what_is_kept_stays_within_its_memory() -> None:
    made = Skeletons("{{ 'x' * 100000 }}{{ messages[0].content }}", {})
    for number in range(2 * MAX_ALL_CHARS // 100_000):
        assert made.text((f"role {number}",), ["y"], False) == "x" * 100_000 + "y"
    assert (
        sum(len(each.texts[0]) for each in made._kept.values() if each) <= MAX_ALL_CHARS + 100_000
    )


def test_a_refusal_is_the_templates_own() -> None:
    template = ChatTemplate({"default": "{{ raise_exception('no ' ~ messages[0].role) }}"}, {})
    assert filled(template, [("user", "x")], False) is None
