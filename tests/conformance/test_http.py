"""What every engine's answers look like over HTTP: a request, and what must stand in the answer.

A case is a body and a table of places in the answer ("choices.0.finish_reason") with what must be
there: a value, a type, or a test. The published schemas are checked on the way (tests/service.py).
"""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from collections.abc import Callable
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.conformance.engines import Engine
from tests.service import Service
from tunesmith.serve.protocol import AdapterRef
from tunesmith.store.repo import models
from tunesmith.store.repo.models import ModelRow

Body = dict[str, Any]
Expected = dict[str, Any]

SAY: list[Any] = [{"role": "user", "content": "the quick brown fox"}]
PARAMETERS = {
    "type": "object",
    "properties": {
        "city": {"enum": ["Oslo", "Rome"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
WEATHER = {"name": "get_weather", "description": "Weather", "parameters": PARAMETERS}
NOW = {"name": "now", "parameters": {"type": "object", "properties": {}}}
TOOLS = [{"type": "function", "function": WEATHER}, {"type": "function", "function": NOW}]
STRICT = [{"type": "function", "function": {**WEATHER, "strict": True}}]
NAMED = {"type": "function", "function": {"name": "get_weather"}}
FORCED: Body = {"tools": TOOLS, "tool_choice": NAMED}
CALL = "choices.0.message.tool_calls"


def schema(value: Any, **more: Any) -> Body:
    given = {"name": "answer", "schema": value, "strict": True, **more}
    return {"response_format": {"type": "json_schema", "json_schema": given}}


def json_of(value: Any) -> Callable[[Any], bool]:
    """A text that is JSON of this schema."""
    return lambda text: Draft202012Validator(value).is_valid(json.loads(text))


def at(answer: Any, place: str) -> Any:
    for key in place.split("."):
        answer = answer[int(key)] if isinstance(answer, list) else answer[key]
    return answer


def hold(answer: Any, expected: Expected) -> None:
    for place, wanted in expected.items():
        found = at(answer, place)
        if isinstance(wanted, type):
            assert isinstance(found, wanted), f"{place}: {found!r}"
        elif callable(wanted):
            assert wanted(found), f"{place}: {found!r}"
        else:
            assert found == wanted, f"{place}: {found!r}"


CHATS: dict[str, tuple[Body, Expected]] = {
    "a plain answer": (
        {},
        {
            "object": "chat.completion",
            "choices.0.message.content": str,
            "choices.0.message": lambda message: "tool_calls" not in message,
            "choices.0.logprobs": None,
            "usage.prompt_tokens_details.cached_tokens": int,
        },
    ),
    "top_k 1 is greedy": (
        {"temperature": 1, "top_k": 1, "n": 2},
        {"choices": lambda each: each[0]["message"] == each[1]["message"]},
    ),
    "top_k -1 is none": ({"top_k": -1, "min_p": 0.1}, {"choices.0.message.content": str}),
    "text is the default format": ({"response_format": {"type": "text"}}, {"choices.0.index": 0}),
    "a JSON object": (
        {"response_format": {"type": "json_object"}, "max_tokens": 200},
        {"choices.0.message.content": json_of({"type": "object"})},
    ),
    "a JSON schema": (
        {**schema(PARAMETERS), "max_tokens": 100},
        {
            "choices.0.message.content": json_of(PARAMETERS),
            "choices.0.message.refusal": None,
            "choices.0.finish_reason": "stop",
        },
    ),
    "a schema that is not strict is kept as well": (
        {**schema(PARAMETERS, strict=None), "max_tokens": 100},
        {"choices.0.message.content": json_of(PARAMETERS)},
    ),
    "a schema that is no object": (
        {**schema({"enum": ["yes", "no"]}), "max_tokens": 20},
        {"choices.0.message.content": json_of({"enum": ["yes", "no"]})},
    ),
    "a schema for each of several choices": (
        {**schema(PARAMETERS), "n": 3, "temperature": 1, "seed": 2, "max_tokens": 100},
        {f"choices.{index}.message.content": json_of(PARAMETERS) for index in range(3)},
    ),
    "a schema with log probabilities": (
        {**schema(PARAMETERS), "logprobs": True, "top_logprobs": 2, "max_tokens": 100},
        {"choices.0.logprobs.content.0.top_logprobs": lambda top: len(top) == 2},
    ),
    "a schema that max_tokens cuts": (
        {**schema(PARAMETERS), "max_tokens": 3},
        {"choices.0.finish_reason": "length", "usage.completion_tokens": 3},
    ),
    "a named tool": (
        {**FORCED, "max_tokens": 100},
        {
            f"{CALL}.0.function.name": "get_weather",
            f"{CALL}.0.function.arguments": json_of(PARAMETERS),
            f"{CALL}.0.id": lambda name: name.startswith("call_"),
            f"{CALL}.0.type": "function",
            "choices.0.message.content": None,
            "choices.0.finish_reason": "tool_calls",
        },
    ),
    "a required tool": (
        {"tools": TOOLS, "tool_choice": "required", "max_tokens": 400, "temperature": 1, "seed": 1},
        {
            CALL: lambda calls: (
                {each["function"]["name"] for each in calls} <= {"get_weather", "now"}
            ),
            "choices.0.finish_reason": lambda reason: reason in ("tool_calls", "length"),
        },
    ),
    "a required tool, one call": (
        {
            "tools": TOOLS,
            "tool_choice": "required",
            "parallel_tool_calls": False,
            "max_tokens": 200,
        },
        {CALL: lambda calls: len(calls) == 1, "choices.0.finish_reason": "tool_calls"},
    ),
    "one of the allowed tools": (
        {
            "tools": TOOLS,
            "parallel_tool_calls": False,
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required", "tools": [NAMED]},
            },
        },
        {f"{CALL}.0.function.name": "get_weather"},
    ),
    "no tool": (
        {"tools": TOOLS, "tool_choice": "none"},
        {"choices.0.message": lambda message: "tool_calls" not in message},
    ),
    "tools by choice": ({"tools": TOOLS}, {"choices.0.finish_reason": str}),
    "strict tools by choice": ({"tools": STRICT}, {"choices.0.finish_reason": str}),
    "tools beside a format": (
        {"tools": TOOLS, **schema(PARAMETERS), "max_tokens": 200, "parallel_tool_calls": False},
        {"choices.0.finish_reason": lambda reason: reason in ("stop", "tool_calls")},
    ),
    "a named tool for each of several choices": (
        {**FORCED, "n": 2, "temperature": 1, "seed": 5, "max_tokens": 100},
        {f"choices.{n}.message.tool_calls.0.function.name": "get_weather" for n in (0, 1)},
    ),
    "a named tool with log probabilities": (
        {**FORCED, "logprobs": True, "max_tokens": 100},
        {"choices.0.logprobs.content": lambda tokens: len(tokens) > 5},
    ),
    "a call that max_tokens cuts": (
        {**FORCED, "max_tokens": 3},
        {"choices.0.finish_reason": "length"},
    ),
    "a lenient schema of a tool": (
        {
            "tools": [
                {
                    "type": "function",
                    "function": {
                        **NOW,
                        "parameters": {"type": "object", "properties": {}, "not": {"const": 1}},
                    },
                }
            ],
            "tool_choice": "required",
            "parallel_tool_calls": False,
        },
        {f"{CALL}.0.function.arguments": "{}"},
    ),
    "a named function of the old form": (
        {"functions": [WEATHER], "function_call": {"name": "get_weather"}, "max_tokens": 100},
        {
            "choices.0.message.function_call.name": "get_weather",
            "choices.0.message.function_call.arguments": json_of(PARAMETERS),
            "choices.0.message": lambda message: "tool_calls" not in message,
            "choices.0.finish_reason": "function_call",
        },
    ),
    "functions of the old form by choice": (
        {"functions": [WEATHER], "function_call": "auto"},
        {"choices.0.message": lambda message: "tool_calls" not in message},
    ),
    "results of calls": (
        {
            "tools": TOOLS,
            "messages": [
                *SAY,
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {
                            "id": "call_1",
                            "type": "function",
                            "function": {"name": "now", "arguments": "{}"},
                        }
                    ],
                },
                {"role": "tool", "tool_call_id": "call_1", "content": "noon"},
            ],
        },
        {"choices.0.finish_reason": str},
    ),
}


@pytest.mark.parametrize("case", CHATS)
def test_chats(live: Service, model: str, case: str) -> None:
    body, expected = CHATS[case]
    body = {"model": model, "messages": SAY, "max_tokens": 40, "temperature": 0} | body
    answer = live.http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    hold(answer.json(), expected)


def collected(lines: str) -> dict[int, Body]:
    """Each choice of a stream, put together as clients do it."""
    choices: dict[int, Body] = {}
    for line in lines.strip().split("\n\n"):
        if line == "data: [DONE]":
            continue
        for piece in json.loads(line.removeprefix("data: "))["choices"]:
            choice = choices.setdefault(
                piece["index"], {"content": "", "calls": [], "function": None, "finish": None}
            )
            assert choice["finish"] is None, "nothing may follow the end"
            delta = piece["delta"]
            choice["content"] += delta.get("content") or ""
            choice["finish"] = piece["finish_reason"]
            for call in delta.get("tool_calls", ()):
                if call["index"] == len(choice["calls"]):
                    assert call["id"].startswith("call_")
                    assert call["type"] == "function"
                    choice["calls"].append({"name": call["function"]["name"], "arguments": ""})
                else:
                    assert "id" not in call
                choice["calls"][call["index"]]["arguments"] += call["function"]["arguments"]
            if function := delta.get("function_call"):
                name = function.get("name")
                choice["function"] = choice["function"] or {"name": name, "arguments": ""}
                choice["function"]["arguments"] += function["arguments"]
    return choices


@pytest.mark.parametrize("case", CHATS)
def test_a_stream_puts_together_what_the_whole_answer_is(
    live: Service, model: str, case: str
) -> None:
    body = {"model": model, "messages": SAY, "max_tokens": 40, "temperature": 0} | CHATS[case][0]
    whole = live.http.post("/v1/chat/completions", json=body).json()["choices"]
    if case == "a plain answer" or body.get("seed") is None:
        body["temperature"] = 0
    streamed = live.http.post("/v1/chat/completions", json={**body, "stream": True})
    choices = collected(streamed.text)
    assert len(choices) == len(whole)
    for one in whole:
        message, other = one["message"], choices[one["index"]]
        assert (message["content"] or "") == other["content"]
        calls = [each["function"] for each in message.get("tool_calls", ())]
        assert calls == other["calls"]
        assert message.get("function_call") == other["function"]
        assert one["finish_reason"] == other["finish"]


def bad_format(value: Any) -> Body:
    return {"response_format": value}


REFUSED_CHATS: dict[str, tuple[Body, Expected]] = {
    "a schema without a name": (
        bad_format({"type": "json_schema", "json_schema": {"schema": {}}}),
        {"param": "response_format.json_schema.name"},
    ),
    "a schema with a bad name": (
        schema({}, name="a b"),
        {"param": "response_format.json_schema.name"},
    ),
    "no schema": (
        bad_format({"type": "json_schema", "json_schema": {"name": "x"}}),
        {"param": "response_format.json_schema.schema"},
    ),
    "no format": (bad_format({"type": "json_schema"}), {"param": "response_format.json_schema"}),
    "strict is no word": (
        schema({}, strict="yes"),
        {"param": "response_format.json_schema.strict"},
    ),
    "a keyword that is not supported": (
        schema({"type": "array", "uniqueItems": True}),
        {
            "param": "response_format",
            "code": "invalid_json_schema",
            "message": lambda text: "uniqueItems" in text,
        },
    ),
    "a keyword deep inside": (
        schema({"type": "object", "properties": {"a": {"items": {"not": {}}}}}),
        {"message": lambda text: "'not' at '/properties/a/items'" in text},
    ),
    "a place that is not there": (
        schema({"$ref": "#/$defs/None"}),
        {"param": "response_format", "code": "invalid_json_schema"},
    ),
    "a schema that nothing fits": (
        schema({"type": "integer", "minimum": 2, "maximum": 1}),
        {"code": "invalid_json_schema", "message": lambda text: "minimum" in text},
    ),
    "alternatives that may both hold": (
        schema({"oneOf": [{"type": "integer"}, {"type": "number"}]}),
        {"code": "invalid_json_schema", "message": lambda text: "oneOf" in text},
    ),
    "a schema of a strict function": (
        {
            "tools": [
                {
                    "type": "function",
                    "function": {**NOW, "strict": True, "parameters": {"not": {}}},
                }
            ]
        },
        {"param": "tools[0].function.parameters", "code": "invalid_function_parameters"},
    ),
    "a strict function that takes no object": (
        {
            "tools": [
                {
                    "type": "function",
                    "function": {**NOW, "strict": True, "parameters": {"type": "string"}},
                }
            ]
        },
        {"param": "tools[0].function.parameters"},
    ),
    "an unknown tool": (
        {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "rm"}}},
        {"param": "tool_choice"},
    ),
    "a tool of no kind": ({"tools": TOOLS, "tool_choice": {"type": "x"}}, {"param": "tool_choice"}),
    "an unknown word": ({"tools": TOOLS, "tool_choice": "any"}, {"param": "tool_choice"}),
    "a choice among none": ({"tool_choice": NAMED}, {"param": "tool_choice"}),
    "an old choice among new tools": (
        {"tools": TOOLS, "function_call": {"name": "now"}},
        {"param": "function_call"},
    ),
    "an old choice among none": ({"function_call": {"name": "f"}}, {"param": "function_call"}),
    "allowed tools that are not there": (
        {
            "tools": TOOLS,
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "auto",
                    "tools": [{"type": "function", "function": {"name": "rm"}}],
                },
            },
        },
        {"param": "tool_choice.allowed_tools.tools"},
    ),
    "min_p above 1": ({"min_p": 1.1}, {"param": "min_p"}),
    "top_k below -1": ({"top_k": -2}, {"param": "top_k"}),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("case", REFUSED_CHATS)
