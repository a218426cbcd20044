"""Schemas are followed to the letter or refused by keyword; what is narrowed stays valid."""

from __future__ import annotations

from typing import Any

import pytest

from tunesmith.data.answer_grammar import json_grammar
from tunesmith.data.json_schema import MAX_INTEGER, SchemaError, enforceable

PERSON = {
    "type": "object",
    "title": "Person",
    "properties": {"name": {"type": "string", "description": "x"}, "age": {"type": "integer"}},
    "required": ["name"],
}


@pytest.mark.parametrize(
    ("schema", "keyword", "place"),
    [
        ({"type": "array", "uniqueItems": True}, "uniqueItems", ""),
        ({"properties": {"a": {"not": {}}}}, "not", "/properties/a"),
        ({"anyOf": [{}, {"if": {}, "then": {}}]}, "if", "/anyOf/1"),
        ({"$defs": {"a/b": {"contains": {}}}}, "contains", "/$defs/a/b"),
        ({"type": "strng"}, "type", ""),
        ({"type": []}, "type", ""),
        ({"type": "string", "minimun": 3}, "minimun", ""),
        ({"type": "string", "pattern": "^(?=a)"}, "pattern", ""),
        ({"type": "string", "pattern": r"(a)\1"}, "pattern", ""),
        ({"type": "string", "pattern": 3}, "pattern", ""),
        ({"type": "string", "format": "iri"}, "format", ""),
        ({"type": "array", "items": [{}]}, "items", ""),
        ({"type": "array", "minItems": -1}, "minItems", ""),
        ({"type": "array", "minItems": True}, "minItems", ""),
        ({"type": "number", "minimum": "3"}, "minimum", ""),
        ({"type": "number", "multipleOf": 0}, "multipleOf", ""),
        ({"enum": []}, "enum", ""),
        ({"enum": "red"}, "enum", ""),
        ({"required": "a"}, "required", ""),
        ({"$ref": "http://example.org/a"}, "$ref", ""),
        ({"properties": []}, "properties", ""),
        ({"anyOf": []}, "anyOf", ""),
        ({"properties": {"a": 3}}, None, "/properties/a"),
        ([], None, ""),
        ("object", None, ""),
    ],
)
def test_what_cannot_be_enforced_is_refused_by_name(
    schema: Any, keyword: str | None, place: str
) -> None:
    with pytest.raises(SchemaError) as caught:
        enforceable(schema)
    assert (caught.value.keyword, caught.value.place) == (keyword, place)
    assert keyword is None or f"'{keyword}'" in str(caught.value)


def test_a_lenient_reading_leaves_those_out() -> None:
    schema = {"type": "array", "uniqueItems": True, "items": {"format": "iri", "type": "string"}}
    assert enforceable(schema, lenient=True) == {"type": "array", "items": {"type": "string"}}
    with pytest.raises(SchemaError):
        enforceable({"properties": {"a": 3}}, lenient=True)


def test_annotations_and_options_of_the_compiler_are_dropped() -> None:
    schema = {"$schema": "x", "title": "t", "x-guidance": {"coerce_one_of": True}, "type": "null"}
    assert enforceable(schema) == {"type": "null"}


def test_objects_are_closed_and_integers_bounded() -> None:
    read = enforceable(PERSON)
    assert isinstance(read, dict)
    assert read["additionalProperties"] is False
    assert read["properties"]["name"] == {"type": "string"}
    bounds = {"minimum": -MAX_INTEGER, "maximum": MAX_INTEGER}
    assert read["properties"]["age"] == {"type": "integer", **bounds}
    assert enforceable({"type": "integer", "minimum": 3}) == {
        "type": "integer",
        "minimum": 3,
        "maximum": MAX_INTEGER,
    }
    huge = {"type": "integer", "minimum": 2**60}
    assert enforceable(huge) == huge


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "additionalProperties": {"type": "string"}, "properties": {"a": {}}},
        {"type": "object", "properties": {"a": {}}, "required": ["b"]},
        {"type": "object", "properties": {"a": {}}, "minProperties": 2},
        {"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]},
        {"properties": {"a": {}}, "anyOf": [{"properties": {"b": {}}}, {"properties": {"c": {}}}]},
        {"required": ["c"], "anyOf": [{"properties": {"b": {}}}, {"properties": {"c": {}}}]},
        {"$defs": {"a": {"properties": {"x": {}}}}, "$ref": "#/$defs/a", "properties": {"y": {}}},
    ],
)
def test_objects_that_others_add_to_stay_open(schema: dict[str, Any]) -> None:
    assert enforceable(schema) == schema


def test_properties_may_be_called_like_keywords() -> None:
    names = {"properties": {"type": "string"}, "not": {"type": "null"}, "title": {"type": "string"}}
    read = enforceable({"type": "object", "properties": names})
    assert isinstance(read, dict)
    assert read["properties"] == names


def test_a_schema_may_not_be_endless() -> None:
    with pytest.raises(SchemaError):
        enforceable({"anyOf": [{}] * 5001})


def test_a_grammar_holds_the_schema() -> None:
    assert json_grammar({"type": "null"}).count('%json {"type": "null"') == 2
    assert '"not": {}' in json_grammar(False)
