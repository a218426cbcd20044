"""Frozen dataclasses to and from JSON, strictly.

An unknown key, a missing key or a value of another type is an error that names the place, so that
two versions of the program that disagree about a file notice it at the first line.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from tunesmith.errors import TunesmithError

Record = TypeVar("Record")


class RecordError(TunesmithError):
    """A file of the job's directory does not hold what it should."""


def to_json(record: Any) -> bytes:
    """One line of JSON without a newline; non-finite numbers are refused."""
    return json.dumps(_plain(record), ensure_ascii=False, allow_nan=False).encode()


def from_json(kind: type[Record], text: bytes) -> Record:
    """Reads what `to_json` wrote. Raises RecordError."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{kind.__name__}: not JSON ({error}).") from error
    return typing.cast(Record, _typed(kind, value, kind.__name__))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        fields = dataclasses.fields(value)
        return {field.name: _plain(getattr(value, field.name)) for field in fields}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _typed(hint: Any, value: Any, place: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return _one_of(typing.get_args(hint), value, place)
    if hint is Any:
        return value
    if origin in (list, tuple) and isinstance(value, list):
        item = typing.get_args(hint)[0]
        items = [_typed(item, entry, f"{place}[{i}]") for i, entry in enumerate(value)]
        return origin(items)
    if origin is dict and isinstance(value, dict):
        item = typing.get_args(hint)[1]
        return {key: _typed(item, entry, f"{place}.{key}") for key, entry in value.items()}
    if origin is typing.Literal and value in typing.get_args(hint):
        return value
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return _record(typing.cast(type, hint), value, place)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float and type(value) is int:
        return float(value)
    if isinstance(hint, type) and type(value) is hint:
        return value
    raise RecordError(f"{place}: expected {_name(hint)}, found {str(value)[:80]!r}.")


def _one_of(hints: tuple[Any, ...], value: Any, place: str) -> Any:
    if value is None and type(None) in hints:
        return None
    options = [hint for hint in hints if hint is not type(None)]
    for option in options[:-1]:
        try:
            return _typed(option, value, place)
        except RecordError:
            continue
    return _typed(options[-1], value, place)


def _record(kind: type, value: dict[str, Any], place: str) -> Any:
    fields = {field.name: field for field in dataclasses.fields(kind)}
    unknown = sorted(value.keys() - fields.keys())
    if unknown:
        raise RecordError(f"{place}: unknown key {unknown[0]!r}.")
    for name, field in fields.items():
        required = (
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        )
        if required and name not in value:
            raise RecordError(f"{place}: key {name!r} is missing.")
    hints = _hints(kind)
    return kind(**{key: _typed(hints[key], item, f"{place}.{key}") for key, item in value.items()})


def _name(hint: Any) -> str:
    return getattr(hint, "__name__", None) or str(hint)
