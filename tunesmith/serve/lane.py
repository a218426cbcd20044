"""One base at work: which of its choices are computed next, and together.

Iteration-level scheduling (Orca, Yu et al. 2022) with prompts in pieces (Sarathi, Agrawal et al.
2023): a pass computes the next token of every running choice and, up to a number of ids, the
prompts of those that begin. So a choice joins and leaves between two tokens, and a long prompt
delays the running choices by a small piece at a time.

Who waits is ordered by priority, then by arrival.
"""

from __future__ import annotations

import time
from bisect import insort
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tunesmith.errors import EngineError, TunesmithError
from tunesmith.model.decoder import Decoder
from tunesmith.model.load import CausalModel
from tunesmith.serve.prefix import Origin, PrefixCache
from tunesmith.serve.protocol import Delta
from tunesmith.serve.residents import BaseEntry
from tunesmith.serve.rows import rows_of
from tunesmith.serve.sampler import draw
from tunesmith.serve.ticket import Choice

# Ids of prompts in one pass: where nobody waits for a next token, and where somebody does.
CHUNK = 512
SHARED_CHUNK = 128

Fits = Callable[[int], bool]
Outcome = tuple[Choice, Delta | TunesmithError]


class Lane:
    """The choices of one base. `step` computes; what it returns ended has already left."""

    def __init__(self, base: BaseEntry, max_rows: int, num_threads: int, kept: PrefixCache) -> None:
        model: CausalModel = base.value
        self.waiting: list[Choice] = []
        self._num_preempted = 0
        self._rows = rows_of(model, max_rows, num_threads, base.stack)
        self._short = model.short_positions if isinstance(model, Decoder) else None
        self._kept = kept
        self._base = base.key
        self._running: list[Choice] = []  # by row
        self._whole_next = True

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

    def add(self, choice: Choice) -> None:
        insort(self.waiting, choice, key=lambda other: other.rank)

    def discard(self, choice: Choice) -> None:
        """Ends a choice that runs or waits."""
        if choice in self._running:
            self._end(choice)
        elif choice in self.waiting:
            self.waiting.remove(choice)

    def step(self, num_free: int, fits: Fits, alone: bool) -> list[Outcome]:
        """One pass over running choices and prompts.

        `num_free` bounds how many choices may start; `fits` grants memory, bytes; `alone` says
        that nothing runs on any base, so that waiting for memory would be in vain.
        """
        while self._running and not self._reserve(0, fits):
            if self.num_running == 1:
                choice = self._running[0]
                self._remove(choice)
                return [(choice, EngineError("The answer needs more memory than there is."))]
            self._preempt()
        limit = self.num_running + num_free
        num_new = self._plan(limit, fits)
        if not any(num_new):
            if alone and self.waiting:
                error = EngineError("The prompt needs more memory than the engine may use.")
                return [(self.waiting.pop(0), error)]
            return []
        return self._compute(num_new, limit, fits)

    def _plan(self, limit: int, fits: Fits) -> list[int]:
        """How many ids of each row to compute; starts choices while there is room for more."""
        missing = self._num_missing()
        num_new = [1 if number == 1 else 0 for number in missing]
        left = SHARED_CHUNK if any(num_new) else CHUNK
        for row, number in enumerate(missing):
            if number > 1:
                if self._is_long(self._running[row]):
                    return self._plan_whole(row, num_new)
                num_new[row] = min(number, left)
                left -= num_new[row]
        while self.waiting and left > 0 and self.num_running < limit:
            choice = self._next(fits)
            if choice is None:
                break
            number = self._num_missing()[-1]
            if self._is_long(choice) and number > 1:
                return self._plan_whole(self.num_running - 1, [*num_new, 0])
            num_new.append(min(number, left))
            left -= num_new[-1]
        return num_new

    def _plan_whole(self, row: int, num_new: list[int]) -> list[int]:
        """A text past the short length of its model, in one piece and by itself: a part of it would
        be computed as the short one that it looks like. Every other pass is for the others."""
        self._whole_next = not self._whole_next or not any(num_new)
        if self._whole_next:
            num_new = [0] * len(num_new)
            num_new[row] = self._num_missing()[row]
        return num_new

    def _num_missing(self) -> list[int]:
        """Ids of each row that are not computed; 1 where only the next token is."""
        return [
            len(choice.ids) - held
            for choice, held in zip(self._running, self._rows.lengths, strict=True)
        ]

    def _next(self, fits: Fits) -> Choice | None:
        """Starts the first that waits, in a new last row, with what is kept of its beginning."""
        prompts = [
            choice.ticket
            for choice, number in zip(self._running, self._num_missing(), strict=True)
            if number > 1 and not choice.draws.num_drawn
        ]
        for choice in self.waiting:
            # Whose prompt is being computed starts as a copy of that.
            if choice.ticket not in prompts or choice.draws.num_drawn:
                break
        else:
            return None
        if not self._reserve(len(choice.ids), fits):
            return None
        request = choice.request
        choice.origin = Origin(
            self._base,
            request.adapter.sha256 if request.adapter else None,
            request.cache_salt,
            self._is_long(choice),
        )
        self._start(choice, None)
        if self._rows.position_bytes and (blocks := self._kept.find(choice.origin, choice.ids)):
            self._rows.write(self.num_running - 1, torch.cat(blocks, dim=2))
            if not choice.ticket.num_generated:
                choice.ticket.num_cached = self._rows.lengths[-1]
        return choice

    def _start(self, choice: Choice, copy_of: int | None) -> None:
        self.waiting.remove(choice)
        self._rows.add(copy_of)
        self._running.append(choice)
        if choice.ticket.started_s is None:
            choice.ticket.started_s = time.monotonic()

    def _is_long(self, choice: Choice) -> bool:
        """Whether it outgrew the length up to which its model computes in another way."""
        return self._short is not None and len(choice.ids) > self._short

    def _compute(self, num_new: list[int], limit: int, fits: Fits) -> list[Outcome]:
        ids = [
            choice.ids[held : held + number]
            for choice, held, number in zip(self._running, self._rows.lengths, num_new, strict=True)
        ]
        scores_BV = self._rows.run(ids, [choice.lora for choice in self._running])
        computed = [row for row, number in enumerate(num_new) if number]
        ready: list[Choice] = []
        places: list[int] = []
        for place, row in enumerate(computed):
            choice = self._running[row]
            if self._rows.lengths[row] < len(choice.ids):
                continue  # a long prompt, more of it next time
            if not choice.draws.num_drawn:
                self._keep(row)
            copies = [] if choice.draws.num_drawn else self._fork(row, limit, fits)
            ready += [choice, *copies]
            places += [place] * (1 + len(copies))
        if places != list(range(len(scores_BV))):  # each one once, as mostly, needs no copy
            scores_BV = scores_BV[places]
        return self._advance(ready, scores_BV) if ready else []

    def _fork(self, row: int, limit: int, fits: Fits) -> list[Choice]:
        """Starts waiting choices of the same request from its prompt, just computed."""
        first = self._running[row]
        copies = []
        for choice in [other for other in self.waiting if other.ticket is first.ticket]:
            if choice.draws.num_drawn or self.num_running >= limit:
                continue
            if not self._reserve(len(choice.ids), fits):
                break
            choice.origin = first.origin
            self._start(choice, row)
            copies.append(choice)
        return copies

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
                self._end(choice)
            elif self._short is not None and len(choice.ids) == self._short + 1:
                # What was kept of it is of no use any more: from its first id again.
                self._remove(choice)
                self.add(choice)
        return outcomes

    def _preempt(self) -> None:
        """Puts the choice that comes last back in the queue, to be computed again later."""
        last = max(self._running, key=lambda choice: choice.rank)
        self._remove(last)
        self.add(last)
        self._num_preempted += 1

    def _end(self, choice: Choice) -> None:
        """Removes a choice and keeps what was computed: a chat goes on from there."""
        self._keep(self._running.index(choice))
        self._remove(choice)

    def _keep(self, row: int) -> None:
        choice, held = self._running[row], self._rows.lengths[row]
        if self._rows.position_bytes and choice.origin is not None:
            self._kept.keep(
                choice.origin,
                choice.ids[:held],
                lambda start, stop: self._rows.read(row, start, stop),
                self._rows.position_bytes,
            )

    def _remove(self, choice: Choice) -> None:
        row, last = self._running.index(choice), self.num_running - 1
        if row != last:
            self._rows.move(last, row)
            self._running[row] = self._running[last]
        self._rows.drop_last()
        self._running.pop()

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
