"""Pieces of text that a call is made of: where a value ends, what a text spells, what it holds."""

from __future__ import annotations

import ast
import json
from typing import Any

from tunesmith.data import strict_json


class Scanner:
    """Finds the end of a JSON value (or of brackets in Python) that begins with a bracket."""

    def __init__(self, depth: int = 0, quotes: str = '"') -> None:
        self._depth = depth
        self._quotes = quotes
        self._quote = ""
        self._escaped = False

    def feed(self, text: str) -> int | None:
        """How many characters belong to it, once the last bracket is closed."""
        for place, char in enumerate(text):
            if self._quote:
                if self._escaped:
                    self._escaped = False
                elif char == "\\":
                    self._escaped = True
                elif char == self._quote:
                    self._quote = ""
            elif char in self._quotes:
                self._quote = char
            elif char in "{[(":
                self._depth += 1
            elif char in "}])":
                self._depth -= 1
                if self._depth <= 0:
                    return place + 1
        return None


def anchor_of(head: str) -> tuple[str, str]:
    """The head's first piece without white space, and the rest without any."""
    pieces = [*head.split(), ""]
    return pieces[0], "".join(pieces[1:])


def without_space(text: str) -> str:
    return "".join(text.split())


def spells(solid: str, text: str) -> int | None:
    """How far `text` spells `solid`, white space aside; None if it may yet, -1 if it does not."""
    matched = 0
    for place, char in enumerate(text):
        if matched == len(solid):
            return place
        if char.isspace():
            continue
        if char != solid[matched]:
            return -1
        matched += 1
    return len(text) if matched == len(solid) else None


def json_value(text: str) -> Any:
    """The value of a JSON text, None for anything else."""
    try:
        return strict_json.loads(text)
    except strict_json.JsonError:
        return None


def keyword_arguments(text: str) -> dict[str, Any] | None:
    """The keyword arguments of a call in Python's form, with JSON's constants allowed."""
    try:
        tree = ast.parse(f"f({text})", mode="eval").body
        if not isinstance(tree, ast.Call) or tree.args:
            return None
        if any(each.arg is None for each in tree.keywords):
            return None
        found = {str(each.arg): _literal(each.value) for each in tree.keywords}
        json.dumps(found)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return None
    return found


def _literal(node: ast.expr) -> Any:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name) and inner.id not in CONSTANTS:
            raise ValueError(inner.id)
    return ast.literal_eval(_Constants().visit(node))


CONSTANTS = {"true": True, "false": False, "null": None}


class _Constants(ast.NodeTransformer):
    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.copy_location(ast.Constant(CONSTANTS[node.id]), node)
