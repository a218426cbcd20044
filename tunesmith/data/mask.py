"""Secrets and personal data in a row put out of sight, wherever they stand in it."""

from __future__ import annotations

from typing import Any

from tunesmith.data.checks.privacy import spans


def mask(value: Any, code: str) -> Any:
    """The value with a mark such as [E-MAIL ADDRESS] in place of each find of `code`."""
    if isinstance(value, str):
        parts, place = [], 0
        for span in spans(value):
            if span.code == code:
                parts += [value[place : span.start], f"[{span.kind.upper()}]"]
                place = span.end
        return "".join([*parts, value[place:]]) if parts else value
    if isinstance(value, dict):
        return {key: mask(item, code) for key, item in value.items()}
    return [mask(item, code) for item in value] if isinstance(value, list) else value
