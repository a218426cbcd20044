"""Tool calls out of generated text, piece by piece.

Text that turns out to be no call, or a call of a tool that was not offered, stays text. What has
been given out cannot be taken back: a call that breaks off in its arguments is told as broken, with
the text it was made of, and who has not shown it yet can show that instead.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from tunesmith.data.call_text import (
    Scanner,
    anchor_of,
    json_value,
    keyword_arguments,
    spells,
    without_space,
)
from tunesmith.data.tool_syntax import CallSyntax

ARGUMENT_KEYS = ("arguments", "parameters")
MAX_NAME_CHARS = 64
NAME = re.compile(r"\s*([A-Za-z0-9_.-]{1,64})\s*\(")
FIRST_KEY = re.compile(r'\s*\{\s*"([^"\\]{0,400})"')
# A name may be written in escapes; a string that has come to no end by then is none.
QUOTED_NAME = r'"(?:[^"\\]|\\.){0,400}"'


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class CallStart:
    index: int
    name: str


@dataclass(frozen=True)
class Arguments:
    """More of a call's arguments, as the model wrote them."""

    index: int
    text: str


@dataclass(frozen=True)
class Broken:
    """The call that was begun is none; `raw` is all that was read of it."""

    index: int
    raw: str


Event = Text | CallStart | Arguments | Broken


