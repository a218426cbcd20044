"""The sandbox that runs chat templates, with what transformers offers them.

One difference is deliberate. `strftime_now` gives a fixed day: the rendered day is part of the
token ids, and ids must not change between training and serving, or between a crash and its resume.
"""

from __future__ import annotations

import datetime
import json
import re
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

# The day that Llama's own templates fall back to.
TODAY = datetime.datetime(2024, 7, 26)


class TemplateRefusedError(Exception):
    """The template does not render this conversation; the text is its own where it has one."""


def environment() -> jinja2.Environment:
    result = _Sandbox(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    result.filters["tojson"] = _to_json
    result.globals["raise_exception"] = _raise_exception
    result.globals["strftime_now"] = TODAY.strftime
    return result


class _Sandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """The sandbox, with a short cut for the keys of messages, which are most of its work."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        if type(obj) is dict and attribute in obj and attribute not in METHODS:
            return obj[attribute]
        return super().getattr(obj, attribute)


# For `message.items`, Jinja takes the method and not a key of that name.
METHODS = frozenset(dir(dict))


class _Generation(jinja2.ext.Extension):
    """Accepts {% generation %}...{% endgeneration %}: only its content counts."""

    tags = {"generation"}  # noqa: RUF012 - the name and form that Jinja asks for

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as transformers writes it: without the HTML escapes of Jinja's own filter."""
    text = json.dumps(
        value, ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort_keys
    )
    return NOT_ASCII.sub(_escape, text) if ensure_ascii else text


# All but the marks of `encode.py`, which must reach it as they are.
NOT_ASCII = re.compile("[^\\x00-\\x7f\ufdd0\ufdd1]")


def _escape(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1]


def _raise_exception(message: str) -> NoReturn:
    raise TemplateRefusedError(message)
