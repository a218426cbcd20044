"""One base at work: which of its choices are computed next, and together.

Iteration-level scheduling (Orca, Yu et al. 2022): every step is one pass over waiting prompts and
one over all running choices, so a choice joins and leaves between two tokens. Passes over
prompts are cut at `CHUNK` ids, so that a long one delays the running choices by no more.

The rows of running choices come first. Behind them at most one prompt is half computed.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tunesmith.errors import EngineError, TunesmithError
from tunesmith.model.decoder import Decoder
from tunesmith.model.load import CausalModel
from tunesmith.serve.protocol import Delta
from tunesmith.serve.rows import rows_of
from tunesmith.serve.sampler import draw
from tunesmith.serve.ticket import Choice

CHUNK = 512

Fits = Callable[[int], bool]


Outcome = tuple[Choice, Delta | TunesmithError]


class Lane:
    """The choices of one base. `step` computes; what it returns ended has already left."""

    def __init__(self, model: CausalModel, max_rows: int, num_threads: int) -> None:
        self.waiting: deque[Choice] = deque()
        self._num_preempted = 0
        self._rows = rows_of(model, max_rows, num_threads)
        self._max_group = 1 if model.slow else max_rows
        self._short = model.short_positions if isinstance(model, Decoder) else None
        self._running: list[Choice] = []  # by row
        self._num_decoding = 0
        self._prompts_next = False

    @property
    def num_running(self) -> int:
        return len(self._running)

    @property
    def num_bytes(self) -> int:
        return self._rows.num_bytes

    @property
    def empty(self) -> bool:
        return not self._running and not self.waiting

    def take_num_preempted(self) -> int:
        """How many choices had to give way since the last call."""
        count, self._num_preempted = self._num_preempted, 0
        return count

    def discard(self, choice: Choice) -> None:
        """Ends a choice that runs or waits."""
        if choice in self._running:
            self._remove(choice)
        elif choice in self.waiting:
            self.waiting.remove(choice)

    def step(self, num_free: int, fits: Fits, alone: bool) -> list[Outcome]:
        """One pass: over prompts and over running choices in turn, where there are both.

        `num_free` bounds how many choices may start; `fits` grants memory, bytes; `alone` says
        that nothing runs on any base, so that waiting for memory would be in vain.
        """
        self._prompts_next = not self._prompts_next
        if not self._prompts_next or not self._num_decoding:
            limit = self.num_running + num_free
            if group := self._next_prompts(limit, fits):
                return self._compute_prompts(group, limit, fits)
            if alone and self.waiting:
                error = EngineError("The prompt needs more memory than the engine may use.")
                return [(self.waiting.popleft(), error)]
        return self._decode(fits)

    def _next_prompts(self, limit: int, fits: Fits) -> list[Choice]:
        """The choices to prefill: the half-computed one, or as many as make a small pass."""
        if self.num_running > self._num_decoding:
            return [self._running[-1]]
        group: list[Choice] = []
        while self.waiting and self.num_running < limit and len(group) < self._max_group:
            choice = self.waiting[0]
            sibling = self._sibling(choice)
            longest = max(len(other.ids) for other in (choice, *group))
            if group and (
                # Rows of a pass start out equally long: empty.
                sibling is not None
                or self._is_long(choice)
                or self._is_long(group[-1])
                or choice.ticket is group[-1].ticket
                or (len(group) + 1) * longest > CHUNK
            ):
                break
            if not self._reserve(len(choice.ids), fits):
                break
            self._start(choice, sibling, len(choice.request.prompt_ids) - 1)
            group.append(choice)
            if sibling is not None:
                break
        return group

    def _start(self, choice: Choice, copy_of: int | None, length: int) -> None:
        self.waiting.popleft()
        self._rows.add(copy_of, length)
        self._running.append(choice)
        if choice.ticket.started_s is None:
            choice.ticket.started_s = time.monotonic()

    def _sibling(self, choice: Choice) -> int | None:
        """A running row that begins with the same prompt, computed."""
        for row, other in enumerate(self._running[: self._num_decoding]):
            if other.ticket is choice.ticket and self._is_long(other) == self._is_long(choice):
                return row
        return None

    def _is_long(self, choice: Choice) -> bool:
        """Whether it outgrew the length up to which its model computes in another way."""
        return self._short is not None and len(choice.ids) > self._short

    def _compute_prompts(self, group: list[Choice], limit: int, fits: Fits) -> list[Outcome]:
        start = self._num_decoding
        held = self._rows.lengths[start:]
        # A part of a long text would be computed as the short one that it looks like.
        chunk = len(group[0].ids) if self._is_long(group[0]) else CHUNK
        new = [choice.ids[done : done + chunk] for choice, done in zip(group, held, strict=True)]
        scores_BV = self._rows.run(start, new, [choice.lora for choice in group])
        if held[0] + len(new[0]) < len(group[0].ids):
            return []  # a long prompt, more of it next time
        num_copies = self._fork(group[-1], limit, fits)
        if num_copies:
            scores_BV = torch.cat((scores_BV, scores_BV[-1:].expand(num_copies, -1)))
        self._num_decoding = self.num_running
        return self._advance(self._running[start:], scores_BV)

    def _fork(self, choice: Choice, limit: int, fits: Fits) -> int:
        """Starts waiting choices of the same request from its prompt, just computed."""
        row = self.num_running - 1
        num_copies = 0
        while (
            self.waiting
            and self.num_running < limit
            and self.waiting[0].ticket is choice.ticket
            and choice.draws.num_drawn == self.waiting[0].draws.num_drawn == 0
            and self._reserve(len(choice.ids), fits)
        ):
            self._start(self.waiting[0], row, len(choice.ids))
            num_copies += 1
        return num_copies

    def _decode(self, fits: Fits) -> list[Outcome]:
        while self._num_decoding and not self._reserve(0, fits):
            if self.num_running == 1:
                choice = self._running[0]
                self._remove(choice)
                return [(choice, EngineError("The answer needs more memory than there is."))]
            self._preempt()
        choices = self._running[: self._num_decoding]
        if not choices:
            return []
        scores_BV = self._rows.run(
            0, [choice.ids[-1:] for choice in choices], [choice.lora for choice in choices]
        )
        return self._advance(choices, scores_BV)

    def _advance(self, choices: Sequence[Choice], scores_BV: Tensor) -> list[Outcome]:
        outcomes: list[Outcome] = []
        drawn = draw(scores_BV, [choice.draws for choice in choices])
        for choice, token in zip(choices, drawn, strict=True):
            if isinstance(token, EngineError):
                outcomes.append((choice, token))
                self._remove(choice)
                continue
            delta = choice.accept(token)
            outcomes.append((choice, delta))
            if delta.finish_reason is not None:
                self._remove(choice)
            elif self._short is not None and len(choice.ids) == self._short + 1:
                # What was kept of it is of no use any more: from its first id again.
                self._remove(choice)
                self.waiting.appendleft(choice)
        return outcomes

    def _preempt(self) -> None:
        """Puts the choice that arrived last back in the queue, to be computed again later."""
        youngest = max(self._running, key=lambda choice: choice.ticket.arrived_s)
        self._remove(youngest)
        self.waiting.appendleft(youngest)
        self._num_preempted += 1

    def _remove(self, choice: Choice) -> None:
        row = self._running.index(choice)
        last = self.num_running - 1
        if row < self._num_decoding:
            # Fill the gap with the last running choice, and that one's with a half prompt.
            self._num_decoding -= 1
            self._move(self._num_decoding, row)
            self._move(last, self._num_decoding)
        self._rows.drop_last()
        self._running.pop()

    def _move(self, source: int, target: int) -> None:
        if source != target:
            self._rows.move(source, target)
            self._running[target] = self._running[source]

    def _reserve(self, new_length: int, fits: Fits) -> bool:
        """Room for the next position of every row, and for a new row of `new_length` ids (0: none).

        A half-computed prompt counts whole.
        """
        num_rows = self.num_running + (1 if new_length else 0)
        length = max(new_length, *(len(choice.ids) for choice in self._running), 1)
        for tight in (False, True):
            more = self._rows.bytes_for(num_rows, length, tight=tight) - self._rows.num_bytes
            if more <= 0 or fits(more):
                self._rows.reserve(num_rows, length, tight=tight)
                return True
        return False
