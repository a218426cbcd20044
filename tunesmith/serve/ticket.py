"""A request inside the engine, and the choices it asks for."""

from __future__ import annotations

from dataclasses import dataclass, field

from tunesmith.model.lora import Adapter
from tunesmith.serve.grammar import Constraint
from tunesmith.serve.prefix import Origin
from tunesmith.serve.protocol import Delta, FinishReason, GenRequest, InvalidRequest
from tunesmith.serve.residents import Lease
from tunesmith.serve.sampler import Drawn, Draws


@dataclass(eq=False)
class Ticket:
    """A request in the engine; times are of the monotonic clock, seconds."""

    request: GenRequest
    seed: int
    arrived_s: float
    started_s: float | None = None
    first_token_s: float | None = None
    num_generated: int = 0
    num_cached: int = 0
    """Of the prompt, positions that did not have to be computed."""
    lease: Lease | None = None
    choices: list[Choice] = field(default_factory=list)
    """Those that have not ended."""
    closed: bool = False


@dataclass(eq=False)
class Choice:
    """One of a request's answers: `ids` is the prompt and what was generated."""

    ticket: Ticket
    ids: list[int]
    draws: Draws
    lora: Adapter | None
    max_positions: int
    origin: Origin | None = None
    """What its keys and values depend on, once it has begun."""

    @property
    def rank(self) -> tuple[int, float, int]:
        """Lower comes first."""
        return self.request.priority, self.ticket.arrived_s, self.draws.index

    @property
    def request(self) -> GenRequest:
        return self.ticket.request

    def accept(self, drawn: Drawn) -> Delta:
        """Takes the next token; the delta says whether it was the last."""
        draws, request, token = self.draws, self.ticket.request, drawn.token_id
        logprobs = None if drawn.logprob is None else [drawn.logprob]
        grammar = draws.constraint
        by_itself: FinishReason = "length" if grammar and grammar.hurried else "stop"
        if token in request.stop_ids:
            return Delta(draws.index, [], logprobs and [], by_itself)
        draws.record(token)
        self.ids.append(token)
        if grammar and grammar.finished:
            return Delta(draws.index, [token], logprobs, by_itself)
        full = draws.num_left <= 0 or len(self.ids) >= self.max_positions
        return Delta(draws.index, [token], logprobs, "length" if full else None)


def choices_of(ticket: Ticket, lease: Lease, grammar: Constraint | None = None) -> list[Choice]:
    """The request's choices, not begun yet, each held to the grammar by itself."""
    request = ticket.request
    return [
        Choice(
            ticket,
            list(request.prompt_ids),
            Draws(request, ticket.seed, index, constraint=grammar and grammar.fork()),
            lease.lora,
            lease.model.max_positions,
        )
        for index in range(request.n)
    ]


def misfit(request: GenRequest, vocab_size: int, max_positions: int) -> InvalidRequest | None:
    """Why this model cannot take the request, if it cannot."""
    ids = [*request.prompt_ids, *request.logit_bias]
    if not all(0 <= token < vocab_size for token in ids):
        return InvalidRequest(f"The request holds token ids outside 0..{vocab_size - 1}.")
    if len(request.prompt_ids) >= max_positions:
        return InvalidRequest(
            f"The prompt has {len(request.prompt_ids)} tokens; the model's context is "
            f"{max_positions}, and the answer needs some of it."
        )
    return None
