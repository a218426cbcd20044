"""Keys of a config.json, read strictly: a wrong value is an error that names its key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.errors import BaseModelError


class NotOursError(Exception):
    """A config that the decoder does not compute exactly as transformers does."""


def count(config: Mapping[str, Any], key: str, default: int | None = None) -> int:
    """A positive integer. Raises BaseModelError."""
    value = _given(config, key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise BaseModelError(f"config.json: {key} is {value!r}; it must be a positive integer.")
    return value


def number(config: Mapping[str, Any], key: str, default: float | None = None) -> float:
    """A positive number. Raises BaseModelError."""
    value = _given(config, key, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e12:
        raise BaseModelError(f"config.json: {key} is {value!r}; it must be a positive number.")
    return float(value)


def numbers(config: Mapping[str, Any], key: str) -> tuple[float, ...]:
    """A list of positive numbers. Raises BaseModelError."""
    values = _given(config, key, None)
    if not isinstance(values, list):
        raise BaseModelError(f"config.json: {key} must be a list of numbers.")
    return tuple(number({key: value}, key) for value in values)


def _given(config: Mapping[str, Any], key: str, default: float | None) -> Any:
    value = config.get(key)
    value = default if value is None else value
    if value is None:
        raise BaseModelError(f"config.json lacks {key}. Copy the whole model directory again.")
    return value
