"""Answers held to a grammar: compiled beside the engine's thread, one mask a token.

A mask is computed on a thread of its own while the model computes the scores it is for. Grammars
come from users, so compiling and each mask have limits, and a grammar that meets one ends its
request, not the engine.

Models that were never trained on JSON do not close what they opened; they end the answer, which a
grammar forbids in the middle of a string. That wish is granted in the way there is: where no stop
token is allowed, tokens that lead to the end score at least as much as it does. Near
`max_new_tokens` they are all that is allowed, so that an answer is closed rather than cut.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from torch import Tensor

from tunesmith.serve.protocol import GenRequest, InvalidGrammar

MAX_GRAMMAR_CHARS = 1 << 20
COMPILE_S = 5.0
LIMITS = LLParserLimits(max_grammar_size=200_000, max_lexer_states=50_000, verbose_errors=False)
NUM_GRAMMARS = 128
NUM_VOCABULARIES = 4
# The last of the tokens that an answer may have, for coming to an end: this share, at most so many.
CLOSING_SHARE, MAX_CLOSING = 0.25, 160
QUOTE, BACKSLASH = b'"\\'

T = TypeVar("T")
Key = tuple[object, ...]
Ready = Callable[["Constraint | InvalidGrammar"], None]
Post = Callable[[Callable[[], None]], None]

# Small, because the model's own threads need the cores; a mask takes some tens of microseconds.
_masks = ThreadPoolExecutor(2, "masks")


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a base as the grammar engine sees them."""

    tokenizer: LLTokenizer
    stop_ids: Tensor
    spellings: list[bytes]
    in_strings: tuple[Tensor, ...]
    between: tuple[Tensor, ...]
    """Tokens that lead to the end of a JSON text, the best first: in a string those that close it,
    elsewhere closing brackets, then what goes on to the next value, then null."""

    @classmethod
    def load(cls, base: Path, num_ids: int, stop_ids: frozenset[int]) -> Vocabulary:
        if not stop_ids:
            raise InvalidGrammar("An answer with a grammar needs a stop token.")
        text = (base / "tokenizer.json").read_text("utf-8")
        ends = sorted(stop_ids)
        tokenizer = LLTokenizer(text, n_vocab=num_ids, eos_token=ends)
        spellings = [tokenizer.decode_bytes([number]) for number in range(num_ids)]

        def ids(pattern: bytes) -> Tensor:
            fits = re.compile(pattern).fullmatch
            found = [number for number, each in enumerate(spellings) if fits(each)]
            return torch.tensor(found, dtype=torch.long)

        return cls(
            tokenizer,
            torch.tensor(ends),
            spellings,
            in_strings=(ids(rb'"[\]}]*'),),
            between=(ids(rb"[\]}]+"), ids(rb", ?"), ids(rb" ?n(ul?)?l?")),
        )


def closing_budget(max_new_tokens: int) -> int:
    return min(int(CLOSING_SHARE * max_new_tokens), MAX_CLOSING)


class Constraint:
    """Where one answer stands in its grammar."""

    def __init__(
        self, vocabulary: Vocabulary, matcher: LLMatcher, first_V: Tensor | None = None
    ) -> None:
        self._vocabulary = vocabulary
        self._matcher = matcher
        self._mask: Future[Tensor] | None = None
        self._first_V = self._compute() if first_V is None else first_V
        if matcher.is_error() or not bool(self._first_V.any()):
            raise InvalidGrammar(reason(matcher))
        self._quoted = False  # within a string of a JSON text
        self._escaped = False
        self.finished = False
        """Nothing may follow any more but a stop token."""
        self.hurried = False
        """The answer had to come to an end sooner than it would have."""

    def fork(self) -> Constraint:
        """The same for another answer, from the beginning."""
        return Constraint(self._vocabulary, self._matcher.deep_copy(), self._first_V)

    def accept(self, token_id: int) -> None:
        """Goes on by a token that the mask allowed; begins with the next mask."""
        self._matcher.consume_token(token_id)
        for byte in self._vocabulary.spellings[token_id]:
            self._escaped, escaped = byte == BACKSLASH and not self._escaped, self._escaped
            if byte == QUOTE and not (self._quoted and escaped):
                self._quoted = not self._quoted
        self.finished = self._matcher.is_stopped() and not self._matcher.is_error()
        self._mask = None if self.finished else _masks.submit(self._compute)

    def apply(self, scores_V: Tensor, *, hurry: bool) -> InvalidGrammar | None:
        """Takes what is not allowed out of the scores; an error where a limit was met.

        In a `hurry` only what leads to the end is left, where there is any.
        """
        allowed_V = (self._mask.result() if self._mask else self._first_V).to(scores_V.device)
        if self._matcher.is_error():
            return InvalidGrammar(reason(self._matcher))
        stop_ids = self._vocabulary.stop_ids
        if not bool(allowed_V[stop_ids].any()):
            closing = self._closing(allowed_V)
            scores_V[closing] = scores_V[closing].maximum(scores_V[stop_ids].max())
            if hurry and len(closing):
                wanted = int(scores_V.masked_fill(~allowed_V, float("-inf")).argmax())
                self.hurried |= wanted not in closing.tolist()
                allowed_V = torch.zeros_like(allowed_V)
                allowed_V[closing] = True
        scores_V.masked_fill_(~allowed_V, float("-inf"))
        return None

    def _closing(self, allowed_V: Tensor) -> Tensor:
        """The tokens that lead to the end; none of them where only the model can say."""
        words = self._vocabulary
        kinds = words.in_strings if self._quoted else words.between
        allowed = (kind[allowed_V[kind]] for kind in kinds)
        return next((ids for ids in allowed if len(ids)), words.between[0][:0])

    def _compute(self) -> Tensor:
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        num_ids = self._vocabulary.tokenizer.vocab_size
        return torch.from_numpy(np.unpackbits(bits, count=num_ids, bitorder="little")).bool()


