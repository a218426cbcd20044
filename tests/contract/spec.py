"""Holds answers to the published schemas. `openai.json` is cut from the published file."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

SOURCE = Path(__file__).parent / "openai.json"
URI = "urn:openai"

# Where the file is known to disagree with the hosted service, which is what clients expect:
# (last key of the place, keyword that fails) -> the values that are right all the same.
ALLOWED: dict[tuple[str, str], tuple[Any, ...]] = {
    # The pause example of the same file shows it; clients accept any string.
    ("status", "enum"): ("paused",),
    # The service sends null where the method is not supervised.
    ("hyperparameters", "type"): (None,),
    # Empty lists have no first and last.
    ("first_id", "type"): (None,),
    ("last_id", "type"): (None,),
    # Accepted at upload by the same file, missing from the file object.
    ("purpose", "enum"): ("evals",),
    # The chunks of a legacy stream share the schema of the whole answer; only the last has one.
    ("finish_reason", "enum"): (None,),
    ("finish_reason", "type"): (None,),
}
STREAM_CHUNKS = {
    "chat.completion.chunk": "#/components/schemas/CreateChatCompletionStreamResponse",
    "text_completion": "#/components/schemas/CreateCompletionResponse",
}
ERROR = "#/components/schemas/ErrorResponse"
# Answers outside the published API, and the bodies that are no JSON.
OURS = re.compile(
    r"/(healthz|readyz|metrics|tokenize|detokenize|tokenizer_info)|/v1/files/[^/]+/content|/v1/tunesmith/.+|/v1/webhook_.+"
    r"|/v1/organization/audit_logs"
)


@cache
def document() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(SOURCE.read_text())
    return loaded


@cache
def validator(pointer: str) -> Draft202012Validator:
    resource = Resource.from_contents(document(), default_specification=DRAFT202012)
    registry: Registry[Any] = Registry().with_resource(URI, resource)
    return Draft202012Validator({"$ref": URI + pointer}, registry=registry)


@cache
def templates() -> list[tuple[re.Pattern[str], str]]:
    """Patterns of the published paths, the plainest first."""
    paths = sorted(document()["paths"], key=lambda path: path.count("{"))
    return [
        (re.compile("/v1" + re.sub(r"\{model\}", ".+", re.sub(r"\{(?!model).*?\}", "[^/]+", p))), p)
        for p in paths
    ]


def operation(method: str, path: str) -> str | None:
    """Pointer to the schema of a success, or None for what is not published."""
    for pattern, template in templates():
        if pattern.fullmatch(path) and method.lower() in document()["paths"][template]:
            escaped = template.replace("~", "~0").replace("/", "~1").replace("{", "%7B")
            escaped = escaped.replace("}", "%7D")
            return (
                f"#/paths/{escaped}/{method.lower()}/responses/200/content/application~1json/schema"
            )
    return None


def problems(pointer: str, value: Any) -> list[str]:
    """What is wrong with a value, leaving out the known disagreements."""
    return [
        f"{'/'.join(map(str, error.absolute_path))}: {error.message}"
        for error in validator(pointer).iter_errors(value)
        if not is_allowed(error)
    ]


def is_allowed(error: Any) -> bool:
    key = str(error.absolute_path[-1]) if error.absolute_path else ""
    if key == "logprobs" and isinstance(error.instance, dict):
        # An echoed prompt's first token has no probability: null, as the service has it.
        return None not in error.instance["token_logprobs"][1:]
    if key == "embedding" and isinstance(error.instance, str):
        return True  # Base64, which clients ask for unless told otherwise
    return error.instance in ALLOWED.get((key, str(error.validator)), ())


def check(method: str, path: str, status: int, headers: dict[str, str], body: bytes) -> None:
    """Fails with a list of faults if an answer is not as published."""
    assert status not in (409, 422), f"{method} {path} answered {status}"
    assert headers["x-request-id"].startswith("req_")
    assert int(headers["openai-processing-ms"]) >= 1
    assert headers["openai-organization"]
    if status >= 400 and path != "/readyz":
        assert problems(ERROR, json.loads(body)) == []
    elif headers.get("content-type", "").startswith("text/event-stream"):
        check_stream(body)
    elif status == 200 and not OURS.fullmatch(path):
        pointer = operation(method, path)
        assert pointer is not None, f"{method} {path} is not published"
        assert problems(pointer, json.loads(body)) == []


def check_stream(body: bytes) -> None:
    events = body.decode().removesuffix("\n\n").split("\n\n")
    assert all(event.startswith("data: ") for event in events)
    for event in events:
        data = event.removeprefix("data: ")
        if data != "[DONE]":
            chunk = json.loads(data)
            pointer = ERROR if "error" in chunk else STREAM_CHUNKS[chunk["object"]]
            assert problems(pointer, chunk) == []