def test_chats_that_are_refused(live: Service, model: str, case: str, stream: bool) -> None:
    given, expected = REFUSED_CHATS[case]
    body = {"model": model, "messages": SAY, "max_tokens": 4, "stream": stream} | given
    answer = live.http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 400, answer.text
    hold(answer.json()["error"], {"type": "invalid_request_error"} | expected)


TEXT = "choices.0.text"
LOGPROBS = "choices.0.logprobs"
COMPLETIONS: dict[str, tuple[Body, Expected]] = {
    "a text": (
        {"prompt": "the quick"},
        {
            "object": "text_completion",
            "id": lambda name: name.startswith("cmpl-"),
            TEXT: str,
            LOGPROBS: None,
            "usage.completion_tokens": lambda count: 0 < count <= 4,
        },
    ),
    "no prompt": ({}, {TEXT: str, "usage.prompt_tokens": 1}),
    "an empty prompt": ({"prompt": ""}, {TEXT: str, "usage.prompt_tokens": 1}),
    "texts": (
        {"prompt": ["the", "dog"]},
        {"choices": lambda each: [choice["index"] for choice in each] == [0, 1]},
    ),
    "ids": ({"prompt": [300, 301]}, {"usage.prompt_tokens": 2}),
    "lists of ids": (
        {"prompt": [[300], [301, 302]]},
        {"choices": lambda each: len(each) == 2, "usage.prompt_tokens": 3},
    ),
    "ids and their text are answered alike": (
        {"prompt": ["the quick", "the quick"]},
        {"choices": lambda each: each[0]["text"] == each[1]["text"]},
    ),
    "sixteen tokens by default": (
        {"prompt": "the", "max_tokens": None, "logit_bias": {"7": -100, "2": -100}},
        {"usage.completion_tokens": 16, "choices.0.finish_reason": "length"},
    ),
    "choices of each prompt": (
        {"prompt": ["a", "b"], "n": 2, "temperature": 1, "seed": 3},
        {
            "choices": lambda each: [choice["index"] for choice in each] == [0, 1, 2, 3],
            "usage.prompt_tokens": 2,
        },
    ),
    "the best of several": (
        {"prompt": "a", "best_of": 4, "n": 2, "temperature": 1, "seed": 3},
        {
            "choices": lambda each: len(each) == 2,
            LOGPROBS: None,
            "usage.completion_tokens": lambda count: count > 8,
        },
    ),
    "an echo": ({"prompt": "the quick", "echo": True}, {TEXT: lambda t: t.startswith("the quick")}),
    "an echo of ids": (
        {"prompt": [300, 301], "echo": True, "max_tokens": 0},
        {TEXT: str, "usage.completion_tokens": 0, "choices.0.finish_reason": "length"},
    ),
    "nothing at all": ({"prompt": "the", "max_tokens": 0}, {TEXT: ""}),
    "an echo with its probabilities": (
        {"prompt": "the quick fox", "echo": True, "logprobs": 2, "max_tokens": 1},
        {
            f"{LOGPROBS}.token_logprobs.0": None,
            f"{LOGPROBS}.top_logprobs.0": None,
            f"{LOGPROBS}.top_logprobs.1": lambda top: 2 <= len(top) <= 3,
            f"{LOGPROBS}.text_offset.0": 0,
            LOGPROBS: lambda found: len({len(found[key]) for key in found}) == 1,
        },
    ),
    "a scored prompt": (
        {"prompt": [[300, 301, 302]], "echo": True, "logprobs": 1, "max_tokens": 0},
        {f"{LOGPROBS}.tokens": lambda tokens: len(tokens) == 3},
    ),
    "a prompt of one token scored": (
        {"prompt": [300], "echo": True, "logprobs": 1, "max_tokens": 0},
        {f"{LOGPROBS}.token_logprobs": [None]},
    ),
    "probabilities": (
        {"prompt": "the", "logprobs": 0},
        {
            f"{LOGPROBS}.top_logprobs.0": lambda top: len(top) == 1,
            f"{LOGPROBS}.text_offset.0": 3,
        },
    ),
    "a bias": (
        {"prompt": "the", "logit_bias": {"300": 100}, "logprobs": 1},
        {f"{LOGPROBS}.tokens": lambda tokens: len(set(tokens)) == 1},
    ),
    "top_k": ({"prompt": "the", "temperature": 1, "top_k": 1, "min_p": 0.5}, {TEXT: str}),
}


