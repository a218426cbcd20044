"""/v1/chat/completions: any model by name, the moment it exists."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request, Response

from tunesmith.api.answer_text import count
from tunesmith.api.body import JsonRoute
from tunesmith.api.caller import CallerDep
from tunesmith.api.chat_answer import Answer
from tunesmith.api.chat_request import prepare
from tunesmith.api.services import Svc
from tunesmith.api.sse import EventStream, begun, closing_after, while_connected
from tunesmith.ids import CHAT_COMPLETION, new_id
from tunesmith.wire.chat import CreateChatCompletion

router = APIRouter(prefix="/v1/chat", route_class=JsonRoute)


@router.post("/completions")
async def create_chat_completion(
    body: CreateChatCompletion, request: Request, svc: Svc, caller: CallerDep
) -> Response:
    """Answers a conversation. A client that hangs up cancels its answer, streamed or not."""
    prepared = await run_sync(prepare, svc, caller.project, body)
    answer = Answer(
        id=new_id(CHAT_COMPLETION, svc.rng),
        created=int(svc.clock.now()),
        prepared=prepared,
        rng=svc.rng,
        include_usage=bool(body.stream_options and body.stream_options.include_usage),
    )
    news = prepared.text.news(svc.engine)
    if not body.stream:
        completion = await while_connected(request.receive, closing_after(news, answer.whole(news)))
        count(svc, completion.usage)
        return Response(completion.model_dump_json(), media_type="application/json")

    async def chunks() -> AsyncGenerator[bytes, None]:
        async for chunk in answer.chunks(all_news):
            yield chunk
        count(svc, prepared.text.usage)

    # The first news before the headers: an engine that is not there is a 503, not a broken stream.
    all_news = await while_connected(request.receive, begun(news))
    return EventStream(chunks(), closing=news)
