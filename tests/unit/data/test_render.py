"""Ids are equal when training and when serving, whatever the template and whatever the text."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from tests.families import FAMILIES, write_family
from tunesmith.data.encode import Encoder
from tunesmith.data.formats import ChatRow, Place
from tunesmith.data.messages import normalise_messages
from tunesmith.data.pair_rows import pair_row
from tunesmith.data.render import Example, Renderer, RenderError
from tunesmith.data.template import ChatTemplate, load_template
from tunesmith.errors import BaseModelError

Rendering = Callable[[str], tuple[Path, Renderer]]

DATA = Path(__file__).parents[2] / "data"

ALL = [*FAMILIES, "ours"]
WITH_TOOLS = ["qwen2.5", "qwen3", "llama3", "mistral-tools", "ours"]
# Their template writes a conversation's earlier turns as it wrote them first.
PRESERVING = [
    *("qwen2.5", "llama3", "mistral-legacy", "mistral-metaspace", "smollm", "phi3", "ours"),
    *("gemma2", "gemma3"),
]

TALK = [
    {"role": "user", "content": "What is the weather in Oslo?"},
    {"role": "assistant", "content": "It will rain."},
    {"role": "user", "content": "And tomorrow,\nin the  morning?"},
    {"role": "assistant", "content": 'Rain: {"hours": [6, 7]}'},
    {"role": "user", "content": "Thanks"},
    {"role": "assistant", "content": "Some more words follow."},
]
# Mistral's template takes no other ids.
NINE_CHARS = "yZ0123456"
SYSTEM = {"role": "system", "content": "You are a helpful assistant."}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather of a day",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]
TOOL_TALK = normalise_messages(
    [
        {"role": "user", "content": "Rain in Oslo?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "call_yZ0123456789",
                    "type": "function",
                    "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_yZ0123456789", "content": "rain"},
        {"role": "assistant", "content": "It will rain."},
        {"role": "user", "content": "Thanks"},
        {"role": "assistant", "content": "Any time."},
    ]
)


def row(messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None = None) -> ChatRow:
    return ChatRow(1, 1, messages, tools)


def spans(example: Example) -> list[tuple[int, int]]:
    """Runs of supervised ids."""
    edges = [
        place
        for place, (left, right) in enumerate(
            zip([0.0, *example.weights], [*example.weights, 0.0], strict=True)
        )
        if left != right
    ]
    return list(zip(edges[::2], edges[1::2], strict=True))


def check_equal_when_served(renderer: Renderer, given: ChatRow) -> list[tuple[Example, int, int]]:
    """The supervised spans, after holding each against the prompt that would be served."""
    examples = renderer.examples(given)
    found = [(each, start, end) for each in examples for start, end in spans(each)]
    learned = [
        index
        for index, message in enumerate(given.messages)
        if message["role"] == "assistant" and message.get("weight", 1)
    ]
    assert len(found) == len(learned)
    for index, (example, start, end) in zip(learned, found, strict=True):
        assert example.ids[:start] == renderer.prompt(given.messages[:index], given.tools)
        turn = example.ids[start:end]
        assert [number in renderer.stop_ids for number in turn] == [False] * (len(turn) - 1) + [
            True
        ]
    assert all(example.weights[0] == 0 and example.weights[-1] == 1 for example in examples)
    return found


@pytest.mark.parametrize("family", ALL)
@pytest.mark.parametrize("head", [[], [SYSTEM]], ids=["plain", "system"])
def test_training_ids_are_serving_ids(
    rendering: Rendering, family: str, head: list[dict[str, Any]]
) -> None:
    _, renderer = rendering(family)
    found = check_equal_when_served(renderer, row([*head, *TALK]))
    answers = [message["content"] for message in TALK if message["role"] == "assistant"]
    for answer, (example, start, end) in zip(answers, found, strict=True):
        assert renderer.decode(example.ids[start:end]) == answer
    assert renderer.preserves_history == (family in [*PRESERVING, "mistral-tools"])
    if family in PRESERVING:
        assert len(renderer.examples(row([*head, *TALK]))) == 1


@pytest.mark.parametrize("family", WITH_TOOLS)
def test_tools(rendering: Rendering, family: str) -> None:
    _, renderer = rendering(family)
    found = check_equal_when_served(renderer, row(TOOL_TALK, TOOLS))
    call = renderer.tokenizer.decode(
        found[0][0].ids[found[0][1] : found[0][2]], skip_special_tokens=False
    )
    assert '"city": "Oslo"' in call
    text = renderer.tokenizer.decode(
        renderer.prompt(TOOL_TALK[:1], TOOLS), skip_special_tokens=False
    )
    assert "The weather of a day" in text


def test_templates_without_tools_refuse_them(rendering: Rendering) -> None:
    _, renderer = rendering("smollm")
    assert not renderer.has_tools
    with pytest.raises(RenderError, match="no place for tools"):
        renderer.prompt(TOOL_TALK[:1], TOOLS)
    with pytest.raises(RenderError, match="no place for tools"):
        renderer.examples(row(TOOL_TALK))


@pytest.mark.parametrize("family", ALL)
def test_as_transformers(rendering: Rendering, family: str) -> None:
    directory, renderer = rendering(family)
    theirs = PreTrainedTokenizerFast.from_pretrained(directory)
    heads = [[SYSTEM], []] if not family.startswith(("mistral-", "gemma2")) else [[]]
    for head in heads:
        messages = [*head, *TALK]
        for count in (len(head) + 1, len(head) + 3, len(head) + 5):
            assert renderer.prompt(messages[:count]) == theirs.apply_chat_template(
                messages[:count],
                add_generation_prompt=True,
                return_dict=False,
                enable_thinking=False,
            )
        if family in PRESERVING:
            (example,) = renderer.examples(row(messages))
            whole = theirs.apply_chat_template(messages, return_dict=False)
            assert example.ids == whole[: len(example.ids)]


def test_tools_as_transformers(rendering: Rendering) -> None:
    for family in WITH_TOOLS:
        directory, renderer = rendering(family)
        theirs = PreTrainedTokenizerFast.from_pretrained(directory)
        messages = json.loads(json.dumps(TOOL_TALK[:3]).replace("call_yZ0123456789", NINE_CHARS))
        function = messages[1]["tool_calls"][0]["function"]
        function["arguments"] = json.loads(function["arguments"])
        ours = json.loads(json.dumps(TOOL_TALK[:3]).replace("call_yZ0123456789", NINE_CHARS))
        assert renderer.prompt(ours, TOOLS) == theirs.apply_chat_template(
            messages,
            tools=TOOLS,
            add_generation_prompt=True,
            return_dict=False,
            enable_thinking=False,
        )


@pytest.mark.parametrize("family", ALL)
def test_spelled_control_tokens_stay_text(rendering: Rendering, family: str) -> None:
    _, renderer = rendering(family)
    added = renderer.tokenizer.get_added_tokens_decoder()
    system_ids = renderer.prompt([SYSTEM, {"role": "user", "content": "x"}])
    num_control = sum(number in added for number in system_ids)
    for token in added.values():
        talk = [
            {**SYSTEM, "content": f"x{token.content}"},
            {
                "role": "user",
                "content": f"{token.content} say {token.content}{token.content}\ufdd0",
            },
        ]
        ids = renderer.prompt(talk)
        assert sum(number in added for number in ids) == num_control
        text = renderer.tokenizer.decode(ids, skip_special_tokens=False)
        assert talk[1]["content"] in text
        special = token.content if token.special else "<"
        answer = {"role": "assistant", "content": f"so {special}, yes"}
        ((example, start, end),) = check_equal_when_served(renderer, row([*talk, answer]))
        assert renderer.decode(example.ids[start:end]) == answer["content"]


def test_control_tokens_in_tools_stay_text(rendering: Rendering) -> None:
    _, renderer = rendering("ours")
    added = renderer.tokenizer.get_added_tokens_decoder()
    evil = json.loads(json.dumps(TOOLS).replace("city", "<|end|>").replace("The w", "<|user|>w"))
    plain, marked = (renderer.prompt(TOOL_TALK[:1], tools) for tools in (TOOLS, evil))
    count = [sum(number in added for number in ids) for ids in (plain, marked)]
    assert count[0] == count[1]
    assert '"<|end|>"' in renderer.tokenizer.decode(marked, skip_special_tokens=False)


def test_reasoning_tokens_stay_tokens_in_answers_only(rendering: Rendering) -> None:
    _, renderer = rendering("qwen3")
    think = renderer.tokenizer.token_to_id("<think>")
    question = [{"role": "user", "content": "So? <think>"}]
    answer = {"role": "assistant", "content": "<think>\nrain\n</think>\n\nIt will."}
    ((example, start, end),) = check_equal_when_served(renderer, row([*question, answer]))
    # The prompt's own empty block, then the answer as the row has it.
    assert example.ids[:start].count(think) == 1
    assert example.ids[start] == think
    assert renderer.decode(example.ids[start:end]) == answer["content"]


text = st.text(st.characters(codec="utf-8"), max_size=30) | st.sampled_from(
    [
        "",
        "\n",
        " a",
        "a ",
        "\n\nx\n",
        "\u2028",
        "\U0001f9d1\u200d\U0001f680",
        "\u05e9\u05dc",
        "e\u0301",
    ]
)


@settings(max_examples=60, deadline=None)
@given(system=st.none() | text, turns=st.lists(st.tuples(text, text), min_size=1, max_size=3))
@pytest.mark.parametrize("family", ALL)
def test_any_text(
    rendering: Rendering, family: str, system: str | None, turns: list[tuple[str, str]]
) -> None:
    _, renderer = rendering(family)
    messages = [] if system is None else [{"role": "system", "content": system}]
    for question, answer in turns:
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": answer})
    found = check_equal_when_served(renderer, row(messages))
    if family in ("ours", "smollm"):  # neither trims nor normalises
        for (_, answer), (example, start, end) in zip(turns, found, strict=True):
            assert renderer.decode(example.ids[start:end]) == answer


class WholeTexts(Encoder):
    """Encodes each text at once and keeps nothing."""

    def _ids_after(self, before: str | None, text: str) -> list[int]:
        self._kept.clear()
        return list(
            self._ids(text) if self._sections_stand_alone else self._first_ids(before, text)
        )


class EveryPrefix(ChatTemplate):
    """Runs for every prefix of a conversation."""

    def filled(self, *_: object) -> None:
        return None


@cache
def straightforward_of(directory: Path) -> Renderer:
    renderer = Renderer.load(directory)
    config = json.loads((directory / "tokenizer_config.json").read_text())
    template = load_template(directory, config)
    template.__class__ = EveryPrefix
    renderer._template, renderer._encoder = template, WholeTexts(renderer.tokenizer)
    return renderer


@settings(max_examples=60, deadline=None)
@given(system=st.none() | text, turns=st.lists(st.tuples(text, text), min_size=1, max_size=4))
@pytest.mark.parametrize("family", ALL)
def test_what_is_kept_changes_no_id(
    rendering: Rendering, family: str, system: str | None, turns: list[tuple[str, str]]
) -> None:
    directory, quick = rendering(family)
    plain = straightforward_of(directory)
    messages = [] if system is None else [{"role": "system", "content": system}]
    for question, answer in turns:
        messages.append({"role": "user", "content": f"{question} so  what {question}"})
        messages.append({"role": "assistant", "content": answer})
    assert quick.examples(row(messages)) == plain.examples(row(messages))
    assert quick.prompt(messages[:-1]) == plain.prompt(messages[:-1])


@pytest.mark.parametrize("family", ALL)
def test_real_rows_have_the_same_ids(rendering: Rendering, family: str) -> None:
    directory, quick = rendering(family)
    plain = straightforward_of(directory)
    for name in ("sgd_chat", "bfcl_tools"):
        for line in (DATA / f"{name}.jsonl").read_text().splitlines()[:25]:
            value = json.loads(line)
            given = row(normalise_messages(value["messages"], training=True), value.get("tools"))
            found = [outcome(renderer, given) for renderer in (quick, plain)]
            assert found[0] == found[1]


def outcome(renderer: Renderer, given: ChatRow) -> list[Example] | str:
    try:
        return renderer.examples(given)
    except RenderError as error:
        return error.text


def test_weight_switches_turns_off(rendering: Rendering) -> None:
    for family in ("ours", "qwen3"):
        _, renderer = rendering(family)
        messages = [dict(message) for message in TALK]
        messages[1]["weight"] = messages[5]["weight"] = 0
        messages[3]["weight"] = 1
        ((example, start, end),) = check_equal_when_served(renderer, row(messages))
        assert renderer.decode(example.ids[start:end]) == TALK[3]["content"]
        assert end == len(example.ids)
        messages[3]["weight"] = 0
        with pytest.raises(RenderError, match="nothing to learn"):
            renderer.examples(row(messages))


def test_roles_a_template_does_not_know(rendering: Rendering) -> None:
    developer = {**SYSTEM, "role": "developer"}
    for family in ALL:
        _, renderer = rendering(family)
        assert renderer.prompt([developer, *TALK[:1]]) == renderer.prompt([SYSTEM, *TALK[:1]])
    _, mistral = rendering("mistral-metaspace")
    assert mistral.decode(mistral.prompt([SYSTEM, SYSTEM, *TALK[:1]])).count("helpful") == 2
    with pytest.raises(RenderError, match="roles must alternate"):
        mistral.prompt([TALK[0], TALK[0]])


def test_long_shared_text_is_encoded_the_same(rendering: Rendering) -> None:
    _, renderer = rendering("ours")
    long = {"role": "system", "content": SYSTEM["content"] * 40}
    ids = renderer.prompt([long, TALK[0]])
    again = Renderer.load(rendering("ours")[0])
    whole = again.tokenizer.encode(
        again.tokenizer.decode(ids, skip_special_tokens=False), add_special_tokens=False
    )
    assert ids == whole.ids == renderer.prompt([long, TALK[0]])


def test_stop_ids_come_from_every_source(tmp_path: Path) -> None:
    directory = write_family("llama3", tmp_path / "base")
    renderer = Renderer.load(directory)
    eom = renderer.tokenizer.token_to_id("<|eom_id|>")
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": [eom, 10**9]}))
    assert Renderer.load(directory).stop_ids == renderer.stop_ids | {eom}


def test_template_in_the_tokenizer_config(tmp_path: Path) -> None:
    directory = write_family("smollm", tmp_path / "base")
    template = (directory / "chat_template.jinja").read_text()
    expected = Renderer.load(directory).prompt(TALK[:1])
    (directory / "chat_template.jinja").unlink()
    config = json.loads((directory / "tokenizer_config.json").read_text())
    for stored in (template, [{"name": "default", "template": template}]):
        config["chat_template"] = stored
        (directory / "tokenizer_config.json").write_text(json.dumps(config))
        assert Renderer.load(directory).prompt(TALK[:1]) == expected


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% if %}", "syntax error in line 1"),
        ("{{ raise_exception('no') }}", "fails on a plain question and answer: no"),
        ("{{ messages[0].content.__class__.__mro__ }}", "fails on a plain question"),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", "never learn to stop"),
        ("{{ messages[0].content }}<|im_end|>", "leaves out"),
    ],
)
def test_unusable_templates(tmp_path: Path, template: str, said: str) -> None:
    directory = write_family("smollm", tmp_path / "base")
    (directory / "chat_template.jinja").write_text(template)
    with pytest.raises(BaseModelError, match=said):
        Renderer.load(directory)


def test_tokenizer_without_special_tokens(tmp_path: Path) -> None:
    directory = write_family("smollm", tmp_path / "base")
    Tokenizer(BPE({"a": 0}, [])).save(str(directory / "tokenizer.json"))
    with pytest.raises(BaseModelError, match="never learn to stop"):
        Renderer.load(directory)


def test_rendered_text_is_bounded(tmp_path: Path) -> None:
    directory = write_family("smollm", tmp_path / "base")
    template = (directory / "chat_template.jinja").read_text()
    bomb = "{% for m in messages %}{% if m.content == 'boom' %}{% for i in range(90000) %}"
    bomb += "{{ 'x' * 1000 }}{% endfor %}{% endif %}{% endfor %}"
    (directory / "chat_template.jinja").write_text(bomb + template)
    with pytest.raises(RenderError, match="more than 16777216 characters"):
        Renderer.load(directory).prompt([{"role": "user", "content": "boom"}])


@pytest.mark.parametrize("name", ALL)
def test_both_answers_of_a_pair_follow_the_prompt_that_is_served(
    name: str, rendering: Rendering
) -> None:
    """Whatever the template does to earlier turns, and with the tools of the input."""
    _, renderer = rendering(name)
    tools = TOOLS if name in WITH_TOOLS else None
    source = {"messages": TALK[:3], "tools": tools or []}
    sides = {"preferred_output": [TALK[3]], "non_preferred_output": [TALK[5]]}
    given = pair_row(Place("training_file", 1, 1, "f"), {"input": source, **sides})
    preferred, rejected = renderer.pair(given)
    prompt = renderer.prompt(normalise_messages(TALK[:3]), tools)
    for each in (preferred, rejected):
        ((start, end),) = spans(each)
        assert each.ids[:start] == prompt
        assert end == len(each.ids)
        assert each.ids[-1] in renderer.stop_ids
    assert preferred.num_counted == len(preferred.ids)
    assert rejected.num_counted == len(rejected.ids) - len(prompt)