@pytest.mark.parametrize("case", COMPLETIONS)
def test_completions(live: Service, model: str, case: str) -> None:
    body, expected = COMPLETIONS[case]
    body = {"model": model, "max_tokens": 4, "temperature": 0} | body
    answer = live.http.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    hold(answer.json(), expected)


@pytest.mark.parametrize("case", sorted(COMPLETIONS.keys() - {"the best of several"}))
def test_a_streamed_completion_is_the_whole_one(live: Service, model: str, case: str) -> None:
    body = {"model": model, "max_tokens": 4, "temperature": 0} | COMPLETIONS[case][0]
    whole = live.http.post("/v1/completions", json=body).json()
    options = {"stream": True, "stream_options": {"include_usage": True}}
    lines = live.http.post("/v1/completions", json=body | options).text.strip().split("\n\n")
    assert lines.pop() == "data: [DONE]"
    *chunks, last = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert last["usage"] == whole["usage"]
    for choice in whole["choices"]:
        pieces = [each["choices"][0] for each in chunks if each["choices"]]
        pieces = [each for each in pieces if each["index"] == choice["index"]]
        assert "".join(each["text"] for each in pieces) == choice["text"]
        assert pieces[-1]["finish_reason"] == choice["finish_reason"]
        if choice["logprobs"] is not None:
            for key, values in choice["logprobs"].items():
                joined = [
                    value for each in pieces for value in (each["logprobs"] or {key: []})[key]
                ]
                assert joined == pytest.approx(values, abs=1e-4) if "log" not in key else True


