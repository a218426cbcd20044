"""JSON schemas that answers can be held to: checked keyword by keyword, and made to end.

A schema that says more than can be enforced is refused with the keyword and its place, never
followed in part. What it leaves open is narrowed where that costs nothing anybody asked for:
objects hold only the properties they name, integers stay within 53 bits, dates and the like within
a line. Every answer in the narrowed language is valid under the schema as it was sent.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

Schema = dict[str, Any] | bool

TYPES = frozenset({"string", "number", "integer", "boolean", "object", "array", "null"})
# The most characters of each; their own rules allow fractions of seconds and names without end.
FORMATS = {
    "date": 10,
    "date-time": 36,
    "time": 24,
    "duration": 24,
    "email": 64,
    "hostname": 64,
    "ipv4": 15,
    "ipv6": 45,
    "uri": 256,
    "uuid": 36,
}
ANNOTATIONS = frozenset(
    {
        *("title", "description", "default", "example", "examples", "deprecated", "readOnly"),
        *("writeOnly", "discriminator", "contentEncoding", "contentMediaType"),
        *("$schema", "$id", "$comment"),
    }
)
ONE = frozenset({"additionalProperties", "items"})
LISTS = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions"})
COMBINING = frozenset({"anyOf", "oneOf", "allOf", "$ref"})
OF_OBJECTS = frozenset(
    {
        *("properties", "required", "additionalProperties", "patternProperties"),
        *("minProperties", "maxProperties"),
    }
)
LOWER = frozenset({"minimum", "exclusiveMinimum"})
UPPER = frozenset({"maximum", "exclusiveMaximum"})
# Look-around and references back, which no automaton can follow.
BEYOND_REGULAR = re.compile(r"\(\?(?:[=!]|<[=!]|P=)|\\[1-9]|\\k<")
MAX_INTEGER = 2**53 - 1
MAX_SCHEMA_NODES = 5000


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_types(value: Any) -> bool:
    names = value if isinstance(value, list) else [value]
    return bool(names) and all(isinstance(name, str) and name in TYPES for name in names)


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_regular(value: Any) -> bool:
    return isinstance(value, str) and not BEYOND_REGULAR.search(value)


# Keyword -> (what its value must be, in words, and as a test).
VALUES: dict[str, tuple[str, Callable[[Any], bool]]] = (
    {
        "type": (f"one of {', '.join(sorted(TYPES))}, or a list of them", _is_types),
        "enum": ("a list with at least one value", lambda value: isinstance(value, list) and value),
        "const": ("any value", lambda value: True),
        "required": ("a list of property names", _is_names),
        "pattern": ("a regular expression without look-around or back-references", _is_regular),
        "format": (
            f"one of {', '.join(sorted(FORMATS))}",
            lambda value: isinstance(value, str) and value in FORMATS,
        ),
        "$ref": (
            "a place in this schema, such as #/$defs/Item",
            lambda value: str(value)[:1] == "#",
        ),
        "multipleOf": ("a number above 0", lambda value: _is_number(value) and value > 0),
    }
    | dict.fromkeys((*LOWER, *UPPER), ("a number", _is_number))
    | {
        f"{bound}{what}": ("a whole number from 0 on", _is_count)
        for bound in ("min", "max")
        for what in ("Length", "Items", "Properties")
    }
)


class SchemaError(ValueError):
    """What cannot be enforced: a `keyword`, and the JSON pointer to the schema it is in."""

    def __init__(self, place: str, keyword: str | None, text: str) -> None:
        where = f" at '{place}'" if place else ""
        super().__init__(f"'{keyword}'{where} {text}" if keyword else f"The schema{where} {text}")
        self.place = place
        self.keyword = keyword


def enforceable(schema: Any, *, lenient: bool = False) -> Schema:
    """The schema as it can be enforced, narrowed as said above. Raises SchemaError.

    A `lenient` reading leaves out what cannot be enforced; for tools that did not ask for `strict`.
    """
    reader = _Reader(lenient)
    read = reader.read(schema, "")
    if read is False:
        raise SchemaError("", None, "allows nothing.")
    # Where schemas are added together, closing one of them could leave nothing.
    return read if reader.adds_up else _narrow(read)


class _Reader:
    def __init__(self, lenient: bool) -> None:
        self._lenient = lenient
        self._num_nodes = 0
        self.adds_up = False

    def read(self, schema: Any, place: str) -> Schema:
        self._num_nodes += 1
        if self._num_nodes > MAX_SCHEMA_NODES:
            raise SchemaError("", None, f"has more than {MAX_SCHEMA_NODES} parts.")
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            raise SchemaError(place, None, "must be an object or a boolean.")
        result: dict[str, Any] = {}
        for keyword, value in schema.items():
            if keyword in ANNOTATIONS or keyword.startswith("x-"):
                continue
            try:
                result[keyword] = self._value(keyword, value, place)
            except SchemaError as error:
                if not self._lenient or error.keyword != keyword or error.place != place:
                    raise
        self.adds_up |= "allOf" in result or ("$ref" in result and bool(OF_OBJECTS & result.keys()))
        return result

    def _value(self, keyword: str, value: Any, place: str) -> Any:
        inner = f"{place}/{keyword}"
        if keyword in ONE and not isinstance(value, list):
            return self.read(value, inner)
        if keyword in LISTS and isinstance(value, list) and value:
            return [self.read(each, f"{inner}/{number}") for number, each in enumerate(value)]
        if keyword in MAPS and isinstance(value, dict):
            return {
                name: self.read(each, f"{inner}/{name}".replace("~", "~0"))
                for name, each in value.items()
            }
        if keyword == "items":
            raise SchemaError(place, keyword, "must be a schema; a list of them is 'prefixItems'.")
        if keyword in ONE | LISTS | MAPS:
            raise SchemaError(place, keyword, "must hold schemas.")
        if keyword not in VALUES:
            raise SchemaError(place, keyword, "is not supported: answers cannot be held to it.")
        words, holds = VALUES[keyword]
        if not holds(value):
            raise SchemaError(place, keyword, f"must be {words}.")
        return value


def _narrow(schema: Schema, closes: bool = True) -> Schema:
    """`closes` says whether objects may be closed: not where more properties come from around."""
    if isinstance(schema, bool):
        return schema
    mixed = bool(COMBINING & schema.keys()) and bool(OF_OBJECTS & schema.keys())
    result: dict[str, Any] = {}
    for keyword, value in schema.items():
        if keyword in ONE:
            result[keyword] = _narrow(value)
        elif keyword in LISTS:
            inside = keyword == "prefixItems" or (closes and not mixed)
            result[keyword] = [_narrow(each, inside) for each in value]
        elif keyword in MAPS:
            result[keyword] = {name: _narrow(each) for name, each in value.items()}
        else:
            result[keyword] = value
    names = result.get("properties", {}).keys()
    plain = OF_OBJECTS & result.keys() <= {"properties", "required"}
    if (
        closes
        and not mixed
        and plain
        and "properties" in result
        and names >= set(result.get("required", ()))
    ):
        result["additionalProperties"] = False
    if "format" in result and not {"minLength", "maxLength", "pattern"} & result.keys():
        result["maxLength"] = FORMATS[result["format"]]
    types = result.get("type")
    if "integer" in types if isinstance(types, list) else types == "integer":
        result |= _bounds(result)
    return result


def _bounds(schema: dict[str, Any]) -> dict[str, int]:
    """Bounds for an integer on the sides where it has none."""
    bounds = {}
    if not LOWER & schema.keys() and all(
        schema[key] > -MAX_INTEGER for key in UPPER & schema.keys()
    ):
        bounds["minimum"] = -MAX_INTEGER
    if not UPPER & schema.keys() and all(
        schema[key] < MAX_INTEGER for key in LOWER & schema.keys()
    ):
        bounds["maximum"] = MAX_INTEGER
    return bounds
