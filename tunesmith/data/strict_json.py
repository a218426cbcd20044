"""JSON without what breaks later: no NaN, no endless numbers, no abyss of brackets, no half
characters."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

MAX_DEPTH = 32
# The longest exact integer or float anybody writes; int() itself refuses 4,300 digits.
MAX_NUMBER_CHARS = 400
# A string (also one that never ends), an opening or a closing bracket. Possessive: never goes back.
STRUCTURE = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class JsonError(ValueError):
    """Why a text is refused, in the words of the `json` module where it has some."""


def loads(text: str, max_depth: int = MAX_DEPTH, duplicates: list[str] | None = None) -> Any:
    """Parses, or raises JsonError; the cost is linear in the text, whatever it holds.

    Keys that are there twice in one object are added to `duplicates`; the last value counts.
    """
    if exceeds_depth(text, max_depth):
        raise JsonError(f"nested deeper than {max_depth} levels")
    try:
        value = (_decoder if duplicates is None else _noting(duplicates)).decode(text)
    except json.JSONDecodeError as error:
        raise JsonError(str(error)) from None
    if SURROGATE.search(text):
        _refuse_half_characters(value)
    return value


def exceeds_depth(text: str, max_depth: int) -> bool:
    if text.count("[") + text.count("{") <= max_depth:
        return False
    depth = 0
    for found in STRUCTURE.finditer(text):
        char = found[0][0]
        if char in "[{":
            depth += 1
            if depth > max_depth:
                return True
        elif char != '"':
            depth -= 1
    return False


def _refuse_half_characters(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        code = ord(error.object[error.start])
        raise JsonError(f"half a character (lone surrogate U+{code:04X})") from None


def _integer(digits: str) -> int:
    _refuse_long(digits)
    return int(digits)


def _float(digits: str) -> float:
    _refuse_long(digits)
    number = float(digits)
    if not math.isfinite(number):
        raise JsonError(f"the number {digits} is out of range")
    return number


def _refuse_long(digits: str) -> None:
    if len(digits) > MAX_NUMBER_CHARS:
        raise JsonError(f"a number of {len(digits)} characters; at most {MAX_NUMBER_CHARS}")


def _refuse_constant(name: str) -> NoReturn:
    raise JsonError(f"{name} is not JSON")


def _noting(duplicates: list[str]) -> json.JSONDecoder:
    def read(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) < len(pairs):
            seen: set[str] = set()
            for key, _ in pairs:
                if key in seen:
                    duplicates.append(key)
                seen.add(key)
        return value

    return json.JSONDecoder(**NUMBERS, object_pairs_hook=read)


NUMBERS: dict[str, Any] = {
    "parse_int": _integer,
    "parse_float": _float,
    "parse_constant": _refuse_constant,
}
_decoder = json.JSONDecoder(**NUMBERS)