REFUSED_COMPLETIONS: dict[str, tuple[Body, Expected]] = {
    "a suffix": ({"suffix": "end"}, {"param": "suffix", "code": "unsupported_value"}),
    "fewer than n": ({"n": 3, "best_of": 2}, {"param": "best_of"}),
    "the best, streamed": ({"best_of": 2, "stream": True}, {"param": "best_of"}),
    "too many best": ({"best_of": 21}, {"param": "best_of"}),
    "too many probabilities": ({"logprobs": 6}, {"param": "logprobs"}),
    "no prompts": ({"prompt": []}, {"param": "prompt", "code": "empty_array"}),
    "no ids": ({"prompt": [[300], []]}, {"param": "prompt[1]"}),
    "a mixture": ({"prompt": ["a", 3]}, {"param": lambda param: param.startswith("prompt")}),
    "an object": ({"prompt": {"a": 1}}, {"param": "prompt"}),
    "an id beyond the vocabulary": ({"prompt": [512]}, {"param": "prompt"}),
    "a negative id": ({"prompt": [[3], [-1]]}, {"param": "prompt[1]"}),
    "too long a prompt": ({"prompt": [5] * 2048}, {"code": "context_length_exceeded"}),
    "too long an answer": ({"prompt": "a", "max_tokens": 2048}, {"param": "prompt"}),
    "a negative length": ({"prompt": "a", "max_tokens": -1}, {"param": "max_tokens"}),
    "five stops": ({"prompt": "a", "stop": list("abcde")}, {"param": "stop"}),
    "options without a stream": ({"stream_options": {}}, {"param": "stream_options"}),
    "a bias of no token": ({"logit_bias": {"512": 1}}, {"param": "logit_bias"}),
}


