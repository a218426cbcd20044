"""What the checks look at in a row, taken out once and leniently, whatever the row holds."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

SYSTEM_ROLES = ("system", "developer")
# Punctuation becomes a space; not signs that carry meaning in code and mathematics.
NOISE = str.maketrans(dict.fromkeys(".,;:!?\"'`\u2018\u2019\u201c\u201d\u2026", " "))
MAX_TEXT_CHARS = 1 << 18
# Unicode puts the marks of a letter in order, which costs the square of their number: a text is
# normalised in parts, cut between words where there are any.
PARTS = re.compile(r"(?s).{1,1000}(?=\s|\Z)|.{1,1000}")


@dataclass(frozen=True)
class View:
    """One row's texts."""

    system: str
    """All system and developer messages."""
    prompt: str
    """The conversation before the last answer, roles included, without the system messages."""
    asked: str
    """The last user message."""
    answer: str
    """The last assistant message; the preferred answer; the completion."""
    rejected: str
    """The answer that is not preferred; empty elsewhere."""
    num_messages: int
    has_system: bool
    has_user: bool
    has_calls: bool
    """Whether the answer calls tools."""
    texts: tuple[str, ...]
    """Every text a person may have written, in order."""
    answer_weight: bool = True


def view(value: Any, kind: str) -> View | None:
    """None where there is nothing to look at."""
    if not isinstance(value, dict):
        return None
    if kind == "completions":
        prompt, answer = _text(value.get("prompt")), _text(value.get("completion"))
        return View("", prompt, prompt, answer, "", 2, False, True, False, (prompt, answer))
    if kind == "preference":
        return _preference(value)
    if kind == "evals":
        item = value.get("item")
        texts = tuple(_strings(item)) if isinstance(item, dict) else ()
        whole = "\n".join(texts)
        return View("", whole, "", "", "", 0, False, True, False, texts)
    messages = value.get("messages")
    return _chat(messages) if isinstance(messages, list) else None


def _preference(value: dict[str, Any]) -> View:
    source = value.get("input")
    messages = source.get("messages") if isinstance(source, dict) else source
    base = _chat(messages if isinstance(messages, list) else [])
    good, bad = (_output(value.get(key)) for key in ("preferred_output", "non_preferred_output"))
    prompt = f"{base.prompt}\nassistant: {base.answer}" if base.answer else base.prompt
    return View(
        base.system,
        prompt,
        base.asked,
        good,
        bad,
        base.num_messages + 1,
        base.has_system,
        base.has_user,
        False,
        (*base.texts, good, bad),
    )


def _output(value: Any) -> str:
    return "\n".join(_text(each.get("content")) for each in dicts(value))


def _chat(messages: list[Any]) -> View:
    found = dicts(messages)
    roles = [each.get("role") for each in found]
    texts = [_text(each.get("content")) for each in found]
    last = max((at for at, role in enumerate(roles) if role == "assistant"), default=len(found))
    system, before, asked = [], [], ""
    for at, (role, text) in enumerate(zip(roles, texts, strict=True)):
        if role in SYSTEM_ROLES:
            system.append(text)
        elif at < last:
            before.append(f"{role}: {text}")
        if role == "user":
            asked = text
    answer = found[last] if last < len(found) else {}
    calls = answer.get("tool_calls") or answer.get("function_call")
    said = texts[last] if last < len(found) else ""
    if calls:
        said += "\n".join(_strings(calls))
    return View(
        "\n".join(system),
        "\n".join(before),
        asked,
        said,
        "",
        len(messages),
        bool(system),
        "user" in roles,
        bool(calls),
        tuple(text for text in texts if text),
        answer.get("weight") != 0,
    )


def dicts(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = (part.get("text") for part in dicts(content))
    return "\n".join(part for part in parts if isinstance(part, str))


def _strings(value: Any) -> Iterator[str]:
    """Every string in a value; its depth is bounded by the parser."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def normal(text: str) -> str:
    """The text without case, punctuation and spacing: what a reader takes for the same."""
    text = text[:MAX_TEXT_CHARS]
    if not text.isascii():
        parts = PARTS.findall(text)
        text = "".join(unicodedata.normalize("NFKC", part) for part in parts)
    return " ".join(text.lower().translate(NOISE).split())