class Grammars:
    """Compiles on threads of its own and keeps what it compiled; `post` leads to the engine's."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self._pool = ThreadPoolExecutor(2, "grammars")
        self._lock = threading.Lock()
        self._vocabularies: OrderedDict[Key, Vocabulary] = OrderedDict()
        self._kept: OrderedDict[Key, Constraint] = OrderedDict()

    def compile(self, request: GenRequest, num_ids: int, ready: Ready) -> None:
        """Calls `ready` on the engine's thread, once: with a constraint to be forked, or why not.

        A compiler that takes `COMPILE_S`, its turn not counted, is left to itself: an error.
        """

        def work() -> None:
            made: Future[Constraint | InvalidGrammar] = Future()
            threading.Thread(
                target=lambda: made.set_result(self._attempt(request, num_ids)), daemon=True
            ).start()
            result: Constraint | InvalidGrammar
            try:
                result = made.result(COMPILE_S)
            except TimeoutError:
                result = InvalidGrammar(f"The grammar took more than {COMPILE_S:g} s to compile.")
            self._post(lambda: ready(result))

        self._pool.submit(work)

    def _attempt(self, request: GenRequest, num_ids: int) -> Constraint | InvalidGrammar:
        try:
            return self._constraint(request, num_ids)
        except InvalidGrammar as error:
            return error
        except Exception as error:  # a tokenizer or grammar that the library breaks on
            return InvalidGrammar(f"The grammar cannot be used with this model: {error!r:.200}.")

    def _constraint(self, request: GenRequest, num_ids: int) -> Constraint:
        grammar = request.grammar or ""
        if len(grammar) > MAX_GRAMMAR_CHARS:
            raise InvalidGrammar(f"The grammar has more than {MAX_GRAMMAR_CHARS} characters.")
        changed = (request.base_path / "tokenizer.json").stat().st_mtime_ns
        place = (request.base_path, changed, num_ids, request.stop_ids)
        with self._lock:
            kept = self._kept.get((place, grammar))
            vocabulary = self._vocabularies.get(place)
        if kept is not None:
            return kept
        if vocabulary is None:
            vocabulary = Vocabulary.load(request.base_path, num_ids, request.stop_ids)
        matcher = LLMatcher(vocabulary.tokenizer, grammar, log_level=0, limits=LIMITS)
        if matcher.is_error():
            raise InvalidGrammar(reason(matcher))
        made = Constraint(vocabulary, matcher)
        with self._lock:
            keep(self._vocabularies, place, vocabulary, NUM_VOCABULARIES)
            keep(self._kept, (place, grammar), made, NUM_GRAMMARS)
        return made


def keep(kept: OrderedDict[Key, T], key: Key, value: T, capacity: int) -> None:
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > capacity:
        kept.popitem(last=False)


def reason(matcher: LLMatcher) -> str:
    """The library's complaint without the grammar that it quotes."""
    error = matcher.get_error()
    if not error or "NoExtension" in error:
        return "No answer can ever fit the grammar."
    if "regex parse error" in error:
        return " ".join(line.strip() for line in error.splitlines() if "error" in line)
    if "failed to compile JSON schema: " in error:
        return error.partition("failed to compile JSON schema: ")[2].splitlines()[0]
    if "too many" in error.lower() or "limit" in error:
        return "The grammar is too complex to follow."
    return error.splitlines()[0][:200]
