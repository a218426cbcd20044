"""A base model's chat template, found and run as transformers finds and runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import jinja2
import jinja2.meta
import jinja2.nodes

from tunesmith.data.sandbox import TemplateRefusedError, environment
from tunesmith.data.skeleton import Skeletons
from tunesmith.errors import BaseModelError

MAX_RENDERED_CHARS = 16 << 20
# Pieces of rendered text between two looks at its size.
NUM_CHUNKS = 10_000
NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token")


class ChatTemplate:
    """A compiled template. `text` renders a conversation; tools may select a template of theirs.

    `filled` gives the same text without running the template, where that is known.
    """

    def __init__(self, sources: Mapping[str, str], named_tokens: Mapping[str, str]) -> None:
        sandbox = environment()
        self.named_tokens = dict(named_tokens)
        self._templates = {name: sandbox.from_string(text) for name, text in sources.items()}
        self._skeletons = Skeletons(sources["default"], self._variables(None))
        trees = [sandbox.parse(text) for text in sources.values()]
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
            "add_generation_prompt": add_generation_prompt,
            **self._variables(tools),
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

    def filled(
        self, roles: tuple[str, ...], contents: Sequence[str], add_generation_prompt: bool
    ) -> str | None:
        """The text of messages that have only a role and a content; there may be more contents.

        None where the template has to run to know.
        """
        text = self._skeletons.text(roles, contents, add_generation_prompt)
        return text if text is not None and len(text) <= MAX_RENDERED_CHARS else None

    def _variables(self, tools: list[dict[str, Any]] | None) -> dict[str, Any]:
        """All but the messages."""
        return {
            "tools": tools,
            "documents": None,
            # Rows hold answers without reasoning, so the prompt asks for answers without it.
            "enable_thinking": False,
            **self.named_tokens,
        }


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


def _literals(tree: jinja2.nodes.Template) -> list[str]:
    written = [node.data for node in tree.find_all(jinja2.nodes.TemplateData)]
    constants = [node.value for node in tree.find_all(jinja2.nodes.Const)]
    return written + [value for value in constants if isinstance(value, str)]
