"""A `LocalEngine` as a test sees it, and what its answers must equal."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch

from tests.tiny_base import tiny_prompt
from tunesmith.errors import TunesmithError
from tunesmith.model.load import CausalModel, load_model
from tunesmith.model.lora import Adapter, LoraSpec
from tunesmith.serve.local import Limits, LocalEngine, Message
from tunesmith.serve.protocol import AdapterRef, Delta, Done, GenRequest, Stats, TokenLogprob
from tunesmith.serve.ticket import Ticket

TIMEOUT_S = 60.0


@dataclass
class Answer:
    """Everything that was delivered for one ticket."""

    ids: dict[int, list[int]] = field(default_factory=dict)
    logprobs: dict[int, list[TokenLogprob]] = field(default_factory=dict)
    finish: dict[int, str] = field(default_factory=dict)
    end: Done | TunesmithError | None = None

    def add(self, message: Message) -> None:
        assert self.end is None, "nothing may follow the end"
        if not isinstance(message, Delta):
            self.end = message
            return
        assert message.index not in self.finish
        self.ids.setdefault(message.index, []).extend(message.token_ids)
        self.logprobs.setdefault(message.index, []).extend(message.logprobs or [])
        if message.finish_reason:
            self.finish[message.index] = message.finish_reason


class Harness:
    def __init__(self, limits: Limits) -> None:
        self._news: queue.Queue[list[tuple[Ticket, Message]]] = queue.Queue()
        self.engine = LocalEngine(limits, self._news.put)
        self.answers: dict[Ticket, Answer] = {}

    def submit(self, request: GenRequest) -> Ticket:
        ticket = self.engine.submit(request)
        self.answers.setdefault(ticket, Answer())
        return ticket

    def receive(self) -> None:
        for ticket, message in self._news.get(timeout=TIMEOUT_S):
            self.answers.setdefault(ticket, Answer()).add(message)

    def receive_some(self, timeout_s: float) -> None:
        """What has come, or comes within that time."""
        try:
            news = self._news.get(timeout=timeout_s)
        except queue.Empty:
            return
        for ticket, message in news:
            self.answers.setdefault(ticket, Answer()).add(message)

    def settle(self) -> None:
        """Waits until the engine runs nothing and all it said has been received."""
        while (stats := self.stats())["num_running"] or stats["num_waiting"]:
            self.receive_some(0.05)
        while not self._news.empty():
            self.receive_some(0)

    def wait(self, *tickets: Ticket) -> list[Answer]:
        while any(self.answers[ticket].end is None for ticket in tickets):
            self.receive()
        return [self.answers[ticket] for ticket in tickets]

    def ask(self, request: GenRequest) -> Answer:
        return self.wait(self.submit(request))[0]

    def stats(self) -> dict[str, Any]:
        result: queue.Queue[Stats] = queue.Queue()
        self.engine.stats(result.put)
        return result.get(timeout=TIMEOUT_S).to_wire()


@contextmanager
def running_engine(**limits: Any) -> Iterator[Harness]:
    harness = Harness(Limits(**{"device": "cpu", **limits}))
    harness.engine.start()
    try:
        yield harness
    finally:
        harness.engine.close()


def greedy(base: Path, prompt: str | list[int], num_tokens: int, **options: Any) -> GenRequest:
    ids = tiny_prompt(prompt) if isinstance(prompt, str) else prompt
    options = {"stop_ids": frozenset(), "temperature": 0.0, **options}
    return GenRequest(base, ids, num_tokens, **options)


def save_adapter(base: Path, directory: Path, seed: int, rank: int = 4) -> AdapterRef:
    """An adapter that changes answers visibly, published under its content hash."""
    adapter = Adapter.create(load_model(base).linears, LoraSpec(rank, 8.0), seed)
    generator = torch.Generator().manual_seed(seed)
    for matrix in adapter.b.values():
        matrix.normal_(0, 0.5, generator=generator)
    directory.mkdir(parents=True)
    return AdapterRef(adapter.save(directory, "tiny"), directory)


@cache
def _model(base: Path) -> CausalModel:
    return load_model(base)


def reference(base: Path, request: GenRequest) -> list[int]:
    """The greedy answer by its definition: one row, no cache, no batch."""
    model = _model(base)
    lora = Adapter.load(request.adapter.path, model.linears) if request.adapter else None
    ids = list(request.prompt_ids)
    with torch.inference_mode():
        for _ in range(request.max_new_tokens):
            hidden = model.hidden(torch.tensor([ids]), lora=lora)
            ids.append(int(model.logits(hidden[0, -1]).argmax()))
    return ids[len(request.prompt_ids) :]