class CallParser:
    """Reads one answer. With `many` False it ends (`done`) after the first call."""

    def __init__(self, syntax: CallSyntax, names: Collection[str], *, many: bool = True) -> None:
        self._syntax = syntax
        self._names = names
        self._many = many
        self._anchor, self._head_rest = anchor_of(syntax.head)
        self._keys = {syntax.arguments_key, *ARGUMENT_KEYS}
        self._start = re.compile(
            rf'\s*\{{\s*"{re.escape(syntax.name_key)}"\s*:\s*({QUOTED_NAME})\s*,\s*'
            rf'"({"|".join(map(re.escape, sorted(self._keys)))})"\s*:\s*(?=\S)'
        )
        self._buffer = ""
        self._raw = ""  # of the call being read, what has left the buffer
        self._arguments = ""
        self._scanner = Scanner()
        self._ending: tuple[Scanner, int] | None = None  # of a value in the buffer, and how far
        self._space = ""  # before the buffer: dropped if a call follows
        self._state: Callable[[], list[Event] | None] = (
            self._at_start if syntax.only_at_start else self._text
        )
        self.has_call = False
        """Whether a call has come to its end."""
        self.num_calls = 0
        """Those begun, with the broken ones."""
        self.done = False

    def push(self, text: str) -> list[Event]:
        self._buffer += text
        return self._run()

    def flush(self, *, cut: bool = False) -> list[Event]:
        """The end of the answer; `cut` says that it was not the model's."""
        events = self._run()
        rest, self._buffer = self._buffer, ""
        if self.done or self._state in (self._close, self._after):
            return events
        if self._state == self._in_arguments:
            return events if cut else [*events, Broken(self.num_calls - 1, self._raw)]
        text = self._space + self._raw + rest
        if text and not (self.has_call and text.isspace()):
            events.append(Text(text))
        return events

    def _run(self) -> list[Event]:
        """Steps until more text is needed."""
        events: list[Event] = []
        while not self.done and (more := self._state()) is not None:
            events += more
        return events

    def _take(self, num_chars: int) -> str:
        taken, self._buffer = self._buffer[:num_chars], self._buffer[num_chars:]
        self._raw += taken
        self._ending = None
        return taken

    def _end_of_value(self, start: int, depth: int = 0, quotes: str = '"') -> int | None:
        """Where the value at `start` of the buffer ends; no character is looked at twice."""
        scanner, at = self._ending or (Scanner(depth, quotes), start)
        end = scanner.feed(self._buffer[at:])
        self._ending = (scanner, len(self._buffer)) if end is None else None
        return None if end is None else at + end

    # States: each takes what it can, and returns None to wait for more text.

    def _text(self) -> list[Event] | None:
        at = self._buffer.find(self._anchor)
        if at >= 0:
            before = self._space + self._buffer[:at]
            shown = before.rstrip()
            # Dropped with the call, shown again if it is none.
            self._space, self._raw = "", before[len(shown) :]
            self._buffer = self._buffer[at:]
            self._take(len(self._anchor))
            self._state = self._head
            return [Text(shown)] if shown else []
        held = next(
            (
                n
                for n in range(len(self._anchor) - 1, 0, -1)
                if self._buffer.endswith(self._anchor[:n])
            ),
            0,
        )
        whole = self._space + self._buffer
        free = whole[: len(whole) - held]
        shown = free.rstrip()
        self._space, self._buffer = free[len(shown) :], whole[len(free) :]
        if shown:
            # Calls may follow at once: then the white space before them is the template's.
            return [Text(shown)]
        return None

    def _at_start(self) -> list[Event] | None:
        stripped = self._buffer.lstrip()
        if not stripped:
            return None
        opening = self._syntax.head.strip() or ("" if self._syntax.form == "python" else "{")
        if not stripped.startswith(opening):
            self._state = self._plain
            return []
        self._raw = ""
        self._take(len(self._buffer) - len(stripped) + len(self._syntax.head.strip()))
        self._state = self._call
        return []

    def _plain(self) -> list[Event] | None:
        text = self._space + self._raw + self._buffer
        self._space = self._raw = self._buffer = ""
        if self.has_call and (not text or text.isspace()):
            self._space = text
            return None
        return [Text(text)] if text else None

    def _head(self) -> list[Event] | None:
        found = spells(self._head_rest, self._buffer)
        if found is None:
            return None
        if found < 0:
            return self._give_up()
        self._take(found)
        self._state = self._call
        return []

    def _call(self) -> list[Event] | None:
        if self._syntax.form == "python":
            return self._python_call()
        if self._syntax.form == "named":
            return self._named_call()
        found = self._start.match(self._buffer)
        if found:
            name = json_value(found[1])
            opening = self._buffer[found.end()]
            if opening == "{" and name in self._names:
                self._take(found.end())
                return self._begin(str(name))
        key = FIRST_KEY.match(self._buffer)
        if not self._buffer.strip():
            return None
        odd = key and key[1] not in {self._syntax.name_key, *self._keys, "id", "type"}
        if odd or not self._buffer.lstrip().startswith("{"):
            return self._give_up()
        end = self._end_of_value(0)
        if end is None:
            return None
        return self._whole_object(end)

    def _whole_object(self, end: int) -> list[Event]:
        """A call whose keys come in another order, or whose arguments are a string, or missing."""
        value = json_value(self._buffer[:end])
        name = value.get(self._syntax.name_key) if isinstance(value, dict) else None
        if not isinstance(value, dict) or name not in self._names:
            return self._give_up()
        arguments: Any = next((value[key] for key in sorted(self._keys) if key in value), {})
        if isinstance(arguments, str):
            arguments = json_value(arguments)
        if not isinstance(arguments, dict):
            return self._give_up()
        self._take(end)
        return self._whole_call(str(name), arguments)

    def _named_call(self) -> list[Event] | None:
        middle = self._syntax.after_name.strip()
        at = self._buffer.find(middle)
        opening = self._buffer.find("{", at) if at >= 0 else -1
        if opening < 0:
            too_long = len(self._buffer) > MAX_NAME_CHARS + len(self._syntax.after_name) + 8
            return self._give_up() if too_long else None
        name = self._buffer[:at].strip()
        if name not in self._names or self._buffer[at + len(middle) : opening].strip():
            return self._give_up()
        self._take(opening)
        return self._begin(name)

    def _python_call(self) -> list[Event] | None:
        found = NAME.match(self._buffer)
        if not found:
            hopeless = not re.fullmatch(r"\s*[A-Za-z0-9_.-]{0,64}\s*", self._buffer)
            return self._give_up() if hopeless else None
        if found[1] not in self._names:
            return self._give_up()
        end = self._end_of_value(found.end(), 1, "\"'")
        if end is None:
            return None
        arguments = keyword_arguments(self._buffer[found.end() : end - 1])
        if arguments is None:
            return self._give_up()
        self._take(end)
        return self._whole_call(found[1], arguments)

    def _whole_call(self, name: str, arguments: dict[str, Any]) -> list[Event]:
        self.num_calls += 1
        index = self.num_calls - 1
        self.has_call = True
        self._state = self._after
        text = json.dumps(arguments, ensure_ascii=False)
        return [CallStart(index, name), Arguments(index, text)]

    def _begin(self, name: str) -> list[Event]:
        self.num_calls += 1
        self._arguments, self._scanner = "", Scanner()
        self._state = self._in_arguments
        return [CallStart(self.num_calls - 1, name)]

    def _in_arguments(self) -> list[Event] | None:
        if not self._buffer:
            return None
        end = self._scanner.feed(self._buffer)
        text = self._take(len(self._buffer) if end is None else end)
        self._arguments += text
        index = self.num_calls - 1
        if end is None:
            return [Arguments(index, text)]
        if not isinstance(json_value(self._arguments), dict):
            self._state = self._plain if self._syntax.only_at_start else self._text
            raw, self._raw = self._raw, ""
            return [Broken(index, raw)]
        self.has_call = True
        self._scanner = Scanner(depth=1)
        self._state = self._close if self._syntax.form == "object" else self._after
        return [Arguments(index, text)]

    def _close(self) -> list[Event] | None:
        """What follows the arguments in a call's object, such as an id."""
        end = self._scanner.feed(self._buffer)
        self._take(len(self._buffer) if end is None else end)
        if end is None:
            return None
        self._state = self._after
        return []

    def _after(self) -> list[Event] | None:
        if not self._many:
            self.done = True
            return []
        between, tail = self._syntax.between, self._syntax.tail
        follows = (
            spells(without_space(between), self._buffer)
            if between and without_space(between)
            else -1
        )
        ends = spells(without_space(tail), self._buffer) if without_space(tail) else -1
        self._raw = ""
        if follows is not None and follows >= 0:
            self._take(follows)
            self._state = self._call
            return []
        if follows is None or ends is None:
            return None
        self._buffer = self._buffer[max(ends, 0) :]
        self._state = self._plain if self._syntax.only_at_start else self._text
        return []

    def _give_up(self) -> list[Event]:
        """What was taken for a call is text; what follows is read anew."""
        text, self._raw = self._raw, ""
        self._ending = None
        self._state = self._plain if self._syntax.only_at_start else self._text
        return [Text(text)] if text else []
