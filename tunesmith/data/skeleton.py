"""The text of conversations of one form: rendered once, with the contents left open.

Most templates only copy what messages say. So a template is run with stand-ins for the contents of
its messages. What it asks of one is answered as of an ordinary text, and noted; what else it tries
ends the attempt. The text of any conversation with these roles whose contents give the noted
answers is then the same but for the contents, and is put together without the template.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, cast

import jinja2
import jinja2.filters

from tunesmith.data.sandbox import environment

# A longer conversation shares its form with few others.
MAX_MESSAGES = 128
# Of one skeleton's own text, and of all that are kept.
MAX_CHARS = 1 << 18
MAX_ALL_CHARS = 8 << 20
# What a message costs in a skeleton beside text, counted as such.
MESSAGE_CHARS = 64


Parts = tuple[str | int, ...]
"""Known texts, and contents by their number."""


class InspectedError(BaseException):
    """The text depends on what a content says. No Exception, because filters catch those."""


@dataclass(frozen=True)
class Question:
    """What a template wanted to know of a content."""

    number: int
    method: str
    arguments: tuple[str, ...]
    answer: bool | None
    """None: the content itself."""

    def is_answered_by(self, contents: Sequence[str]) -> bool:
        content = contents[self.number]
        found = getattr(content, self.method)(*self.arguments)
        return bool(found == content if self.answer is None else bool(found) is self.answer)


class StandIn:
    """A content that is not known, or such contents and known texts one after another."""

    def __init__(self, parts: Parts, asked: list[Question]) -> None:
        self.parts = parts
        self._asked = asked

    def _answer(self, method: str, *arguments: Any, answer: bool | None) -> bool:
        """The `answer` of an ordinary text; it holds for texts that give it, too."""
        if len(self.parts) != 1 or any(type(each) is not str for each in arguments):
            self._refuse()
        question = Question(cast(int, self.parts[0]), method, arguments, answer)
        if question not in self._asked:
            self._asked.append(question)
        return bool(answer)

    def __add__(self, other: Any) -> StandIn:
        return StandIn((*self.parts, *_parts(other)), self._asked)

    def __radd__(self, other: Any) -> StandIn:
        return StandIn((*_parts(other), *self.parts), self._asked)

    def __bool__(self) -> bool:
        return self._answer("__len__", answer=True)

    def __contains__(self, text: Any) -> bool:
        return self._answer("__contains__", text, answer=False)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, StandIn) and other is not self:
            self._refuse()
        return other is self or (
            isinstance(other, str) and self._answer("__eq__", other, answer=False)
        )

    def startswith(self, text: Any) -> bool:
        return self._answer("startswith", text, answer=False)

    def endswith(self, text: Any) -> bool:
        return self._answer("endswith", text, answer=False)

    def strip(self, *chars: str) -> StandIn:
        self._answer("strip", *chars, answer=None)
        return self

    def lstrip(self, *chars: str) -> StandIn:
        self._answer("lstrip", *chars, answer=None)
        return self

    def rstrip(self, *chars: str) -> StandIn:
        self._answer("rstrip", *chars, answer=None)
        return self

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise InspectedError

    __getattr__ = __getitem__ = __iter__ = __len__ = __hash__ = _refuse
    __str__ = __repr__ = __format__ = __int__ = __float__ = __index__ = _refuse


def _parts(value: Any) -> Parts:
    if isinstance(value, StandIn):
        return value.parts
    if isinstance(value, str):
        return (value,)
    raise InspectedError


class Written(str):
    """What a template writes of a stand-in; `str` returns it as it is."""

    parts: Parts

    def __str__(self) -> str:
        return self


def _write(value: Any) -> Any:
    if not isinstance(value, StandIn):
        return value
    written = Written()
    written.parts = value.parts
    return written


def _concat(pieces: Iterable[str]) -> str:
    """Of a macro or a block, whose text the template may look at."""
    pieces = list(pieces)
    if any(isinstance(piece, Written) for piece in pieces):
        raise InspectedError
    return "".join(pieces)


@dataclass(frozen=True)
class Skeleton:
    """Text and content in turn, beginning and ending with text."""

    texts: list[str]
    numbers: list[int]
    not_empty: list[int]
    """Contents that have to be."""
    questions: list[Question]

    def filled(self, contents: Sequence[str]) -> str | None:
        """None where a content does not answer as expected."""
        if not all(map(contents.__getitem__, self.not_empty)):
            return None
        if not all(question.is_answered_by(contents) for question in self.questions):
            return None
        parts = [""] * (2 * len(self.numbers) + 1)
        parts[::2] = self.texts
        parts[1::2] = [contents[number] for number in self.numbers]
        return "".join(parts)


class Skeletons:
    """The skeletons of one template, each made when it is first needed."""

    def __init__(self, source: str, variables: Mapping[str, Any]) -> None:
        self._source = source
        self._variables = variables
        self._template: jinja2.Template | None = None
        self._kept: dict[tuple[tuple[str, ...], bool], Skeleton | None] = {}
        self._num_chars = 0

    def text(
        self, roles: tuple[str, ...], contents: Sequence[str], add_generation_prompt: bool
    ) -> str | None:
        """As the template writes it; None where only the template knows."""
        if len(roles) > MAX_MESSAGES:
            return None
        key = (roles, add_generation_prompt)
        if key not in self._kept:
            self._keep(key)
        skeleton = self._kept[key]
        return skeleton.filled(contents) if skeleton is not None else None

    def _keep(self, key: tuple[tuple[str, ...], bool]) -> None:
        if self._num_chars > MAX_ALL_CHARS:
            self._kept = {}
            self._num_chars = 0
        try:
            skeleton = self._made(*key)
        except (InspectedError, Exception):  # the template is foreign code and may raise anything
            skeleton = None
        self._kept[key] = skeleton
        num_chars = sum(map(len, skeleton.texts)) if skeleton is not None else 0
        self._num_chars += num_chars + MESSAGE_CHARS * (len(key[0]) + 1)

    def _made(self, roles: tuple[str, ...], add_generation_prompt: bool) -> Skeleton:
        asked: list[Question] = []
        variables = {
            "messages": [
                {"role": role, "content": StandIn((number,), asked)}
                for number, role in enumerate(roles)
            ],
            "add_generation_prompt": add_generation_prompt,
            **self._variables,
        }
        if self._template is None:
            self._template = _tracing().from_string(self._source)
        texts: list[list[str]] = [[]]
        numbers: list[int] = []
        size = 0
        for piece in self._template.generate(variables):
            for part in piece.parts if isinstance(piece, Written) else (piece,):
                if isinstance(part, int):
                    numbers.append(part)
                    texts.append([])
                else:
                    texts[-1].append(part)
                    size += len(part)
            if size > MAX_CHARS or len(numbers) > MAX_CHARS:
                raise InspectedError
        return Skeleton(
            ["".join(text) for text in texts],
            numbers,
            [question.number for question in asked if question.method == "__len__"],
            [question for question in asked if question.method != "__len__"],
        )


def _tracing() -> jinja2.Environment:
    """The sandbox, with stand-ins taken for texts."""
    result = environment()
    result.finalize = _write
    result.concat = _concat  # type: ignore[method-assign]
    result.tests["string"] = lambda value: isinstance(value, str | StandIn)
    result.tests["sameas"] = _same
    result.filters["trim"] = _trim
    return result


def _same(value: Any, other: Any) -> bool:
    if isinstance(value, StandIn) or isinstance(other, StandIn):
        raise InspectedError
    return value is other


def _trim(value: Any, chars: str | None = None) -> Any:
    if isinstance(value, StandIn):
        return value.strip() if chars is None else value.strip(chars)
    return jinja2.filters.do_trim(value, chars)
