"""Near its last token an answer closes what it has opened, and says that it was not its own end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.engine_harness import Harness, greedy
from tests.tiny_base import SPECIAL, tiny_tokenizer
from tunesmith.data.answer_grammar import json_grammar

STOP = frozenset({SPECIAL.index("<|end|>")})
TEXT = {"type": "string"}


def closed(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


LINK = {"anyOf": [{"$ref": "#/$defs/Link"}, {"type": "null"}]}
ENDLESS = [
    closed(text=TEXT),
    closed(list={"type": "array", "items": {"type": "boolean"}}, after=TEXT),
    closed(number={"type": "number"}, after={"type": "integer"}),
    {"$defs": {"Link": closed(value=TEXT, next=LINK)}, **closed(head=LINK)},
    {"type": "array", "items": {"type": "array", "items": TEXT}},
    {"type": "object"},
]


@pytest.mark.parametrize("schema", ENDLESS)
@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_an_answer_without_end_is_closed_in_time(
    engine: Harness, base: Path, schema: dict[str, Any], temperature: float
) -> None:
    request = greedy(
        base,
        "x",
        200,
        stop_ids=STOP,
        grammar=json_grammar(schema),
        temperature=temperature,
        seed=2,
        # A model that never wants to come to an end.
        logit_bias={next(iter(STOP)): -100.0, 4: 0.0},
    )
    answer = engine.ask(request)
    json.loads(tiny_tokenizer().decode(answer.ids[0], skip_special_tokens=False))
    if temperature == 0:
        assert answer.finish[0] == ("length" if len(answer.ids[0]) > 150 else "stop")


def test_an_answer_that_ends_by_itself_says_so_also_late(engine: Harness, base: Path) -> None:
    """The last quarter of the tokens is for closing, but here nothing has to be."""
    lark = 'start: "aaaaaaaaaa"'
    ids = engine.ask(greedy(base, "x", 99, stop_ids=STOP, grammar=lark)).ids[0]
    answer = engine.ask(greedy(base, "x", len(ids), stop_ids=STOP, grammar=lark))
    assert answer.ids[0] == ids
    assert answer.finish[0] == "stop"