@pytest.mark.parametrize("case", REFUSED_COMPLETIONS)
def test_completions_that_are_refused(live: Service, model: str, case: str) -> None:
    given, expected = REFUSED_COMPLETIONS[case]
    answer = live.http.post("/v1/completions", json={"model": model, "prompt": "a"} | given)
    assert answer.status_code == 400, answer.text
    hold(answer.json()["error"], {"type": "invalid_request_error"} | expected)


def numbers(text: str) -> list[float]:
    data = base64.b64decode(text)
    return list(struct.unpack(f"<{len(data) // 4}f", data))


EMBEDDINGS: dict[str, tuple[Body, Expected]] = {
    "a text": (
        {"input": "the quick"},
        {"object": "list", "data.0.object": "embedding", "data.0.embedding": list},
    ),
    "texts": ({"input": ["the", "dog"]}, {"data": lambda each: len(each) == 2}),
    "ids": ({"input": [300, 301]}, {"usage": {"prompt_tokens": 2, "total_tokens": 2}}),
    "lists of ids": ({"input": [[300], [301, 302]]}, {"usage.prompt_tokens": 3}),
    "many texts": ({"input": ["the"] * 130}, {"data": lambda each: len(each) == 130}),
    "Base64": (
        {"input": "the", "encoding_format": "base64"},
        {"data.0.embedding": lambda text: abs(sum(x * x for x in numbers(text)) - 1) < 1e-4},
    ),
    "fewer dimensions": (
        {"input": "the", "dimensions": 5},
        {
            "data.0.embedding": lambda each: (
                len(each) == 5 and abs(sum(x * x for x in each) - 1) < 1e-4
            )
        },
    ),
}


