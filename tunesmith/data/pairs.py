"""Two more sources of rows: preference pairs as Hugging Face has them, and stored completions."""

from __future__ import annotations

import re
from typing import Any

from tunesmith.data.shapes import Options, Record, ShapeError, chat_row

# How the helpful/harmless sets write a conversation in one text.
TURN = re.compile(r"(?:^|\n\n)(Human|Assistant): ?")


def read_preference(record: Record, options: Options) -> list[Record]:
    """{prompt, chosen, rejected} as texts, messages, or whole conversations that begin alike."""
    chosen, rejected = (_messages(record[key]) for key in ("chosen", "rejected"))
    prompt = record.get("prompt")
    before = (
        (_messages(prompt) if isinstance(prompt, list) else [{"role": "user", "content": prompt}])
        if prompt
        else []
    )
    if before and chosen[: len(before)] == before:
        before = []
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    before = [*before, *chosen[:shared]]
    answers = [each[shared:] for each in (chosen, rejected)]
    if not before or any(
        len(answer) != 1 or answer[0].get("role") != "assistant" for answer in answers
    ):
        raise ShapeError("chosen and rejected differ in more than the last answer")
    messages = chat_row(before, options)["messages"]
    return [
        {
            "input": {"messages": messages},
            "preferred_output": answers[0],
            "non_preferred_output": answers[1],
        }
    ]


def _messages(value: Any) -> list[Record]:
    if isinstance(value, list):
        return value
    if not isinstance(value, str):
        raise ShapeError("chosen and rejected must be texts or messages")
    parts = TURN.split(value)
    if len(parts) < 3:
        return [{"role": "assistant", "content": value}]
    names = {"Human": "user", "Assistant": "assistant"}
    return [
        {"role": names[name], "content": text.strip()}
        for name, text in zip(parts[1::2], parts[2::2], strict=True)
    ]


def read_stored(record: Record, options: Options) -> list[Record]:
    """A stored completion with its input beside it: one chat row for each choice that ended."""
    request, response = _request_and_response(record)
    messages = request.get("messages") or request.get("input_messages") or request.get("input")
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    if not isinstance(messages, list) or not messages:
        raise ShapeError("the export holds no input messages; export it with its messages")
    rows = []
    for choice in response:
        if choice.get("finish_reason") in ("length", "content_filter"):
            continue
        message = {k: v for k, v in choice.get("message", {}).items() if v or k == "content"}
        answer = {
            k: message[k] for k in ("role", "content", "tool_calls", "refusal") if k in message
        }
        prompt = [
            {k: v for k, v in each.items() if v is not None and k not in ("id", "content_parts")}
            for each in messages
        ]
        rows.append(chat_row([*prompt, {"role": "assistant", **answer}], options, request))
    return rows


def _request_and_response(record: Record) -> tuple[Record, list[Record]]:
    if isinstance(record.get("item"), dict) and isinstance(record.get("sample"), dict):
        text = record["sample"].get("output_text")
        return record["item"], [{"message": {"role": "assistant", "content": text}}]
    response = record.get("response", record)
    response = response.get("body", response) if isinstance(response, dict) else {}
    choices = response.get("choices")
    if not isinstance(choices, list):
        raise ShapeError("the response has no choices")
    request = record.get("request", record)
    request = request.get("body", request) if isinstance(request, dict) else {}
    return request, choices


def keep_preference(record: Record, options: Options) -> list[Record]:
    return [record]


def write_hf_preference(row: Record, options: Options) -> Record:
    if "preferred_output" not in row:
        raise ShapeError("no preferred and rejected answer")
    return {
        "prompt": row["input"]["messages"],
        "chosen": row["preferred_output"],
        "rejected": row["non_preferred_output"],
    }
