"""/v1/completions: a text goes on, or is only scored, as evaluation tools ask."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial

from fastapi import APIRouter, Request, Response

from tunesmith.api.body import JsonRoute
from tunesmith.api.caller import CallerDep
from tunesmith.api.completion_answer import CompletionAnswer
from tunesmith.api.completion_request import prepare
from tunesmith.api.sampling import FOREIGN_TO_COMPLETIONS, refuse_foreign
from tunesmith.api.services import Svc
from tunesmith.api.sse import EventStream, begun, closing_after, while_connected
from tunesmith.ids import COMPLETION, new_id
from tunesmith.wire.completions import CreateCompletion

router = APIRouter(prefix="/v1", route_class=JsonRoute)


@router.post("/completions")
async def create_completion(
    body: CreateCompletion, request: Request, svc: Svc, caller: CallerDep
) -> Response:
    """Continues one or many prompts. A client that hangs up cancels them, streamed or not."""
    refuse_foreign(await request.json(), FOREIGN_TO_COMPLETIONS)
    async with AsyncExitStack() as stack:
        admission = await svc.meter.admit(
            request, caller, partial(prepare, svc, caller.project, body)
        )
        prepared = (await stack.enter_async_context(admission)).prepared
        answer = CompletionAnswer(
            id=new_id(COMPLETION, svc.rng),
            created=int(svc.clock.now()),
            prepared=prepared,
            include_usage=bool(body.stream_options and body.stream_options.include_usage),
        )
        news = answer.news(svc.engine)
        if not body.stream:
            whole = await while_connected(request.receive, closing_after(news, answer.whole(news)))
            return Response(whole.model_dump_json(), media_type="application/json")
        # The first news before the headers: an engine that is not there is a 503, not a broken
        # stream.
        all_news = await while_connected(request.receive, begun(news))
        return EventStream(answer.chunks(all_news), closing=news, within=stack.pop_all())
