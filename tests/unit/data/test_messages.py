from __future__ import annotations

from typing import Any

import pytest

from tunesmith.data.messages import MessageError, normalise_messages, normalise_tools

USER = {"role": "user", "content": "x"}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


def assistant(**more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": "y", **more}


def test_one_form() -> None:
    given = [
        {
            "role": "developer",
            "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
        },
        {"role": "user", "content": "x", "name": "Ann", "tool_calls": None},
        {"role": "assistant", "content": None, "tool_calls": [{**CALL, "id": "c2"}, CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "r"},
        {"role": "assistant", "refusal": "I will not."},
        {"role": "assistant", "function_call": {"name": "g", "arguments": ""}},
        {"role": "function", "name": "g", "content": None},
        {"role": "assistant", "content": "done", "weight": 1.0, "tool_calls": []},
    ]
    assert normalise_messages(given, training=True) == [
        {"role": "developer", "content": "a\nb"},
        {"role": "user", "content": "x", "name": "Ann"},
        {"role": "assistant", "content": "", "tool_calls": [{**CALL, "id": "c2"}, CALL]},
        {"role": "tool", "content": "r", "tool_call_id": "c1"},
        {"role": "assistant", "content": "I will not."},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": "call_5", "type": "function", "function": {"name": "g", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "content": "", "name": "g", "tool_call_id": "call_5"},
        {"role": "assistant", "content": "done", "weight": 1},
    ]


def test_requests_may_echo_more_than_rows() -> None:
    echoed = assistant(annotations=[], audio=None, refusal=None, function_call=None)
    assert normalise_messages([USER, echoed]) == [USER, assistant()]
    broken = {**CALL, "function": {"name": "f", "arguments": "{oh"}}
    assert normalise_messages([USER, assistant(tool_calls=[broken])])
    with pytest.raises(MessageError, match="annotations"):
        normalise_messages([USER, echoed], training=True)
    with pytest.raises(MessageError, match="training data only"):
        normalise_messages([USER, assistant(weight=0)])


@pytest.mark.parametrize(
    ("message", "path", "said"),
    [
        ("hi", "messages[1]", "must be an object"),
        ({"content": "x"}, "messages[1].role", "Discriminator 'role' is missing in value"),
        ({"role": "bot", "content": "x"}, "messages[1].role", "'bot', not one of system"),
        ({"role": ["user"], "content": "x"}, "messages[1].role", "not one of"),
        ({"role": "user"}, "messages[1].content", "string or a list of text parts"),
        ({"role": "user", "content": None}, "messages[1].content", "string or a list"),
        ({"role": "user", "content": []}, "messages[1].content", "string or a list"),
        ({"role": "user", "content": 3}, "messages[1].content", "string or a list"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
            "messages[1].content[0]",
            "is of type 'image_url'; only text is supported",
        ),
        ({"role": "user", "content": ["x"]}, "messages[1].content[0]", "must be a text part"),
        ({"role": "user", "content": "x", "name": 1}, "messages[1].name", "must be a string"),
        ({**USER, "weight": 1}, "messages[1].weight", "is not a key of this message"),
        ({**USER, "tool_calls": [CALL]}, "messages[1].tool_calls", "is not a key"),
        ({"role": "assistant"}, "messages[1].content", "null only beside tool_calls"),
        (assistant(weight=0.5), "messages[1].weight", "must be 0 or 1"),
        (assistant(weight=True), "messages[1].weight", "must be 0 or 1"),
        (assistant(tool_calls="f"), "messages[1].tool_calls", "must be a list"),
        (assistant(tool_calls=[3]), "messages[1].tool_calls[0]", "type 'function'"),
        (assistant(tool_calls=[{**CALL, "id": 1}]), "messages[1].tool_calls[0].id", "string"),
        (
            assistant(tool_calls=[{**CALL, "function": {"name": "f", "arguments": {"a": 1}}}]),
            "messages[1].tool_calls[0].function.arguments",
            "must be a JSON string, such as json.dumps",
        ),
        (
            assistant(tool_calls=[{**CALL, "function": {"name": "f", "arguments": "[1]"}}]),
            "messages[1].tool_calls[0].function.arguments",
            "holds a JSON object",
        ),
        (
            assistant(tool_calls=[{**CALL, "function": {"name": "f", "arguments": "[" * 9999}}]),
            "messages[1].tool_calls[0].function.arguments",
            "holds a JSON object",
        ),
        (assistant(tool_calls=[{"id": "c"}]), "messages[1].tool_calls[0].function", "an object"),
        (assistant(refusal=1), "messages[1].refusal", "string or null"),
        ({"role": "tool", "content": "r"}, "messages[1].tool_call_id", "must name the tool call"),
        (
            {"role": "tool", "content": "r", "tool_call_id": "c9"},
            "messages[1].tool_call_id",
            "'c9' is no tool call",
        ),
        ({"role": "function", "content": "r"}, "messages[1].name", "function called before"),
    ],
)
def test_refusals(message: Any, path: str, said: str) -> None:
    with pytest.raises(MessageError) as caught:
        normalise_messages([USER, message], training=True)
    assert caught.value.path == path
    assert said in caught.value.text
    assert caught.value.index == 1


@pytest.mark.parametrize("messages", [None, [], "x", {}, [USER] * 2049])
def test_message_lists(messages: Any) -> None:
    with pytest.raises(MessageError) as caught:
        normalise_messages(messages)
    assert caught.value.path == "messages"


def test_tools() -> None:
    assert normalise_tools(None) is normalise_tools([]) is None
    assert normalise_tools([TOOL]) == [TOOL]
    assert normalise_tools(None, [TOOL["function"]]) == [TOOL]


@pytest.mark.parametrize(
    ("tools", "path"),
    [
        ({}, "tools"),
        ([TOOL] * 129, "tools"),
        ([TOOL, {"type": "web"}], "tools[1]"),
        ([{"type": "function"}], "tools[0].function"),
        ([{"type": "function", "function": {"name": "a b"}}], "tools[0].function.name"),
        (
            [{"type": "function", "function": {"name": "a", "parameters": [1]}}],
            "tools[0].function.parameters",
        ),
        (
            [{"type": "function", "function": {"name": "a", "description": 1}}],
            "tools[0].function.description",
        ),
    ],
)
def test_tool_refusals(tools: Any, path: str) -> None:
    with pytest.raises(MessageError) as caught:
        normalise_tools(tools)
    assert caught.value.path == path


def test_functions_must_be_a_list() -> None:
    with pytest.raises(MessageError, match="functions"):
        normalise_tools(None, {"name": "f"})
