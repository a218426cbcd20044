"""/v1/moderations, and which rows of a job's files its moderator flagged."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request

from tunesmith.api.body import JsonRoute
from tunesmith.api.caller import CallerDep
from tunesmith.api.meter import Demand, PromptOnly
from tunesmith.api.services import After, Limit, Services, Svc
from tunesmith.config import Settings
from tunesmith.errors import BadRequest, ModerationError, NotFound, Unavailable
from tunesmith.ids import MODERATION, new_id
from tunesmith.jobdir.flags import read_flags
from tunesmith.jobs import commands
from tunesmith.moderation.choice import of_settings
from tunesmith.moderation.verdict import Moderator
from tunesmith.wire.lists import Page
from tunesmith.wire.moderations import (
    MAX_INPUTS,
    CreateModeration,
    FlaggedRow,
    Moderation,
    ModerationResult,
    TextPart,
)

router = APIRouter(prefix="/v1", route_class=JsonRoute)

PUBLISHED = re.compile(r"(omni|text)-moderation-[a-z0-9-]{1,20}")
# No tokenizer is asked: usage and limits count a token for every so many characters.
CHARS_PER_TOKEN = 4
FLAG_ID = re.compile(r"flag-([1-9][0-9]{0,8})")


@dataclass(frozen=True)
class Prepared(PromptOnly):
    texts: list[str]
    judge: Moderator


@router.post("/moderations")
async def create_moderation(
    body: CreateModeration, request: Request, svc: Svc, caller: CallerDep
) -> Moderation:
    """A result for each text; parts of one message are one text."""
    admission = await svc.meter.admit(request, caller, partial(prepare, svc, body))
    async with admission:
        prepared = admission.prepared
        try:
            verdicts = await run_sync(prepared.judge.judge, prepared.texts)
        except ModerationError as error:
            raise Unavailable(error.message, code="moderation_unavailable") from error
    return Moderation(
        id=new_id(MODERATION, svc.rng),
        model=prepared.judge.model,
        results=[ModerationResult.of(verdict) for verdict in verdicts],
    )


def prepare(svc: Services, body: CreateModeration) -> Prepared:
    """Checks a request; the first time it reads the classifier: call it in a thread."""
    texts = texts_of(body)
    judge = chosen(svc.settings)
    if not PUBLISHED.fullmatch(body.model) and body.model != judge.model:
        raise NotFound(
            f"The model `{body.model:.80}` does not exist or you do not have access to it. This "
            f"server moderates with '{judge.model}'; the names of OpenAI's models stand for it.",
            code="model_not_found",
            param="model",
        )
    demand = Demand(
        kind="moderations",
        model=judge.model,
        base=judge.model,
        tuned=False,
        num_prompt=sum(len(text) // CHARS_PER_TOKEN + 1 for text in texts),
    )
    return Prepared(demand, texts, judge)


def chosen(settings: Settings) -> Moderator:
    """The one of the settings; 400 where they turn moderation off."""
    found = of_settings(settings)
    if found is None:
        raise BadRequest(
            "This server does not moderate: its operator has turned it off "
            "(TUNESMITH_MODERATION=off).",
            code="moderation_off",
        )
    return found


def texts_of(body: CreateModeration) -> list[str]:
    if isinstance(body.input, str):
        return [body.input]
    if not 1 <= len(body.input) <= MAX_INPUTS:
        raise BadRequest(
            f"Invalid 'input': {len(body.input)} inputs, where 1 to {MAX_INPUTS} are possible.",
            param="input",
            code="invalid_value",
        )
    plain = [part for part in body.input if isinstance(part, str)]
    parts = [part.text for part in body.input if isinstance(part, TextPart)]
    if len(plain) + len(parts) < len(body.input):
        raise BadRequest(
            "This server's moderation reads text only. Leave the images out.",
            param="input",
            code="unsupported_value",
        )
    return plain or ["\n".join(parts)]


@router.get("/tunesmith/jobs/{job_id}/moderation")
def list_flagged_rows(
    job_id: str, svc: Svc, caller: CallerDep, after: After = None, limit: Limit = 20
) -> Page[FlaggedRow]:
    """The flagged rows in the order of the files, the training file first."""
    with svc.db.read() as conn:
        commands.get_job(conn, caller.project, job_id)
    start = _number(after)
    rows, has_more = read_flags(svc.settings.jobs_dir / job_id, start, limit)
    shown = [
        FlaggedRow(
            id=f"flag-{number}",
            file=row.file,
            row=row.row,
            line=row.line,
            categories=row.scores,
        )
        for number, row in enumerate(rows, start + 1)
    ]
    return Page.of(shown, has_more)


def _number(after: str | None) -> int:
    if after is None:
        return 0
    found = FLAG_ID.fullmatch(after)
    if found is None:
        raise BadRequest(f"Invalid 'after': there is no row '{after:.40}'.", param="after")
    return int(found[1])
