"""Schemas of the kinds that programs ask models for: fields of every type in every setting, and
whole documents."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

FIELDS: dict[str, Schema] = {
    "title": {"type": "string"},
    "short": {"type": "string", "minLength": 2, "maxLength": 24},
    "code": {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{4}$"},
    "slug": {"type": "string", "pattern": "^[a-z0-9]+(-[a-z0-9]+){0,3}$"},
    "email": {"type": "string", "format": "email"},
    "day": {"type": "string", "format": "date"},
    "moment": {"type": "string", "format": "date-time"},
    "clock": {"type": "string", "format": "time"},
    "wait": {"type": "string", "format": "duration"},
    "uuid": {"type": "string", "format": "uuid"},
    "address": {"type": "string", "format": "ipv4"},
    "host": {"type": "string", "format": "hostname"},
    "mood": {"enum": ["positive", "neutral", "negative"]},
    "level": {"enum": [1, 2, 3, "unknown", None]},
    "kind": {"const": "report"},
    "count": {"type": "integer"},
    "age": {"type": "integer", "minimum": 0, "maximum": 130},
    "even": {"type": "integer", "multipleOf": 2, "minimum": 0, "maximum": 100},
    "price": {"type": "number", "minimum": 0, "exclusiveMaximum": 10000},
    "share": {"type": "number", "minimum": 0, "maximum": 1},
    "ratio": {"type": "number"},
    "done": {"type": "boolean"},
    "nothing": {"type": "null"},
    "either": {"type": ["string", "integer", "null"]},
    "pair": {
        "type": "array",
        "prefixItems": [{"type": "number"}, {"type": "number"}],
        "items": False,
        "minItems": 2,
    },
}


def required(**properties: Any) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def settings(name: str, field: Schema) -> dict[str, Schema]:
    """One field in each of the places where a field stands."""
    return {
        "alone": required(**{name: field}),
        "beside": required(
            id={"type": "integer", "minimum": 1}, **{name: field}, note={"type": "string"}
        ),
        "optional": {"type": "object", "properties": {"id": {"type": "integer"}, name: field}},
        "nullable": required(**{name: {"anyOf": [field, {"type": "null"}]}}),
        "listed": required(items={"type": "array", "items": field}),
        "few": required(items={"type": "array", "items": field, "minItems": 1, "maxItems": 3}),
        "nested": required(outer=required(inner=required(**{name: field}))),
        "map": {"type": "object", "additionalProperties": field, "maxProperties": 4},
        "referred": {
            "$defs": {"Part": required(**{name: field})},
            **required(
                first={"$ref": "#/$defs/Part"},
                rest={"type": "array", "items": {"$ref": "#/$defs/Part"}},
            ),
        },
    }


NAME, TEXT = {"type": "string", "maxLength": 40}, {"type": "string"}
MONEY = {"type": "number", "minimum": 0}
PERSON = required(name=TEXT, age=FIELDS["age"], email=FIELDS["email"])
TREE: Schema = {
    "$defs": {
        "Node": required(value=TEXT, children={"type": "array", "items": {"$ref": "#/$defs/Node"}})
    },
    "$ref": "#/$defs/Node",
}

DOCUMENTS: dict[str, Schema] = {
    "sentiment": required(label=FIELDS["mood"], confidence=FIELDS["share"]),
    "sentiment with reasons": required(
        reasons={"type": "array", "items": TEXT}, label=FIELDS["mood"]
    ),
    "spam": required(is_spam=FIELDS["done"], why=TEXT),
    "language": required(language={"enum": ["en", "de", "fr", "es", "it", "no", "fi"]}),
    "person": PERSON,
    "people": required(people={"type": "array", "items": PERSON}),
    "contact card": required(
        person=PERSON,
        phones={"type": "array", "items": {"type": "string", "pattern": r"^\+[0-9]{6,14}$"}},
    ),
    "calendar event": required(
        name=TEXT, date=FIELDS["day"], participants={"type": "array", "items": TEXT}
    ),
    "meeting": required(
        title=TEXT,
        start=FIELDS["moment"],
        minutes={"type": "integer", "minimum": 5, "maximum": 480},
        online=FIELDS["done"],
    ),
    "invoice": required(
        number={"type": "string", "pattern": "^INV-[0-9]{6}$"},
        date=FIELDS["day"],
        currency={"enum": ["EUR", "USD", "NOK"]},
        lines={
            "type": "array",
            "minItems": 1,
            "maxItems": 5,
            "items": required(
                what=TEXT, amount={"type": "integer", "minimum": 1, "maximum": 999}, price=MONEY
            ),
        },
        total=MONEY,
    ),
    "order": required(
        items={
            "type": "array",
            "items": required(
                sku=FIELDS["code"], quantity={"type": "integer", "minimum": 1, "maximum": 99}
            ),
        },
        ship_to=required(
            street=TEXT,
            city=TEXT,
            zip={"type": "string", "pattern": "^[0-9]{5}$"},
            country={"enum": ["NO", "SE", "DK", "FI"]},
        ),
        express=FIELDS["done"],
    ),
    "maths steps": required(
        steps={"type": "array", "items": required(explanation=TEXT, output=TEXT)}, final_answer=TEXT
    ),
    "judge": required(
        result={"type": "number", "minimum": 0, "maximum": 10},
        steps={"type": "array", "items": required(description=TEXT, conclusion=TEXT)},
    ),
    "ui tree": {
        "$defs": {
            "Element": required(
                type={"enum": ["div", "button", "header", "section", "field", "form"]},
                label=TEXT,
                children={"type": "array", "items": {"$ref": "#/$defs/Element"}},
                attributes={"type": "array", "items": required(name=TEXT, value=TEXT)},
            )
        },
        "$ref": "#/$defs/Element",
    },
    "tree": TREE,
    "linked list": required(head={"anyOf": [{"$ref": "#/$defs/Link"}, {"type": "null"}]})
    | {
        "$defs": {
            "Link": required(
                value={"type": "integer"},
                next={"anyOf": [{"$ref": "#/$defs/Link"}, {"type": "null"}]},
            )
        }
    },
    "moderation": required(
        flagged=FIELDS["done"],
        categories=required(
            **dict.fromkeys(("hate", "violence", "sexual", "self_harm"), FIELDS["done"])
        ),
        scores=required(
            **dict.fromkeys(("hate", "violence", "sexual", "self_harm"), FIELDS["share"])
        ),
    ),
    "shape": {
        "anyOf": [
            required(kind={"const": "circle"}, radius=MONEY),
            required(kind={"const": "square"}, side=MONEY),
            required(
                kind={"const": "polygon"},
                points={"type": "array", "items": FIELDS["pair"], "minItems": 3, "maxItems": 6},
            ),
        ]
    },
    "action": required(
        action={
            "oneOf": [
                required(type={"const": "search"}, query=TEXT),
                required(type={"const": "open"}, url={"type": "string", "format": "uri"}),
                required(type={"const": "stop"}),
            ]
        }
    ),
    "sql": required(
        query=TEXT,
        tables={"type": "array", "items": {"enum": ["users", "orders", "items"]}},
        is_read_only=FIELDS["done"],
    ),
    "ticket": required(
        subject=NAME,
        priority={"enum": ["low", "medium", "high", "urgent"]},
        tags={
            "type": "array",
            "items": {"enum": ["billing", "bug", "account", "other"]},
            "maxItems": 3,
        },
        summary=TEXT,
    ),
    "resume": required(
        name=TEXT,
        jobs={
            "type": "array",
            "items": required(
                title=TEXT,
                company=TEXT,
                start=FIELDS["day"],
                end={"anyOf": [FIELDS["day"], {"type": "null"}]},
            ),
        },
        skills={"type": "array", "items": TEXT, "maxItems": 8},
    ),
    "recipe": required(
        name=TEXT,
        serves={"type": "integer", "minimum": 1, "maximum": 12},
        ingredients={
            "type": "array",
            "items": required(name=TEXT, amount=MONEY, unit={"enum": ["g", "ml", "piece"]}),
        },
        steps={"type": "array", "items": TEXT},
    ),
    "movie": required(
        title=TEXT,
        year={"type": "integer", "minimum": 1900, "maximum": 2030},
        genres={"type": "array", "items": {"enum": ["drama", "comedy", "horror"]}},
        rating=FIELDS["share"],
    ),
    "entities": required(
        entities={
            "type": "array",
            "items": required(
                text=TEXT,
                type={"enum": ["person", "place", "organisation"]},
                start={"type": "integer", "minimum": 0},
                end={"type": "integer", "minimum": 0},
            ),
        }
    ),
    "triples": required(
        triples={"type": "array", "items": required(subject=TEXT, relation=TEXT, object=TEXT)}
    ),
    "translation": required(
        source={"enum": ["en", "de"]}, target={"enum": ["en", "de"]}, text=TEXT
    ),
    "quiz": required(
        question=TEXT,
        answers={"type": "array", "items": TEXT, "minItems": 4, "maxItems": 4},
        correct={"type": "integer", "minimum": 0, "maximum": 3},
    ),
    "chart": required(
        kind={"enum": ["bar", "line"]},
        series={
            "type": "array",
            "items": required(name=TEXT, values={"type": "array", "items": {"type": "number"}}),
        },
    ),
    "coordinates": required(
        lat={"type": "number", "minimum": -90, "maximum": 90},
        lon={"type": "number", "minimum": -180, "maximum": 180},
    ),
    "matrix": required(
        rows={
            "type": "array",
            "minItems": 2,
            "maxItems": 2,
            "items": {
                "type": "array",
                "minItems": 2,
                "maxItems": 2,
                "items": {"type": "integer", "minimum": -9, "maximum": 9},
            },
        }
    ),
    "settings": {
        "type": "object",
        "properties": {
            "theme": {"enum": ["dark", "light"]},
            "size": {"type": "integer", "minimum": 8, "maximum": 32},
            "fonts": {"type": "array", "items": TEXT},
        },
        "required": ["theme"],
    },
    "prefixed": {
        "type": "object",
        "patternProperties": {"^x_": {"type": "integer"}},
        "additionalProperties": False,
        "maxProperties": 3,
    },
    "composed": {
        "allOf": [
            {"type": "object", "properties": {"a": TEXT}, "required": ["a"]},
            {"type": "object", "properties": {"b": {"type": "integer"}}, "required": ["b"]},
        ]
    },
    "wide": required(**{f"field_{number}": {"enum": ["yes", "no", "n/a"]} for number in range(30)}),
    "deep": required(a=required(b=required(c=required(d=required(e=required(f=FIELDS["done"])))))),
    "any object": {"type": "object"},
    "array of numbers": {"type": "array", "items": {"type": "number"}, "maxItems": 5},
    "one word": {"type": "string", "enum": ["apple", "pear"]},
    "unicode": required(
        **{"gr\u00f6\u00dfe": {"type": "integer"}, "\u8272": {"enum": ["\u8d64", "\u9752"]}}
    ),
    "odd keys": required(**{'a "b"': TEXT, "c\\d": {"type": "integer"}, "e/f": FIELDS["done"]}),
    "pydantic": {
        "$defs": {"Colour": {"enum": ["red", "green"], "title": "Colour", "type": "string"}},
        "title": "Car",
        "description": "A car",
        "type": "object",
        "properties": {
            "colour": {"$ref": "#/$defs/Colour"},
            "doors": {"default": 4, "title": "Doors", "type": "integer"},
            "owner": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        },
        "required": ["colour"],
    },
}


def schemas() -> dict[str, Schema]:
    """Name -> schema; more than 200."""
    combined = {
        f"{name}, {setting}": schema
        for name, field in FIELDS.items()
        for setting, schema in settings(name, field).items()
    }
    return combined | DOCUMENTS
