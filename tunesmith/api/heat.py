"""/v1/tunesmith/jobs/{job_id}/rows/{row}/tokens: what a model finds hard in a row."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import APIRouter, Query

from tunesmith.api.body import JsonRoute
from tunesmith.api.caller import CallerDep
from tunesmith.api.sampling import adapter_of
from tunesmith.api.services import Services, Svc
from tunesmith.bases import BaseInfo
from tunesmith.data import show
from tunesmith.data.raw import read_raw
from tunesmith.data.render import Renderer, RenderError
from tunesmith.data.rows import as_row, file_kind
from tunesmith.data.sequences import Sequence, sequences
from tunesmith.errors import BadRequest, DataError, NotFound
from tunesmith.jobs import commands
from tunesmith.serve.protocol import AdapterRef, ScoreRequest, TokenLogprob
from tunesmith.wire.insight import HeatSequence, HeatToken, RowTokens

router = APIRouter(prefix="/v1/tunesmith/jobs", route_class=JsonRoute)


@dataclass(frozen=True)
class Scored:
    """A row's sequences, and the model that is to score them."""

    model: str
    base: BaseInfo
    adapter: AdapterRef | None
    renderer: Renderer
    sequences: list[Sequence]


@router.get("/{job_id}/rows/{row}/tokens")
async def show_tokens(
    job_id: str,
    row: int,
    svc: Svc,
    caller: CallerDep,
    model: Annotated[str | None, Query()] = None,
) -> RowTokens:
    """A row of the training file with the loss of each token, by the tuned model or another."""
    found = await run_sync(_read, svc, caller.project, job_id, row, model)
    shown = []
    for each in found.sequences:
        ids = list(each.example.ids)
        request = ScoreRequest(found.base.path, ids[:1], ids[1:], found.adapter, top_logprobs=1)
        shown.append(_shape(found, each, await svc.engine.score(request)))
    return RowTokens(fine_tuning_job_id=job_id, row=row, model=found.model, sequences=shown)


def _read(svc: Services, project_id: str, job_id: str, row: int, model: str | None) -> Scored:
    with svc.db.read() as conn:
        job = commands.get_job(conn, project_id, job_id)
    name = model or job.fine_tuned_model
    if name is None:
        raise BadRequest(
            f"Job {job_id} has no model yet. Name one that is to score the row, such as "
            f"'{job.model}'.",
            param="model",
        )
    base, tuned = svc.names.find(project_id, name)
    renderer, _ = svc.renderers.get(base.fingerprint, base.path)
    found = _row(svc, renderer, job.training_file, job.method, row)
    longest = max((len(each.example.ids) for each in found), default=0)
    if not 2 <= longest <= base.context_length:
        raise BadRequest(
            f"Row {row} has {longest} tokens; '{name}' takes 2 to {base.context_length}.",
            param="row",
        )
    return Scored(name, base, adapter_of(svc, tuned), renderer, found)


def _row(
    svc: Services, renderer: Renderer, file_id: str, method: str, number: int
) -> list[Sequence]:
    path = svc.blobs.path(file_id)
    try:
        raw = next(islice(read_raw(path), number - 1, None), None) if number > 0 else None
        if raw is None:
            raise NotFound(f"The training file has no row {number}.", param="row")
        return sequences(renderer, as_row(path, raw, file_kind(path, method)))
    except FileNotFoundError:
        raise NotFound(
            f"The training file {file_id} is deleted; its rows cannot be shown.", param="row"
        ) from None
    except DataError as error:
        raise BadRequest(error.message, code=error.code, param="row") from None
    except RenderError as error:
        raise BadRequest(f"Row {number} {error.text}", code="cannot_render", param="row") from None


def _shape(found: Scored, each: Sequence, scores: list[TokenLogprob]) -> HeatSequence:
    """The first token has no loss: nothing stands before it."""
    tokens, place = [], 0
    losses = [0.0, *(-score.logprob for score in scores)]
    for token in show.tokens(found.renderer, each.example, found.base.context_length):
        end = place + len(token.ids)
        choice = None if place == 0 else _choice(found.renderer, token.ids[0], scores[place - 1])
        tokens.append(
            HeatToken(
                text=token.text,
                trained=token.trained,
                special=token.special,
                loss=None if place == 0 else sum(losses[place:end]),
                choice=choice,
            )
        )
        place = end
    learned = [
        loss for loss, weight in zip(losses, each.example.weights, strict=True) if weight > 0
    ]
    mean = sum(learned) / len(learned) if learned else None
    return HeatSequence(name=each.name, loss=mean, tokens=tokens)


def _choice(renderer: Renderer, actual: int, score: TokenLogprob) -> str | None:
    """What the model would have said in this place, where that is something else."""
    likeliest, _ = score.top[0]
    if likeliest == actual:
        return None
    return renderer.tokenizer.decode([likeliest], skip_special_tokens=False)
