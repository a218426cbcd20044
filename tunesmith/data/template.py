"""Chat templates: the sandbox that runs a base model's Jinja template, as transformers runs it.

One difference is deliberate. `strftime_now` gives a fixed day: the rendered day is part of the
token ids, and ids must not change between training and serving, or between a crash and its resume.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.meta
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

from tunesmith.errors import BaseModelError

# The day that Llama's own templates fall back to.
TODAY = datetime.datetime(2024, 7, 26)
MAX_RENDERED_CHARS = 16 << 20
# Pieces of rendered text between two looks at its size.
NUM_CHUNKS = 10_000
NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token")


class TemplateRefusedError(Exception):
    """The template does not render this conversation; the text is its own where it has one."""


class ChatTemplate:
    """A compiled template. `text` renders a conversation; tools may select a template of theirs."""

    def __init__(self, sources: Mapping[str, str], named_tokens: Mapping[str, str]) -> None:
        environment = _environment()
        self.named_tokens = dict(named_tokens)
        self._templates = {name: environment.from_string(text) for name, text in sources.items()}
        trees = [environment.parse(text) for text in sources.values()]
        self.literals = "\0".join(literal for tree in trees for literal in _literals(tree))
        """Every piece of text that the template itself can write."""
        self.variables = frozenset().union(*map(jinja2.meta.find_undeclared_variables, trees))

    def text(
        self,
        messages: list[dict[str, Any]],
        tools: list[dict[str, Any]] | None,
        add_generation_prompt: bool,
    ) -> str:
        """The conversation as text. Raises TemplateRefusedError."""
        name = "tool_use" if tools and "tool_use" in self._templates else "default"
        variables = {
            "messages": messages,
            "tools": tools,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
            # Rows hold answers without reasoning, so the prompt asks for answers without it.
            "enable_thinking": False,
            **self.named_tokens,
        }
        parts: list[str] = []
        size = 0
        try:
            chunks = self._templates[name].generate(variables)
            while part := "".join(islice(chunks, NUM_CHUNKS)):
                parts.append(part)
                size += len(part)
                if size > MAX_RENDERED_CHARS:
                    raise TemplateRefusedError(f"more than {MAX_RENDERED_CHARS} characters")
        except TemplateRefusedError:
            raise
        except Exception as error:  # the template is foreign code and may raise anything
            raise TemplateRefusedError(str(error) or type(error).__name__) from error
        return "".join(parts)


def load_template(directory: Path, tokenizer_config: Mapping[str, Any]) -> ChatTemplate:
    """The template of a model directory, found where transformers finds it."""
    named = {
        name: token
        for name in NAMED_TOKENS
        if (token := token_text(tokenizer_config.get(name))) is not None
    }
    try:
        return ChatTemplate(
            template_sources(directory, tokenizer_config.get("chat_template")), named
        )
    except jinja2.TemplateSyntaxError as error:
        raise BaseModelError(
            f"The chat template of {directory} has a syntax error in line {error.lineno}: "
            f"{error.message}. Correct it, or copy the template of the model's current release."
        ) from error


def token_text(value: Any) -> str | None:
    """A named token of tokenizer_config.json, which holds a string or an object."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) and value else None


def template_sources(directory: Path, configured: Any) -> dict[str, str]:
    """Template sources by name; a file of its own goes before tokenizer_config.json."""
    sources: dict[str, str] = {}
    if isinstance(configured, str):
        sources["default"] = configured
    elif isinstance(configured, list):
        for entry in configured:
            if isinstance(entry, dict):
                sources[str(entry.get("name"))] = str(entry.get("template"))
    file = directory / "chat_template.jinja"
    if file.is_file():
        sources["default"] = file.read_text(encoding="utf-8")
    with_tools = directory / "additional_chat_templates" / "tool_use.jinja"
    if with_tools.is_file():
        sources["tool_use"] = with_tools.read_text(encoding="utf-8")
    if "default" not in sources:
        raise BaseModelError(
            f"{directory} has no chat template, so there is no one form to train and serve "
            "conversations in. Use the instruct variant of the model, or put the template of its "
            "family beside the weights as chat_template.jinja."
        )
    return sources


def _environment() -> jinja2.Environment:
    environment = _Sandbox(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = TODAY.strftime
    return environment


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


def _literals(tree: jinja2.nodes.Template) -> list[str]:
    written = [node.data for node in tree.find_all(jinja2.nodes.TemplateData)]
    constants = [node.value for node in tree.find_all(jinja2.nodes.Const)]
    return written + [value for value in constants if isinstance(value, str)]