@pytest.mark.parametrize("case", EMBEDDINGS)
def test_embeddings(live: Service, model: str, engine_name: str, case: str) -> None:
    body, expected = EMBEDDINGS[case]
    answer = live.http.post("/v1/embeddings", json={"model": model} | body)
    if engine_name == "vllm":
        assert answer.status_code == 400
        assert "no embeddings" in answer.json()["error"]["message"]
        return
    assert answer.status_code == 200, answer.text
    hold(answer.json(), expected)


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": [[]]}, "input[0]"),
        ({"input": [512]}, "input"),
        ({"input": [5] * 2049}, "input"),
        ({"input": "a", "dimensions": 1000}, "dimensions"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
        ({"input": None}, "input"),
        ({"input": ["a"] * 2049}, "input"),
    ],
)
def test_embeddings_that_are_refused(live: Service, model: str, given: Body, param: str) -> None:
    answer = live.http.post("/v1/embeddings", json={"model": model} | given)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param


def test_tokens_and_texts(live: Service, model: str) -> None:
    text = "the quick \u00e4\u6771"
    tokens = live.http.post("/tokenize", json={"model": model, "prompt": text}).json()
    assert tokens["count"] == len(tokens["tokens"])
    assert tokens["max_model_len"] == 2048
    back = live.http.post("/detokenize", json={"model": model, "tokens": tokens["tokens"]}).json()
    assert back == {"prompt": text}
    chat = {"model": model, "messages": SAY, "tools": TOOLS, "return_token_strs": True}
    shown = live.http.post("/tokenize", json=chat).json()
    assert shown["token_strs"][-1] == "<|assistant|>"
    info = live.http.get("/tokenizer_info", params={"model": model}).json()
    assert info["eos_token"] == "<|eos|>"
    assert "chat_template" in info


