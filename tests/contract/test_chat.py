"""/v1/chat/completions through the official client, on a real engine with a tiny random model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pytest
from starlette.testclient import TestClient

from tests.service import ROW, Service, make_service, reopened
from tunesmith.access import DEFAULT_PROJECT
from tunesmith.ids import SystemClock, SystemRng
from tunesmith.organization import Organization
from tunesmith.store.repo import keys, models
from tunesmith.store.repo.models import ModelRow

CHAT = "/v1/chat/completions"
SAY_HI: list[Any] = [{"role": "user", "content": "the quick brown fox"}]
ZEROS = {"cached_tokens": 0, "audio_tokens": 0}


def ask(live: Service, **given: Any) -> Any:
    given = {"model": "tiny", "messages": SAY_HI, "max_tokens": 12, "temperature": 0} | given
    return live.client.chat.completions.create(**given)


def refused(live: Service, **given: Any) -> dict[str, Any]:
    body = {"model": "tiny", "messages": SAY_HI} | given
    answer = live.http.post(CHAT, json=body)
    assert answer.status_code == 400, answer.text
    error: dict[str, Any] = answer.json()["error"]
    return error


def text_of(chunks: list[Any], index: int = 0) -> str:
    deltas = [choice for chunk in chunks for choice in chunk.choices if choice.index == index]
    return "".join(choice.delta.content or "" for choice in deltas)


def test_an_answer_is_as_published(live: Service) -> None:
    answer = ask(live)
    assert answer.id.startswith("chatcmpl-")
    assert answer._request_id.startswith("req_")
    assert (answer.object, answer.model) == ("chat.completion", "tiny")
    assert answer.system_fingerprint.startswith("fp_")
    [choice] = answer.choices
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert (choice.message.refusal, choice.logprobs) == (None, None)
    assert choice.finish_reason in ("stop", "length")
    usage = answer.usage
    assert 0 < usage.completion_tokens <= 12
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert (
        usage.prompt_tokens_details.model_dump() == ZEROS | usage.prompt_tokens_details.model_dump()
    )
    assert usage.completion_tokens_details.reasoning_tokens == 0


def test_the_keys_that_must_be_there_are_there(live: Service) -> None:
    body = live.http.post(CHAT, json={"model": "tiny", "messages": SAY_HI, "max_tokens": 2}).json()
    assert body["choices"][0]["logprobs"] is None
    assert body["choices"][0]["message"]["refusal"] is None


def test_an_alias_answers_under_the_name_that_was_asked_for(live: Service) -> None:
    answer = ask(live, model="gpt-3.5-turbo")
    assert answer.model == "gpt-3.5-turbo"
    assert answer.choices == ask(live).choices


def test_the_limit_of_tokens_holds_under_both_names(live: Service) -> None:
    for limit in ({"max_tokens": 3}, {"max_tokens": None, "max_completion_tokens": 3}):
        answer = ask(live, **limit)
        assert answer.usage.completion_tokens == 3
        assert answer.choices[0].finish_reason == "length"


@pytest.mark.parametrize("usage", [True, False, None])
def test_a_stream_holds_what_the_whole_answer_holds(live: Service, usage: bool | None) -> None:
    options = {} if usage is None else {"stream_options": {"include_usage": usage}}
    chunks = list(ask(live, stream=True, **options))
    whole = ask(live)
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[0].choices[0].delta.content == ""
    assert text_of(chunks) == whole.choices[0].message.content
    if usage:
        last = chunks.pop()
        assert last.choices == []
        assert last.usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks)
    assert chunks[-1].choices[0].delta.model_dump(exclude_none=True) == {}
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert all(chunk.choices[0].finish_reason is None for chunk in chunks[:-1])


def test_usage_is_a_key_of_chunks_only_if_asked_for(live: Service) -> None:
    body = {"model": "tiny", "messages": SAY_HI, "max_tokens": 2, "stream": True}
    for options in (None, {"include_usage": True}):
        answer = live.http.post(CHAT, json=body | {"stream_options": options})
        events = answer.text.strip().split("\n\n")
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert events[-1] == "data: [DONE]"
        for event in events[:-1]:
            assert ("usage" in json.loads(event.removeprefix("data: "))) == bool(options)


def test_several_choices_come_apart(live: Service) -> None:
    whole = ask(live, n=3, temperature=1, seed=5)
    texts = [choice.message.content for choice in whole.choices]
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    assert len(set(texts)) > 1
    chunks = list(ask(live, n=3, temperature=1, seed=5, stream=True))
    assert [text_of(chunks, index) for index in range(3)] == texts


def test_a_seed_repeats_and_another_does_not(live: Service) -> None:
    first, again, other = (
        ask(live, temperature=1, seed=seed).choices[0].message.content for seed in (1, 1, 2)
    )
    assert first == again != other


def test_a_fingerprint_names_what_computes(live: Service) -> None:
    other = [{"engine_int8": True}, {"engine": "vllm"}, {"device": "cuda"}]
    services = [live, reopened(live), *(reopened(live, **each) for each in other)]
    first, again, *different = (ask(each, max_tokens=1).system_fingerprint for each in services)
    assert first == again
    assert len({first, *different}) == 4


@pytest.mark.parametrize("stream", [True, False])
def test_stop_strings_cut_the_text(live: Service, stream: bool) -> None:
    text = ask(live, max_tokens=24).choices[0].message.content
    stop = text[5:8]
    expected = text[: text.index(stop)]
    if stream:
        chunks = list(ask(live, max_tokens=24, stop=[stop, "never"], stream=True))
        assert text_of(chunks) == expected
        assert chunks[-1].choices[0].finish_reason == "stop"
    else:
        answer = ask(live, max_tokens=24, stop=stop)
        assert answer.choices[0].message.content == expected
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage.completion_tokens < 24


@pytest.mark.parametrize("stream", [True, False])
def test_logprobs_describe_every_token(live: Service, stream: bool) -> None:
    answer = ask(live, logprobs=True, top_logprobs=3, stream=stream)
    if stream:
        chunks = list(answer)
        tokens = [
            token
            for chunk in chunks
            if chunk.choices[0].logprobs
            for token in chunk.choices[0].logprobs.content
        ]
        text = text_of(chunks)
    else:
        [choice] = answer.choices
        tokens, text = choice.logprobs.content, choice.message.content
        assert len(tokens) == answer.usage.completion_tokens
    assert b"".join(bytes(token.bytes) for token in tokens).decode(errors="replace") == text
    for token in tokens:
        assert token.logprob <= 0
        assert len(token.top_logprobs) == 3
        assert token.top_logprobs[0].logprob == pytest.approx(token.logprob)  # greedy


def test_a_bias_forces_and_forbids_tokens(live: Service) -> None:
    answer = ask(live, logit_bias={"100": 100}, max_tokens=4, logprobs=True)
    tokens = [token.token for token in answer.choices[0].logprobs.content]
    assert len(set(tokens)) == 1
    free = ask(live, max_tokens=1).choices[0].message.content
    assert free != tokens[0]


@pytest.mark.parametrize(
    "ignored",
    [
        {"user": "u", "metadata": {"a": "b"}, "store": False},
        {"service_tier": "auto", "prompt_cache_key": "k", "safety_identifier": "s"},
        {"modalities": ["text"], "response_format": {"type": "text"}, "tool_choice": "auto"},
        {"extra_body": {"verbosity": "low", "prediction": None, "of_the_future": 1}},
        {"parallel_tool_calls": True, "presence_penalty": 0, "frequency_penalty": 0, "n": 1},
    ],
)
def test_what_changes_nothing_is_taken(live: Service, ignored: dict[str, Any]) -> None:
    assert ask(live, **ignored).choices == ask(live).choices


@pytest.mark.parametrize(
    ("field", "value", "neutral"),
    [
        ("repetition_penalty", 1.1, 1.0),
        ("min_tokens", 5, 0),
        ("ignore_eos", True, False),
        ("stop_token_ids", [3], []),
        ("guided_choice", ["a", "b"], None),
        ("structured_outputs", {"regex": "a+"}, None),
        ("chat_template_kwargs", {"enable_thinking": False}, {}),
        ("continue_final_message", True, False),
        ("best_of", 2, 1),
        ("echo", True, False),
    ],
)
def test_what_would_change_an_answer_elsewhere_is_refused_by_name(
    live: Service, field: str, value: Any, neutral: Any
) -> None:
    assert refused(live, **{field: value})["param"] == field
    assert ask(live, extra_body={field: neutral}).choices == ask(live).choices


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("response_format", {"type": "json_object"}),
        ("max_completion_tokens", 3),
        ("top_logprobs", 2),
        ("repetition_penalty", 2),
        ("tools", [{"type": "function", "function": {"name": "a"}}]),
    ],
)
def test_completions_refuse_what_they_would_not_do(live: Service, field: str, value: Any) -> None:
    asked = {"model": "tiny", "prompt": "the quick", "max_tokens": 1}
    assert live.http.post("/v1/completions", json=asked).is_success
    answer = live.http.post("/v1/completions", json={**asked, field: value})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == field


@pytest.mark.parametrize(
    ("asked", "used"),
    [
        ("auto", "default"),
        ("default", "default"),
        ("scale", "default"),
        ("flex", "flex"),
        ("priority", "priority"),
        (None, "default"),
    ],
)
def test_an_answer_says_which_tier_served_it(live: Service, asked: Any, used: str) -> None:
    answer = ask(live, service_tier=asked)
    assert answer.service_tier == used
    assert answer.choices == ask(live).choices
    assert {chunk.service_tier for chunk in ask(live, service_tier=asked, stream=True)} == {used}


def test_usage_is_told_by_the_tier_that_served_it(live: Service) -> None:
    now = int(SystemClock().now())

    def requests() -> dict[str, int]:
        page = live.http.get(
            f"/v1/organization/usage/completions?start_time={now - 60}&end_time={now + 60}"
            "&bucket_width=1d&group_by=service_tier"
        ).json()
        results = [each for bucket in page["data"] for each in bucket["results"]]
        return {each["service_tier"]: each["num_model_requests"] for each in results}

    before = requests()
    ask(live, service_tier="flex")
    complete = {"model": "tiny", "prompt": "the quick", "max_tokens": 1}
    assert live.http.post("/v1/completions", json={**complete, "service_tier": "flex"}).is_success
    after = requests()
    assert after.pop("flex") == before.pop("flex", 0) + 2
    assert after == before


def test_a_tier_that_does_not_exist_is_refused(live: Service) -> None:
    assert refused(live, service_tier="express")["param"] == "service_tier"


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "text", "text": "the quick"}, {"type": "text", "text": "fox"}],
        "",
        "\u00e4\U0001f600",
    ],
)
def test_contents_in_every_form_are_answered(live: Service, content: Any) -> None:
    conversation = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": content},
        {"role": "assistant", "content": "dog"},
        {"role": "user", "content": "again"},
    ]
    assert ask(live, messages=conversation).choices[0].message.content is not None


def test_tools_are_shown_to_the_model(live: Service) -> None:
    function = {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}
    tools = [{"type": "function", "function": function}]
    plain = ask(live).usage.prompt_tokens
    assert ask(live, tools=tools).usage.prompt_tokens > plain
    assert ask(live, tools=tools, tool_choice="none").usage.prompt_tokens == plain
    old = ask(live, functions=[function], function_call="auto").usage.prompt_tokens
    assert old == ask(live, tools=tools).usage.prompt_tokens


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"top_p": 1.1}, "top_p"),
        ({"n": 17}, "n"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": [""]}, "stop"),
        ({"stop": ""}, "stop"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 1, "max_completion_tokens": 1}, "max_tokens"),
        ({"seed": 2**63}, "seed"),
        ({"top_logprobs": 1}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"presence_penalty": 2.5}, "presence_penalty"),
        ({"frequency_penalty": -2.5}, "frequency_penalty"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"512": 1}}, "logit_bias"),
        ({"logit_bias": {"9" * 5000: 1}}, "logit_bias"),
        ({"logit_bias": {"-1": 1}}, "logit_bias"),
        ({"store": True}, "store"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {}}, "response_format.type"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
        ({"function_call": {"name": "f"}}, "function_call"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"audio": {"voice": "x"}}, "audio"),
        ({"tools": [{}]}, "tools[0]"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [3]}, "messages[0]"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(
    live: Service, given: dict[str, Any], param: str
) -> None:
    assert refused(live, **given)["param"] == param


def test_a_prompt_beyond_the_context_is_refused_with_the_numbers(live: Service) -> None:
    long = [{"role": "user", "content": "x" * 3000}]
    error = refused(live, messages=long)
    assert error["code"] == "context_length_exceeded"
    assert error["param"] == "messages"
    assert "maximum context length is 2048 tokens" in error["message"]
    error = refused(live, max_tokens=2048)
    assert "2048 in the completion" in error["message"]


def test_an_unknown_model_is_not_found(live: Service) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        ask(live, model="ft:gpt-4o:org::AbCdEfGh")
    assert caught.value.code == "model_not_found"
    assert "does not exist or you do not have access to it" in str(caught.value)


def test_an_adapter_that_is_gone_is_an_error_and_not_another_model(live: Service) -> None:
    file = live.client.files.create(file=ROW * 12, purpose="fine-tune")
    job = live.client.fine_tuning.jobs.create(model="tiny", training_file=file.id)
    name = "ft:tiny:personal::AbCdEfGh"
    with live.db.write() as conn:
        models.insert(
            conn,
            ModelRow(
                name, DEFAULT_PROJECT, "tuned", "tiny", "tiny", "0" * 64, job.id, 1, "personal"
            ),
        )
    with pytest.raises(openai.InternalServerError):
        ask(live, model=name)


@pytest.mark.parametrize("stream", [True, False])
def test_without_an_engine_the_answer_is_503_and_when_to_try_again(
    tmp_path: Path, stream: bool
) -> None:
    service = make_service(tmp_path / "data")
    body = {"model": "gpt-4o-mini", "messages": SAY_HI, "stream": stream}
    answer = service.http.post(CHAT, json=body)
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["error"]["type"] == "server_error"


def test_readiness_and_metrics_see_the_engine(live: Service) -> None:
    ask(live)
    ready = live.anonymous().get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["checks"] == {"database": "ok", "engine": "ok"}
    text = live.http.get("/metrics").text
    assert 'tunesmith_chat_tokens_total{kind="completion"}' in text


def test_what_one_project_has_asked_makes_no_prompt_of_another_faster(live: Service) -> None:
    pepper = keys.load_pepper(live.settings.data_dir)
    org = Organization(live.db, SystemClock(), SystemRng(), pepper)
    _, secret = org.create_key(org.create_project("other").id, "x", "member")
    other = TestClient(live.app, headers={"authorization": f"Bearer {secret}"})
    message = {"role": "user", "content": "a secret that both of them know " * 8}
    body = {"model": "tiny", "messages": [message], "max_tokens": 2}

    def num_cached(http: TestClient) -> int:
        usage = http.post(CHAT, json=body).json()["usage"]
        return int(usage["prompt_tokens_details"]["cached_tokens"])

    assert num_cached(live.http) == 0
    assert num_cached(live.http) > 0
    assert num_cached(other) == 0
    assert num_cached(other) > 0
