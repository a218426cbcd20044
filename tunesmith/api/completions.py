"""/v1/completions: a text goes on, or is only scored, as evaluation tools ask."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request, Response

from tunesmith.api.answer_text import News, count
from tunesmith.api.body import JsonRoute
from tunesmith.api.caller import CallerDep
from tunesmith.api.completion_answer import CompletionAnswer
from tunesmith.api.completion_request import prepare
from tunesmith.api.services import Svc
from tunesmith.api.sse import EventStream, begun, closing_after, while_connected
from tunesmith.ids import COMPLETION, new_id
from tunesmith.wire.completions import Completion, CreateCompletion

router = APIRouter(prefix="/v1", route_class=JsonRoute)


@router.post("/completions")
async def create_completion(
    body: CreateCompletion, request: Request, svc: Svc, caller: CallerDep
) -> Response:
    """Continues one or many prompts. A client that hangs up cancels them, streamed or not."""
    answer = CompletionAnswer(
        id=new_id(COMPLETION, svc.rng),
        created=int(svc.clock.now()),
        prepared=await run_sync(prepare, svc, caller.project, body),
        include_usage=bool(body.stream_options and body.stream_options.include_usage),
    )
    news: AsyncGenerator[tuple[int, News], None] = answer.news(svc.engine)
    if not body.stream:
        whole: Completion = await while_connected(
            request.receive, closing_after(news, answer.whole(news))
        )
        count(svc, answer.usage)
        return Response(whole.model_dump_json(), media_type="application/json")

    async def chunks() -> AsyncGenerator[bytes, None]:
        async for chunk in answer.chunks(all_news):
            yield chunk
        count(svc, answer.usage)

    # The first news before the headers: an engine that is not there is a 503, not a broken stream.
    all_news = await while_connected(request.receive, begun(news))
    return EventStream(chunks(), closing=news)