@pytest.mark.parametrize(
    ("path", "given", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "a", "messages": SAY}, "prompt"),
        ("/tokenize", {"messages": [{"role": "king"}]}, "messages[0].role"),
        ("/tokenize", {"messages": SAY, "continue_final_message": True}, "continue_final_message"),
        ("/detokenize", {"tokens": [512]}, "tokens[0]"),
        ("/detokenize", {"tokens": ["a"]}, "tokens[0]"),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"model": None, "tokens": []}, "model"),
    ],
)
def test_tokens_that_are_refused(
    live: Service, model: str, path: str, given: Body, param: str
) -> None:
    answer = live.http.post(path, json={"model": model} | given)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param


def test_a_deleted_model_leaves_the_engine(
    live: Service, engine: Engine, adapters: list[AdapterRef], model: str
) -> None:
    [answer] = engine.ask(engine.request(adapter=adapters[0], stop_ids=frozenset()))
    assert answer.error is None
    said = {"messages": [*SAY, {"role": "assistant", "content": "jumps"}]}
    rows = (json.dumps(said) + "\n").encode() * 10
    file = live.client.files.create(file=rows, purpose="fine-tune")
    job = live.client.fine_tuning.jobs.create(model=model, training_file=file.id)
    name, sha256 = f"ft:{model}:personal::gone", adapters[0].sha256
    row = ModelRow(name, "proj_default", "tuned", model, model, sha256, job.id, 1, "personal")
    with live.db.write() as conn:
        models.insert(conn, row)
    assert name in live.http.get("/v1/tunesmith/status").json()["engine"]["loaded"]
    assert live.client.models.delete(name).deleted
    stats = asyncio.run(engine.client.stats())
    assert sha256 not in [held["sha256"] for base in stats["bases"] for held in base["adapters"]]
