"""Schemas that requests bring: of a response format, and of functions that are called strictly."""

from __future__ import annotations

import re
from typing import Any

from tunesmith.data.json_schema import Schema, SchemaError, enforceable
from tunesmith.errors import BadRequest

SCHEMA_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
JSON_OBJECT: Schema = {"type": "object"}


def answer_schema(response_format: dict[str, Any] | None) -> Schema | None:
    """What the answer must be valid under; None for plain text. 400 for what cannot be enforced."""
    if response_format is None:
        return None
    kind = response_format.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return JSON_OBJECT
    if kind != "json_schema":
        raise wrong(
            "response_format.type", f"'{kind!s:.40}' is not one of text, json_object, json_schema"
        )
    given = response_format.get("json_schema")
    if not isinstance(given, dict):
        raise wrong("response_format.json_schema", "must be an object with a name and a schema")
    name = given.get("name")
    if not isinstance(name, str) or not SCHEMA_NAME.fullmatch(name):
        raise wrong(
            "response_format.json_schema.name",
            "must be 1 to 64 letters, digits, underscores or dashes",
        )
    if given.get("strict") not in (None, True, False):
        raise wrong("response_format.json_schema.strict", "must be a boolean")
    if "schema" not in given:
        raise wrong("response_format.json_schema.schema", "must be there")
    try:
        return enforceable(given["schema"])
    except SchemaError as error:
        raise BadRequest(
            f"Invalid schema for response_format '{name}': {error}",
            param="response_format",
            code="invalid_json_schema",
        ) from None


def function_schema(function: dict[str, Any], param: str) -> Schema:
    """The arguments of a function: to the letter if it is `strict`, else as far as can be."""
    strict = function.get("strict") is True
    given = function.get("parameters")
    if not given:
        return {"type": "object", "properties": {}, "additionalProperties": False}
    if strict and given.get("type", "object") != "object":
        raise BadRequest(
            f"Invalid schema for function '{function['name']}': 'type' must be 'object'.",
            param=param,
            code="invalid_function_parameters",
        )
    try:
        schema = enforceable(given, lenient=not strict)
    except SchemaError as error:
        raise BadRequest(
            f"Invalid schema for function '{function['name']}': {error}",
            param=param,
            code="invalid_function_parameters",
        ) from None
    if isinstance(schema, bool):
        return {"type": "object"}
    return {"type": "object", **schema} if "$ref" not in schema else schema


def wrong(param: str, text: str) -> BadRequest:
    return BadRequest(f"Invalid value for '{param}': {text}.", param=param, code="invalid_value")
